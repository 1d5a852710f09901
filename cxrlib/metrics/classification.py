"""How well scores rank and how far probabilities can be trusted, for all replicates at once.

For AUROC, average precision and operating points only the order of the scores matters, and only
relative to the positives: the G distinct scores of the positives are *levels*, and all three follow
from the weight of the positives and negatives at each level and of the negatives under it. The
weights of all replicates are one sparse product with the patients' multiplicities.

AUROC and average precision equal ``roc_auc_score`` and ``average_precision_score`` of scikit-learn
with ``sample_weight``. :mod:`cxrlib.metrics.calibration` has the metrics of probabilities.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import (
    Estimate,
    Resamples,
    mean_over_findings,
    patient_weights,
    ratio,
)
from cxrlib.metrics.calibration import brier, calibration_error

SPECIFICITY = 0.9


def score_classification(
    scores: np.ndarray,
    labels: np.ndarray,
    patient_ids: np.ndarray,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict]:
    """Every metric of :data:`CLASSIFICATION_METRICS` with patient-clustered 95 % intervals.

    Args:
        scores: float (N, 14), probabilities, 0 to 1.
        labels: float (N, 14): 1 present, 0 absent, NaN unknown (left out for that finding).
        patient_ids: (N,) strings.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{"auroc": {"mean": Estimate, "per_finding": {name: Estimate}}}`` and the same for every
        other metric. ``n`` is the number of positive images, of the mean the number of images. A
        finding without a positive or without a negative is NaN and left out of the mean.

    Raises:
        ValueError: shapes disagree, a score is not finite or not in 0 to 1, a label is not 0, 1 or
            NaN.

    >>> truth = np.tile([[1.0], [0.0], [0.0]], (1, 14))
    >>> result = score_classification(truth / 2, truth, np.array(["a", "b", "c"]), replicates=20)
    >>> result["auroc"]["mean"].value, result["auroc"]["per_finding"]["Mass"].n
    (1.0, 1)
    >>> round(result["brier"]["mean"].value, 3), list(result)[2:]
    (0.083, ['brier', 'calibration_error', 'sensitivity@specificity=0.9'])
    """
    names = tuple(CLASSIFICATION_METRICS)
    statistics = replicate_classification(scores, labels, patient_ids, replicates, seed, names)
    return summarise(dict(zip(names, statistics, strict=True)), labels)


def summarise(statistics: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, dict]:
    """Statistics of every finding as estimates.

    Args:
        statistics: metric -> float (14, 1 + R), on the data themselves and on R replicates.
        labels: float (N, 14), for the numbers of cases.

    Returns:
        metric -> ``{"mean": Estimate, "per_finding": {name: Estimate}}``.

    >>> summarise({"auroc": np.full((14, 3), 0.5)}, np.ones((7, 14)))["auroc"]["mean"]
    Estimate(value=0.5, low=0.5, high=0.5, n=7)
    """
    positives = (np.asarray(labels) == 1).sum(axis=0)
    return {
        name: {
            "mean": Estimate.of(mean_over_findings(of_findings), len(labels)),
            "per_finding": {
                finding: Estimate.of(of_finding, n)
                for finding, of_finding, n in zip(FINDINGS, of_findings, positives, strict=True)
            },
        }
        for name, of_findings in statistics.items()
    }


def replicate_classification(
    scores: np.ndarray,
    labels: np.ndarray,
    patient_ids: np.ndarray,
    replicates: int = 1000,
    seed: int = 0,
    names: Sequence[str] = ("auroc", "average_precision"),
) -> np.ndarray:
    """Some metrics of each finding, on the data and on every replicate.

    Two models scored on the same images with the same seed are drawn the same patients, so that
    their difference, replicate by replicate, has an interval of its own.

    Args:
        scores: float (N, 14), higher means more likely; any range, unless ``names`` has a metric
            of probabilities.
        labels, patient_ids, replicates, seed: of :func:`score_classification`.
        names: of metrics in :data:`CLASSIFICATION_METRICS`; by default the two that need only the
            order of the scores and no threshold.

    Returns:
        float64 (len(names), 14, 1 + R), the data themselves first; NaN without positives or
        negatives.

    Raises:
        ValueError: as :func:`score_classification`, or a name is unknown.

    >>> truth = np.tile([[1.0], [0.0], [0.0]], (1, 14))
    >>> replicate_classification(truth, truth, np.array(["a", "b", "c"]), replicates=20).shape
    (2, 14, 21)
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    _check(scores, labels, patient_ids, names)
    resamples = patient_weights(patient_ids, replicates, seed)
    statistics = [
        [CLASSIFICATION_METRICS[name](score, label, resamples) for name in names]
        for score, label in zip(scores.T, labels.T, strict=True)
    ]
    # A probability of 0 for a finding that nobody has would be a perfect Brier score.
    defined = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)  # (14,)
    return np.where(defined[:, None], np.stack(statistics, axis=1), np.nan)


def binary_auroc(
    scores: np.ndarray,
    labels: np.ndarray,
    patient_ids: np.ndarray,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """AUROC of one yes-or-no question with its patient-clustered 95 % interval.

    Args:
        scores: float (N,), higher means more likely yes.
        labels: (N,), 1 yes, 0 no.
        patient_ids: (N,) strings.
        replicates, seed: of the bootstrap.

    >>> binary_auroc(np.array([0.1, 0.9]), np.array([0, 1]), np.array(["a", "b"])).value
    1.0
    """
    resamples = patient_weights(patient_ids, replicates, seed)
    return Estimate.of(CLASSIFICATION_METRICS["auroc"](scores, labels, resamples), len(labels))


class Levels(NamedTuple):
    """Weights at the G distinct scores of the positives, ascending, in each of r replicates."""

    positive: np.ndarray  # float64 (G, r), positives at the level
    tied: np.ndarray  # float64 (G, r), negatives at the level
    under: np.ndarray  # float64 (G, r), negatives under the level
    negatives: np.ndarray  # float64 (r,), all negatives


def _ranked(
    score: np.ndarray,
    label: np.ndarray,
    resamples: Resamples,
    *,
    statistic: Callable[[Levels], np.ndarray],
) -> np.ndarray:
    """A statistic of one finding's levels in all replicates: (1 + R,); scores and labels (N,)."""
    present, absent = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    levels, level = np.unique(score[present], return_inverse=True)  # (G,), (positives,)
    passed = np.searchsorted(levels, score[absent], "right")  # levels at or under each negative
    lower = np.searchsorted(levels, score[absent], "left")
    tie = lower < passed
    positives = resamples.gather(level, len(levels), present)
    negatives = resamples.gather(passed, len(levels) + 1, absent)
    ties = resamples.gather(lower[tie], len(levels), absent[tie])

    def of(counts: np.ndarray) -> np.ndarray:
        under = (negatives @ counts).cumsum(axis=0)  # (G + 1, r)
        weights = Levels(positives @ counts, ties @ counts, under[:-1], under[-1])
        defined = weights.positive.any(axis=0) & (weights.negatives > 0)
        return np.where(defined, statistic(weights), np.nan)

    return resamples.apply(of)


def _auroc(w: Levels) -> np.ndarray:
    """Share of (positive, negative) pairs in the right order, ties counting one half: (r,)."""
    wins = (w.positive * (w.under + w.tied / 2)).sum(axis=0)
    return ratio(wins, w.positive.sum(axis=0) * w.negatives)


def _average_precision(w: Levels) -> np.ndarray:
    """Σ (R_k - R_{k-1}) P_k over the levels from the highest down, without interpolation: (r,)."""
    true = _at_or_above(w.positive)
    called = true + (w.negatives - w.under)
    # A level above which a replicate drew nobody has no precision, and adds no recall either.
    parts = np.divide(w.positive * true, called, out=np.zeros_like(true), where=called > 0)
    return ratio(parts.sum(axis=0), w.positive.sum(axis=0))


def _sensitivity(w: Levels) -> np.ndarray:
    """Highest share of positives at or above a level under which 9 of 10 negatives lie: (r,).

    A score of negatives only is never a better threshold than the level above it.
    """
    allowed = w.under >= SPECIFICITY * w.negatives
    true = (_at_or_above(w.positive) * allowed).max(axis=0, initial=0)
    return ratio(true, w.positive.sum(axis=0))


def _at_or_above(positive: np.ndarray) -> np.ndarray:
    """Weight of the positives at each level or above it: (G, r)."""
    return positive.sum(axis=0) - positive.cumsum(axis=0) + positive


Metric = Callable[[np.ndarray, np.ndarray, Resamples], np.ndarray]
"""(score (N,), label (N,), resamples) -> float64 (1 + R,), NaN where it is not defined."""

CLASSIFICATION_METRICS: dict[str, Metric] = {
    "auroc": partial(_ranked, statistic=_auroc),
    "average_precision": partial(_ranked, statistic=_average_precision),
    "brier": brier,
    "calibration_error": calibration_error,
    f"sensitivity@specificity={SPECIFICITY}": partial(_ranked, statistic=_sensitivity),
}
"""Every metric of one finding by the name it has in ``metrics.json``.

Brier score and calibration error are better when lower, the others when higher. The sensitivity is
the highest among thresholds whose specificity is at least 0.9, as on scikit-learn's ``roc_curve``
without interpolation. Its threshold is chosen on the images that are scored, again in each
replicate: the interval covers the choice, but a threshold fixed beforehand may do worse.
"""

OF_PROBABILITIES = ("brier", "calibration_error")
"""Those of the metrics that mean something only for probabilities."""


def _check(
    scores: np.ndarray, labels: np.ndarray, patient_ids: np.ndarray, names: Sequence[str]
) -> None:
    expected = (len(patient_ids), len(FINDINGS))
    if scores.shape != expected or labels.shape != expected:
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} must both be {expected}: "
            f"{expected[0]} patient ids by {expected[1]} findings"
        )
    refuse_bad_values(scores, labels)
    unknown = set(names) - set(CLASSIFICATION_METRICS)
    if unknown:
        raise ValueError(
            f"no such metric: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(CLASSIFICATION_METRICS)}"
        )
    outside = int(((scores < 0) | (scores > 1)).sum())
    if outside and set(names) & set(OF_PROBABILITIES):
        raise ValueError(
            f"{outside} of {scores.size} scores are not in 0 to 1: they go from {scores.min():.4g} "
            f"to {scores.max():.4g}. {' and '.join(OF_PROBABILITIES)} need probabilities: apply a "
            "sigmoid to logits, or ask replicate_classification for 'auroc' alone"
        )


def refuse_bad_values(scores: np.ndarray, labels: np.ndarray) -> None:
    """Refuse scores that are NaN or infinite and labels other than 0, 1 and NaN.

    Args:
        scores, labels: of any shape.

    Raises:
        ValueError: says what is wrong with how many of them.

    >>> refuse_bad_values(np.array([0.2, np.inf]), np.array([0, 1]))
    Traceback (most recent call last):
    ValueError: 1 of 2 scores are NaN or infinite; leave those images out before scoring
    """
    infinite = int((~np.isfinite(scores)).sum())
    if infinite:
        raise ValueError(
            f"{infinite} of {scores.size} scores are NaN or infinite; "
            "leave those images out before scoring"
        )
    known = labels[~np.isnan(labels)]
    strange = np.unique(known[~np.isin(known, (0, 1))])
    if len(strange):
        raise ValueError(
            "labels must be 0 (absent), 1 (present) or NaN (unknown), and some are "
            f"{', '.join(f'{value:g}' for value in strange[:3])}"
        )
