"""Do two scores of the same images differ in AUROC? DeLong's test, for several images per patient.

DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
operating characteristic curves", Biometrics 1988; in O(N log N) by midranks after Sun and Xu, IEEE
Signal Processing Letters 2014; for images that come in clusters after Obuchowski, "Nonparametric
analysis of clustered ROC curve data", Biometrics 1997. If no patient has two images, the latter is
DeLong's exactly.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from cxrlib.metrics.classification import refuse_bad_values

# Standard errors below this are rounding: one pair in another order makes some 1e-10 already at
# 112,120 images.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Comparison:
    """Two AUROCs on the same images of one finding.

    Attributes:
        auroc_a: NaN without a positive or without a negative, and with it all that follows.
        auroc_b: the same of the second score.
        difference: ``auroc_a - auroc_b``.
        low: lower end of the difference's 95 % interval, which takes it for normal.
        high: upper end.
        z: difference in standard errors.
        p: two-sided probability of a ``|z|`` this large if the AUROCs are the same.
        n_positive: images.
        n_negative: images.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    low: float
    high: float
    z: float
    p: float
    n_positive: int
    n_negative: int


def delong(
    scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray, patient_ids: np.ndarray
) -> Comparison:
    """Compare the AUROCs of two scores of one finding on the same images.

    The standard error allows for images of one patient being alike. Where the data give none,
    interval, z and p are NaN: if one patient has all the positives or all the negatives, or if
    every patient adds the same to the difference (one score perfect, the other perfectly wrong).
    Scores that order the images alike have a difference of 0 with the interval 0 to 0, z = 0 and
    p = 1.

    Args:
        scores_a: float (N,), higher means more likely; only their order matters.
        scores_b: float (N,), of the same images.
        labels: float (N,): 1 present, 0 absent, NaN unknown (left out).
        patient_ids: (N,) strings.

    Raises:
        ValueError: lengths disagree, a score is not finite, a label is not 0, 1 or NaN.

    >>> labels, patients = np.array([0, 0, 0, 1, 1, 1]), np.array([*"abcdef"])
    >>> result = delong(np.arange(6), np.array([1, 2, 5, 0, 3, 4]), labels, patients)
    >>> round(result.auroc_a, 3), round(result.auroc_b, 3), round(result.p, 3)
    (1.0, 0.444, 0.077)
    """
    a, b, labels, patients = (np.asarray(x) for x in (scores_a, scores_b, labels, patient_ids))
    _check(a, b, labels, patients)
    known = ~np.isnan(labels)
    a, b, positive, patients = a[known], b[known], labels[known] == 1, patients[known]
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not (n_positive and n_negative):
        nan = math.nan
        return Comparison(nan, nan, nan, nan, nan, nan, nan, n_positive, n_negative)
    places_a, places_b = _placements(a, positive), _placements(b, positive)
    auroc_a, auroc_b = float(places_a[positive].mean()), float(places_b[positive].mean())
    difference = auroc_a - auroc_b
    error = _standard_error(places_a - places_b, difference, positive, patients)
    margin = float(norm.ppf(0.975)) * error
    z = difference / error if error else 0.0
    return Comparison(
        auroc_a,
        auroc_b,
        difference,
        difference - margin,
        difference + margin,
        z,
        2 * float(norm.sf(abs(z))),
        n_positive,
        n_negative,
    )


def _placements(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """V_10 of each positive, V_01 of each negative: float64 (N,), 0 to 1.

    They are the share of the images of the other kind that the score puts on the right side of this
    one, ties counting one half: what its midrank among all has more than that among its own kind.
    """
    within = np.empty(len(score))
    within[positive], within[~positive] = rankdata(score[positive]), rankdata(score[~positive])
    others = np.where(positive, (~positive).sum(), positive.sum())
    under = (rankdata(score) - within) / others
    return np.where(positive, under, 1 - under)


def _standard_error(
    places: np.ndarray, difference: float, positive: np.ndarray, patients: np.ndarray
) -> float:
    """Of the difference, from the differences of placements (N,); NaN where there is none."""
    names, patient = np.unique(patients, return_inverse=True)
    count = len(names)  # I of the paper; I_10 and I_01 are the patients with positives, negatives
    sums, counts = [], []
    for kind in (positive, ~positive):
        excess = (places[kind] - difference) / kind.sum()
        sums.append(np.bincount(patient[kind], excess, count))  # (I,)
        counts.append(len(np.unique(patient[kind])))
    if min(counts) < 2:
        return math.nan
    (s_10, s_01), (i_10, i_01) = sums, counts
    variance = (
        i_10 / (i_10 - 1) * (s_10 @ s_10)
        + i_01 / (i_01 - 1) * (s_01 @ s_01)
        + 2 * count / (count - 1) * (s_10 @ s_01)
    )
    error = math.sqrt(max(variance, 0.0))
    if error < _ROUNDING:
        return 0.0 if abs(difference) < _ROUNDING else math.nan
    return error


def _check(a: np.ndarray, b: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> None:
    if not a.shape == b.shape == labels.shape == (len(patients),):
        raise ValueError(
            f"scores_a {a.shape}, scores_b {b.shape} and labels {labels.shape} must all be "
            f"({len(patients)},): one finding, with one number for each of the patient ids"
        )
    refuse_bad_values(np.stack([a, b]), labels)
