"""How far probabilities can be trusted: Brier score and expected calibration error.

Both are sums over images, so that all replicates are one sparse product with the patients'
multiplicities. Each finding is a yes-or-no question of its own (one versus rest).
"""

import numpy as np

from cxrlib.metrics.bootstrap import Resamples, ratio

BINS = 15


def brier(score: np.ndarray, label: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Mean of (p - y)², the Brier score; 0 is best, and p = 1/2 everywhere gives 1/4.

    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review
    1950, in the form for one yes-or-no question.

    Args:
        score: float (N,), p, probabilities, 0 to 1.
        label: float (N,), y: 1 present, 0 absent, NaN unknown (left out).
        resamples: of the N images' patients.

    Returns:
        float64 (1 + R,), on the data and on every replicate; NaN without a known label.

    >>> from cxrlib.metrics.bootstrap import patient_weights
    >>> drawn = patient_weights(np.array(["a", "b"]), replicates=0)
    >>> brier(np.array([0.9, 0.5]), np.array([1.0, 0.0]), drawn)
    array([0.13])
    """
    known = np.flatnonzero(~np.isnan(label))
    squares = (score[known].astype(float) - label[known]) ** 2
    return _per_image(resamples, known, np.zeros(len(known), int), 1, squares)


def calibration_error(score: np.ndarray, label: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Expected calibration error: ``Σ n_b / n |mean of y - mean of p|``, 15 bins of equal width.

    Bins are closed on the right, (b / 15, (b + 1) / 15], and 0 is in the first; an empty one adds
    nothing. Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI
    2015; bins as in Guo et al., "On calibration of modern neural networks", ICML 2017. The error is
    never negative, so that noise raises it: few images look worse calibrated than many, and
    replicates, which are noisier than the data, lie somewhat higher than the value.

    Args:
        score: float (N,), p, probabilities, 0 to 1.
        label: float (N,), y: 1 present, 0 absent, NaN unknown (left out).
        resamples: of the N images' patients.

    Returns:
        float64 (1 + R,), 0 to 1, on the data and on every replicate; NaN without a known label.

    >>> from cxrlib.metrics.bootstrap import patient_weights
    >>> drawn = patient_weights(np.array(["a", "b"]), replicates=0)
    >>> calibration_error(np.array([0.9, 0.5]), np.array([1.0, 0.0]), drawn)
    array([0.3])
    """
    known = np.flatnonzero(~np.isnan(label))
    p = score[known].astype(float)
    bins = np.searchsorted(np.arange(1, BINS) / BINS, p)
    return _per_image(resamples, known, bins, BINS, label[known] - p)


def _per_image(
    resamples: Resamples, known: np.ndarray, row: np.ndarray, rows: int, values: np.ndarray
) -> np.ndarray:
    """Σ over rows of the absolute sum of values in it, over the number of images: (1 + R,)."""
    sums = resamples.gather(row, rows, known, values)  # (rows, patients)
    images = resamples.gather(np.zeros(len(known), int), 1, known)  # (1, patients)
    return resamples.apply(
        lambda counts: ratio(abs(sums @ counts).sum(axis=0), (images @ counts)[0])
    )
