"""Every protocol of the field by name: what is counted, with which threshold and which boxes.

A protocol turns raw measurements (:mod:`cxrlib.metrics.conventions`) into one number for each
finding, for all of them (macro) and for all pairs together (micro). It does so from sums over
pairs, so that the same code gives the value and every bootstrap replicate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from cxrlib.metrics.bootstrap import ratio
from cxrlib.metrics.conventions import (
    CHEXLOCALIZE_THRESHOLDS,
    CLARITY_EVERY,
    HAM_THRESHOLD,
    SWEEP,
    TIOBB,
    TIOU,
    WANG_THRESHOLDS,
)
from cxrlib.metrics.localization import Measured
from cxrlib.metrics.tuning import Tuned, tune

Columns = Callable[[Measured], np.ndarray]
Combine = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of F groups of pairs: sums (F, k, r) of k columns in r replicates, number of pairs (F, 1, r), and
the sums on the data themselves (F, k, 1), by which an oracle chooses -> (F, r)."""

PYLON_TS = (0.1, 0.25, 0.5)
WSOL_TS = (0.3, 0.5, 0.7)
TUNED = "tuned on boxval for each finding, scored on boxtest"


def mean(totals: np.ndarray, numbers: np.ndarray, on_data: np.ndarray) -> np.ndarray:
    """Mean of the one column: -> (F, r)."""
    return ratio(totals[:, 0], numbers[:, 0])


@dataclass(frozen=True)
class Protocol:
    """One way of scoring.

    Attributes:
        name: key in ``metrics.json``, e.g. ``"ham_tiou@0.5"``.
        columns: measurements -> float (P, k), NaN where a pair is left out.
        origin: paper or code it is from.
        threshold: policy: none, fixed, Otsu's, tuned on ``boxval``, or oracle (the best on what is
            scored, an upper bound).
        boxes: how the truth becomes pixels, or which edges belong to a box.
        combine: sums of the columns -> value.
        every_record: whether there is a column for each finding, summed over *all* pairs' images.
        tuned: measurements -> the threshold of each finding, where the policy is to tune it.
        unit: ``"share"``, 0 to 1, higher is better; or ``"boxes per image"``, lower is better.
    """

    name: str
    columns: Columns
    origin: str
    threshold: str
    boxes: str
    combine: Combine = mean
    every_record: bool = False
    tuned: Callable[[Measured], Tuned] | None = None
    unit: str = "share"


def best(totals: np.ndarray, numbers: np.ndarray, on_data: np.ndarray) -> np.ndarray:
    """The mean of that column, one for each threshold, which is highest on the data: -> (F, r).

    Replicates keep the threshold: were it chosen anew in each, they would all lie above the value.
    """
    chosen = on_data.argmax(axis=1)[:, None]  # (F, 1, 1)
    return mean(np.take_along_axis(totals, chosen, axis=1), numbers, on_data)


def mean_of_best(totals: np.ndarray, numbers: np.ndarray, on_data: np.ndarray) -> np.ndarray:
    """Mean over three IoU levels of the best mean, each with a threshold of its own: -> (F, r)."""
    levels = (np.split(sums, len(WSOL_TS), axis=1) for sums in (totals, on_data))
    return np.mean([best(sums, numbers, data) for sums, data in zip(*levels, strict=True)], axis=0)


def pixel_average_precision(
    totals: np.ndarray, numbers: np.ndarray, on_data: np.ndarray
) -> np.ndarray:
    """PxAP of histograms, pixels inside then outside the truth: (F, 2 bins, r) -> (F, r).

    Σ (R_k - R_{k-1}) P_k over the bins from the highest level down (wsolevaluation).
    """
    inside, outside = (
        half[:, ::-1].cumsum(axis=1) for half in np.split(totals, 2, axis=1)
    )  # true and false positives, (F, bins, r)
    precision = np.nan_to_num(ratio(inside, inside + outside))
    gained = np.diff(inside, axis=1, prepend=0)
    return ratio((precision * gained).sum(axis=1), inside[:, -1])


def _pairs(name: str) -> Columns:
    return lambda measured: measured.pairs[name][:, None]


def _at_least(name: str, T: float) -> Columns:
    return lambda measured: _reached(measured.pairs[name][:, None], T)


def _reached(values: np.ndarray, T: float) -> np.ndarray:
    """1.0 where a value is T or more, 0.0 where not, NaN where there is none."""
    return np.where(np.isnan(values), np.nan, values >= T)


def _above(names: tuple[str, ...], T: float) -> Columns:
    """Whether any of the measurements exceeds T."""

    def columns(measured: Measured) -> np.ndarray:
        highest = np.max([measured.pairs[name] for name in names], axis=0)[:, None]
        return np.where(np.isnan(highest), np.nan, highest > T)

    return columns


def _swept(name: str, *Ts: float) -> Columns:
    """A column for each T and threshold: whether the IoU at this threshold is T or more."""
    return lambda measured: np.hstack([_reached(measured.pairs[name], T) for T in Ts])


def _false(column: int) -> Columns:
    def columns(measured: Measured) -> np.ndarray:
        assert measured.false_boxes is not None
        return measured.false_boxes[:, :, column]

    return columns


def _clarity(measured: Measured) -> Tuned:
    """The threshold with the highest accuracy, averaged over T."""
    iou = measured.pairs["clarity"]
    objective = np.mean([_reached(iou, T) for T in TIOU], axis=0)
    return tune(objective, SWEEP[::CLARITY_EVERY], measured.truth, measured.boxval)


def _chexlocalize(measured: Measured) -> Tuned:
    """The threshold with the highest mean IoU."""
    thresholds = np.array(CHEXLOCALIZE_THRESHOLDS)
    return tune(measured.pairs["chexlocalize_iou"], thresholds, measured.truth, measured.boxval)


def _tuned(tuning: Callable[[Measured], Tuned], name: str, T: float | None = None) -> Columns:
    """The measurement at its finding's threshold; with T, whether it is T or more."""

    def columns(measured: Measured) -> np.ndarray:
        values = tuning(measured).pick(measured.pairs[name])
        return values if T is None else _reached(values, T)

    return columns


def _registry() -> list[Protocol]:
    """In the order of tables."""
    half_open, rounded = "half-open", "pixels, corners rounded"
    none, oracle = "none", f"oracle: best of {len(SWEEP)} thresholds on the scored pairs"
    ours = partial(Protocol, origin="cxrlib", boxes="pixels, exact coverage", threshold=none)
    pylon = partial(Protocol, origin="PYLON, Preechakul 2022")
    point = partial(pylon, threshold=none, boxes="corners inclusive")
    region = partial(pylon, threshold="fixed: S > max/2", boxes="pixels, x, y, w, h truncated")
    ham = partial(
        Protocol,
        origin="HAM, Ouyang 2021",
        threshold=f"fixed: min-max S >= {HAM_THRESHOLD:.3f}",
        boxes=rounded,
    )
    chexlocalize = partial(Protocol, origin="CheXlocalize, Saporta 2022", boxes=rounded)
    wsol = partial(Protocol, origin="wsolevaluation, Choe 2020", threshold=oracle)
    clarity = partial(
        Protocol, origin="CLARiTy, Statheros 2025", threshold=TUNED, boxes=half_open, tuned=_clarity
    )
    wang = partial(
        Protocol,
        origin="ChestX-ray8, Wang 2017",
        threshold="fixed: min-max S > " + " and > ".join(f"{t}/255" for t in WANG_THRESHOLDS),
        boxes=half_open,
    )
    false = partial(wang, every_record=True, unit="boxes per image")
    plus = "+1, corners truncated"
    either = ("wang_iou", "wang_iobb")
    return [
        ours("pointing", columns=_pairs("pointing"), boxes=half_open),
        ours("continuous_dice", columns=_pairs("continuous_dice"), origin="LSE-LBA, Yao 2018"),
        ours("continuous_dice_squared", columns=_pairs("continuous_dice_squared")),
        ours("iou@0.5", columns=_pairs("iou_half"), threshold="fixed: S >= max/2"),
        point("pylon_pointing", columns=_pairs("pylon_point")),
        *(
            region(f"pylon_iobb_or_iou@{T}", columns=_above(("pylon_iou", "pylon_iobb"), T))
            for T in PYLON_TS
        ),
        *(region(f"pylon_iobb@{T}", columns=_above(("pylon_iobb",), T)) for T in PYLON_TS),
        *(ham(f"ham_tiou@{T}", columns=_at_least("ham_iou", T)) for T in TIOU),
        *(ham(f"ham_tior@{T}", columns=_at_least("ham_ior", T)) for T in TIOBB),
        chexlocalize("chexlocalize_hit_rate", threshold=none, columns=_pairs("chexlocalize_hit")),
        chexlocalize(
            "chexlocalize_miou_otsu",
            threshold="Otsu's of each map, holes filled",
            columns=_pairs("chexlocalize_otsu"),
        ),
        chexlocalize(
            "chexlocalize_miou_tuned",
            threshold=TUNED,
            tuned=_chexlocalize,
            columns=_tuned(_chexlocalize, "chexlocalize_iou"),
        ),
        wsol("maxboxacc", boxes=plus, columns=_swept("wsol_largest", 0.5), combine=best),
        wsol(
            "maxboxacc_v2",
            boxes=plus,
            columns=_swept("wsol_all", *WSOL_TS),
            combine=mean_of_best,
        ),
        *(
            wsol(f"maxboxacc_v2@{T}", boxes=plus, columns=_swept("wsol_all", T), combine=best)
            for T in WSOL_TS
        ),
        wsol(
            "pxap",
            threshold="none: all of them",
            boxes="pixels, corners truncated",
            columns=lambda m: np.hstack([m.pairs["wsol_inside"], m.pairs["wsol_outside"]]),
            combine=pixel_average_precision,
        ),
        *(clarity(f"clarity_iou@{T}", columns=_tuned(_clarity, "clarity", T)) for T in TIOU),
        *(wang(f"wang_iou@{T}", columns=_above(("wang_iou",), T)) for T in TIOU),
        *(wang(f"wang_iobb@{T}", columns=_above(("wang_iobb",), T)) for T in TIOBB),
        *(wang(f"wang_iobb_or_iou@{T}", columns=_above(either, T)) for T in TIOBB),
        *(false(f"wang_afp_iou@{T}", columns=_false(k)) for k, T in enumerate(TIOU)),
        *(false(f"wang_afp_iobb@{T}", columns=_false(len(TIOU) + k)) for k, T in enumerate(TIOBB)),
    ]


PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _registry()}
"""Every protocol by the name it has in ``metrics.json``.

>>> PROTOCOLS["ham_tiou@0.5"].threshold
'fixed: min-max S >= 0.469'
"""
