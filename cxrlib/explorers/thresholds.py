"""The page on conventions: one map, every threshold, and what each origin measures there."""

from typing import Any

import cv2
import numpy as np

from cxrlib import datasets
from cxrlib.datasets.base import Split
from cxrlib.explorers.packing import (
    SEED,
    case_of,
    map_of,
    pictures,
    rounded,
    scenes,
    unpack,
)
from cxrlib.metrics import conventions, regions
from cxrlib.metrics.conventions import Case, Measurements
from cxrlib.predictions import Predictions
from cxrlib.weights import SHIPPED, open_pretrained
from cxrlib.weights.scoring import ask

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Thresholds, of the range and of the maximum, at which the library's numbers are stored."""

SHOWN = {"finding": "Mass", "method": "LSE-LBA", "kind": "maximum", "share": 0.5}
"""What the page shows at first; its still picture shows this map."""


def at_threshold(case: Case, kind: str, share: float) -> dict[str, float]:
    """What every convention with a threshold measures with this one in place of its own.

    Args:
        case: a map, which is not constant, and its truth.
        kind: ``"maximum"`` or ``"range"``: what the threshold is a share of.
        share: 0 to 1.

    Returns:
        measurements by the names of :mod:`cxrlib.metrics.conventions`.
    """
    low, high = float(case.map.min()), float(case.map.max())
    of_range = share if kind == "range" else (share * high - low) / (high - low)
    of_maximum = share if kind == "maximum" else (low + share * (high - low)) / high
    pylon = regions.overlap(_above(case.map, of_maximum * high), case.mask("truncate size"))
    aligned = regions.rescale(case.aligned()) >= np.float32(of_range)
    ham = regions.overlap(aligned.view(np.uint8), case.mask("round"))
    chexlocalize = regions.overlap(_above(case.rescaled, of_range), case.mask("round"))
    boxes, _, largest = regions.sweep(case.levels, np.array([of_range]))
    clipped = np.minimum(boxes, [case.size, case.size, case.size - 1, case.size - 1])
    truncated = regions.whole_pixels(case.boxes, "truncate")
    inclusive = regions.box_overlap(clipped, truncated, inclusive=True)[0].max(axis=1)
    wang = regions.box_overlap(regions.region_boxes(case.map, [of_range]), case.boxes)
    return {
        "pylon_iou": pylon[0],
        "pylon_iobb": pylon[1],
        "ham_iou": ham[0],
        "ham_ior": ham[1],
        "chexlocalize_iou": chexlocalize[0],
        "wsol_largest": inclusive[largest[0]],
        "wsol_all": inclusive.max(),
        "clarity": regions.box_overlap(boxes[largest], case.boxes)[0].max(),
        "wang_iou": wang[0].max(initial=0),
        "wang_iobb": wang[1].max(initial=0),
    }


def _above(map_: np.ndarray, level: float) -> np.ndarray:
    return (map_ > np.float32(level)).view(np.uint8)


def own_scores(case: Case) -> Measurements:
    """What the origins with a threshold of their own measure, and where Otsu's lies (``otsu``).

    Levels are rounded down, so "above level k" begins at the share (k + 1) / 255 of the range.
    """
    measured = conventions.of_maps(case) | conventions.of_pylon(case) | conventions.of_ham(case)
    wang, chexlocalize = conventions.of_wang(case), conventions.of_chexlocalize(case)
    level, _ = cv2.threshold(case.levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    measured |= {name: wang[name] for name in ("wang_iou", "wang_iobb")}
    return measured | {
        "chexlocalize_otsu": chexlocalize["chexlocalize_otsu"],
        "otsu": (level + 1) / 255,
    }


def data() -> dict[str, Any]:
    """What the page needs: maps of the shipped models on test images of their own population.

    Returns:
        ``size`` of the frame in pixels, ``findings`` (:func:`cxrlib.explorers.packing.scenes`),
        ``images``, ``methods`` (of each its ``name``, and for each finding the ``map`` and the
        library's numbers at every origin's ``own`` threshold and at :data:`SHARES`), ``about``
        (where all this comes from).
    """
    about = {name: open_pretrained(name).about for name in SHIPPED}
    one = about["lse_lba"]

    def load(size: int) -> Split:
        return datasets.load(one["dataset"], None, size, seed=SEED, **one["options"])

    split = load(one["image_size"])
    found = scenes(split.test)
    names = {scene["image"] for scene in found}
    rows = np.flatnonzero(np.isin(split.test.image_ids, sorted(names)))
    answers = ask(lambda size: load(size).test.subset(rows))
    return {
        "size": split.test.image_size,
        "shown": SHOWN,
        "findings": found,
        "images": pictures(split.test, names),
        "own": {"pylon": 0.5, "ham": conventions.HAM_THRESHOLD, "wang": conventions.WANG_SHARES},
        "tiou": conventions.TIOU,
        "shares": SHARES,
        "methods": [
            {"name": SHIPPED[name], "findings": _numbers(answer, found, split.test.image_size)}
            for name, answer in answers.items()
        ],
        "about": {
            "seed": SEED,
            "data": split.data_hash,
            "runs": {
                SHIPPED[name]: {key: about[name][key] for key in ("run", "commit")}
                for name in SHIPPED
            },
        },
    }


def _numbers(
    predictions: Predictions, found: list[dict[str, Any]], size: int
) -> list[dict[str, Any]]:
    """Of every finding the map, and what the library measures of it."""
    rows = []
    for scene in found:
        map_ = map_of(predictions, scene["image"], scene["name"])
        case = case_of(unpack(map_), scene, size)
        reference = {
            kind: [rounded(at_threshold(case, kind, share)) for share in SHARES]
            for kind in ("range", "maximum")
        }
        rows.append({"map": map_, "own": rounded(own_scores(case)), "reference": reference})
    return rows
