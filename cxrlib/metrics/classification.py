"""AUROC and average precision of each finding, exact with ties, for all replicates at once.

Only the order of the scores matters, and only relative to the positives: the G distinct scores of
the positives cut the axis into 2G + 1 slots, odd ones *at* such a score, even ones *between* two.
Both metrics follow from the weight of the positives and of the negatives in each slot, and the
weights of all replicates are one sparse product with the patients' multiplicities.

Equal to ``roc_auc_score`` and ``average_precision_score`` of scikit-learn with ``sample_weight``.
"""

import numpy as np

from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import (
    Estimate,
    Resamples,
    mean_over_findings,
    patient_weights,
    ratio,
)

NAMES = ("auroc", "average_precision")


def score_classification(
    scores: np.ndarray,
    labels: np.ndarray,
    patient_ids: np.ndarray,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict]:
    """AUROC and average precision with patient-clustered 95 % intervals.

    Args:
        scores: float (N, 14), higher means more likely; only their order matters.
        labels: float (N, 14): 1 present, 0 absent, NaN unknown (left out for that finding).
        patient_ids: (N,) strings.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{"auroc": {"mean": Estimate, "per_finding": {name: Estimate}}}`` and the same under
        ``"average_precision"``. ``n`` is the number of positive images, of the mean the number of
        images. A finding without a positive or without a negative is NaN and left out of the mean.

    Raises:
        ValueError: shapes disagree, a score is not finite, a label is not 0, 1 or NaN.

    >>> truth = np.tile([[1.0], [0.0], [0.0]], (1, 14))
    >>> result = score_classification(truth + 1, truth, np.array(["a", "b", "c"]), replicates=20)
    >>> result["auroc"]["mean"].value, result["auroc"]["per_finding"]["Mass"].n
    (1.0, 1)
    """
    statistics = replicate_classification(scores, labels, patient_ids, replicates, seed)
    positives = (np.asarray(labels) == 1).sum(axis=0)
    return {
        name: {
            "mean": Estimate.of(mean_over_findings(of_findings), len(labels)),
            "per_finding": {
                finding: Estimate.of(of_finding, n)
                for finding, of_finding, n in zip(FINDINGS, of_findings, positives, strict=True)
            },
        }
        for name, of_findings in zip(NAMES, statistics, strict=True)
    }


def replicate_classification(
    scores: np.ndarray,
    labels: np.ndarray,
    patient_ids: np.ndarray,
    replicates: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """AUROC and average precision of each finding, on the data and on every replicate.

    Two models scored on the same images with the same seed are drawn the same patients, so that
    their difference, replicate by replicate, has an interval of its own.

    Args:
        scores, labels, patient_ids, replicates, seed: of :func:`score_classification`.

    Returns:
        float64 (2, 14, 1 + R), the data themselves first; NaN without positives or negatives.

    Raises:
        ValueError: shapes disagree, a score is not finite, a label is not 0, 1 or NaN.

    >>> truth = np.tile([[1.0], [0.0], [0.0]], (1, 14))
    >>> replicate_classification(truth, truth, np.array(["a", "b", "c"]), replicates=20).shape
    (2, 14, 21)
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    _check(scores, labels, patient_ids)
    resamples = patient_weights(patient_ids, replicates, seed)
    columns = [
        _replicate(score, label, resamples) for score, label in zip(scores.T, labels.T, strict=True)
    ]
    return np.stack(columns, axis=1)


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
    return Estimate.of(_replicate(scores, labels, resamples)[0], len(labels))


def _replicate(score: np.ndarray, label: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Both metrics of one finding, scores and labels (N,), in all replicates: (2, 1 + R)."""
    present, absent = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    levels = np.unique(score[present])  # (G,)
    # Twice the levels below, and one more if at a level.
    slot = np.searchsorted(levels, score, "left") + np.searchsorted(levels, score, "right")
    slots = 2 * len(levels) + 1
    positives = resamples.gather(slot[present], slots, present)
    negatives = resamples.gather(slot[absent], slots, absent)
    return resamples.apply(
        lambda counts: _both((positives @ counts)[1::2], negatives @ counts)  # (2, r)
    )


def _both(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """AUROC and average precision, (2, r), NaN without positives or negatives.

    Args:
        positive: float64 (G, r), weight of the positives at each level, ascending.
        negative: float64 (2G + 1, r), weight of the negatives in each slot, ascending.
    """
    positives, negatives = positive.sum(axis=0), negative.sum(axis=0)
    both = np.stack([_auroc(positive, negative), _average_precision(positive, negative)])
    return np.where(positives * negatives > 0, both, np.nan)


def _auroc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Share of (positive, negative) pairs in the right order, ties counting one half: (r,)."""
    below = negative.cumsum(axis=0)
    # Negatives under the level and half of those at it: mean of the sums before and after.
    wins = (positive * (below[:-1:2] + below[1::2]) / 2).sum(axis=0)
    return ratio(wins, positive.sum(axis=0) * negative.sum(axis=0))


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Σ (R_k - R_{k-1}) P_k over the levels from the highest down, without interpolation: (r,)."""
    true = positive[::-1].cumsum(axis=0)
    false = negative[::-1].cumsum(axis=0)[1::2]
    # A level above which a replicate drew nobody has no precision, and adds no recall either.
    precision = np.nan_to_num(ratio(true, true + false))
    return ratio((positive[::-1] * precision).sum(axis=0), positive.sum(axis=0))


def _check(scores: np.ndarray, labels: np.ndarray, patient_ids: np.ndarray) -> None:
    expected = (len(patient_ids), len(FINDINGS))
    if scores.shape != expected or labels.shape != expected:
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} must both be {expected}: "
            f"{expected[0]} patient ids by {expected[1]} findings"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} scores are NaN or infinite")
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise ValueError("labels must be 0 (absent), 1 (present) or NaN (unknown)")
