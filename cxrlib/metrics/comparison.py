"""Two models on the same images: the difference of every number, with an interval of its own.

Both are drawn the same patients, so that what makes a draw easy or hard for both cancels out: the
interval of a difference is much narrower than the two intervals beside each other suggest.
"""

from dataclasses import dataclass

import numpy as np

from cxrlib.datasets.base import CXRDataset
from cxrlib.findings import FINDINGS
from cxrlib.metrics.classification import (
    CLASSIFICATION_METRICS,
    replicate_classification,
    summarise,
)
from cxrlib.metrics.delong import Comparison, delong
from cxrlib.metrics.estimates import Scores, estimate
from cxrlib.metrics.localization import measure
from cxrlib.metrics.scorer import MODEL, Scored, of_predictions
from cxrlib.predictions import Predictions


@dataclass(frozen=True)
class Difference:
    """The first model's numbers minus the second's.

    Attributes:
        classification: metric -> ``{"mean": Estimate, "per_finding": {name: Estimate}}``.
        delong: finding -> DeLong's test of its two AUROCs.
        scores: every protocol's differences.
    """

    classification: dict[str, dict]
    delong: dict[str, Comparison]
    scores: Scores


def refuse_incomparable(first: Predictions, second: Predictions) -> None:
    """Refuse two models whose numbers are not of the same things.

    Args:
        first, second: of any images.

    Raises:
        ValueError: they predict different findings, or only one of them has maps.

    >>> one, other = (Predictions.from_arrays(["a"], [[0.5]], findings=[f]) for f in FINDINGS[4:6])
    >>> refuse_incomparable(one, other)
    Traceback (most recent call last):
    ValueError: only the first file has Mass, only the second has Nodule; compare models of the \
same findings, or leave a finding out of both
    """
    sides = ("first file", first, second), ("second", second, first)
    alone = [
        f"only the {side} has {', '.join(np.array(FINDINGS)[own.known & ~other.known])}"
        for side, own, other in sides
        if (own.known & ~other.known).any()
    ]
    if alone:
        raise ValueError(
            f"{', '.join(alone)}; compare models of the same findings, or leave a finding out of "
            "both"
        )
    lacking = [side for side, own, _ in sides if not len(own.map_ids)]
    if len(lacking) == 1:
        raise ValueError(
            f"the {lacking[0]} has no maps and the other has; write the maps of both, or of neither"
        )


def compare(
    scored: Scored,
    first: Predictions,
    second: Predictions,
    dataset: CXRDataset,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Difference:
    """Subtract a second model's numbers from a first one's, replicate by replicate.

    Args:
        scored: what :func:`~cxrlib.metrics.scorer.score` found of the first.
        first, second: predictions of the dataset's images, in any order.
        dataset: N images; those that were scored.
        replicates, seed: those of ``scored``.

    Raises:
        ValueError: as :func:`refuse_incomparable` and :func:`~cxrlib.metrics.scorer.score`, or
            ``scored`` has other replicates or another seed.
    """
    refuse_incomparable(first, second)
    first, second = first.aligned(dataset), second.aligned(dataset)
    maps = of_predictions(second, dataset, scored.size)
    measured = measure({MODEL: maps}, scored.truth, scored.size)[MODEL]
    other = estimate(measured, replicates=replicates, seed=seed)
    labels = np.where(first.known, dataset.labels, np.nan)
    scores = [np.nan_to_num(predictions.scores) for predictions in (first, second)]
    pairs = zip(FINDINGS, scores[0].T, scores[1].T, labels.T, strict=True)
    return Difference(
        _classification(scores, labels, dataset.patient_ids, replicates, seed),
        {name: delong(a, b, label, dataset.patient_ids) for name, a, b, label in pairs},
        scored.scores[MODEL].minus(other),
    )


def _classification(
    scores: list[np.ndarray], labels: np.ndarray, patients: np.ndarray, replicates: int, seed: int
) -> dict[str, dict]:
    names = tuple(CLASSIFICATION_METRICS)
    first, second = (
        replicate_classification(of_model, labels, patients, replicates, seed, names)
        for of_model in scores
    )  # (metrics, 14, 1 + R)
    return summarise(dict(zip(names, first - second, strict=True)), labels)
