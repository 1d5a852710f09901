"""Patient-clustered bootstrap: how far a number could move with other patients.

Images of one patient resemble each other, so patients are drawn, not images (Field and Welsh,
"Bootstrapping clustered data", JRSS B 2007). A replicate is never copied out: it is a weight for
each image, how often its patient was drawn, and every metric here takes weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

# Replicates weighed at once: bounds the memory to some 100 MB at 112,120 images.
_CHUNK = 128


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval and how many cases it rests on.

    Attributes:
        value: NaN where it is not defined, e.g. the AUROC of a finding without positives.
        low: lower end of the interval, NaN where there is none.
        high: upper end.
        n: number of cases; each metric says which.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, statistics: np.ndarray, n: int) -> "Estimate":
        """From float (1 + R,): the value on the data themselves, then on R replicates.

        >>> Estimate.of(np.array([0.5, 0.4, 0.6]), n=7)
        Estimate(value=0.5, low=0.405, high=0.595, n=7)
        """
        return cls(float(statistics[0]), *interval(statistics[1:]), int(n))

    def to_json(self) -> dict[str, float | int | None]:
        """The ``N`` of ``metrics.json``, NaN as None.

        >>> Estimate(0.5, float("nan"), float("nan"), 3).to_json()
        {'value': 0.5, 'low': None, 'high': None, 'n': 3}
        """
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(end) else end for name, end in ends.items()} | {
            "n": self.n
        }


@dataclass(frozen=True)
class Resamples:
    """Which patient each case belongs to, and how often each replicate draws that patient.

    Attributes:
        patient: int64 (N,), index of the patient of each case.
        counts: uint16 (patients, 1 + R); column 0 is all ones, the data themselves, so that a
            value and its replicates come out of the same code.
    """

    patient: np.ndarray
    counts: np.ndarray

    def gather(
        self,
        row: np.ndarray,
        rows: int,
        cases: np.ndarray,
        values: np.ndarray | float = 1.0,
    ) -> csr_array:
        """Sum cases by row and patient; ``gather(...) @ counts`` is each replicate's row sums.

        Args:
            row: int (k,), the row of each case, 0 to ``rows`` - 1.
            rows: number of rows.
            cases: int (k,), index of each case.
            values: float (k,), what is summed; by default the cases are counted.

        Returns:
            float64 (rows, patients), sparse.

        >>> drawn = patient_weights(np.array(["a", "b", "b"]), replicates=0)
        >>> drawn.gather(np.array([0, 0, 0]), 1, np.arange(3), np.array([5.0, 6.0, 7.0])).toarray()
        array([[ 5., 13.]])
        """
        data = np.broadcast_to(np.asarray(values, float), len(row))
        shape = (rows, len(self.counts))
        return csr_array((data, (row, self.patient[cases])), shape=shape)

    def apply(self, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Compute a statistic of every replicate, some replicates at a time.

        Args:
            statistic: float64 (patients, r) multiplicities -> float (..., r).

        Returns:
            float (..., 1 + R).
        """
        starts = range(0, self.counts.shape[1], _CHUNK)
        chunks = (self.counts[:, start : start + _CHUNK].astype(float) for start in starts)
        return np.concatenate([statistic(chunk) for chunk in chunks], axis=-1)


def patient_weights(patient_ids: np.ndarray, replicates: int = 1000, seed: int = 0) -> Resamples:
    """Draw as many patients as there are, with replacement, ``replicates`` times.

    Args:
        patient_ids: (N,) strings, one per case.
        replicates: R.
        seed: of the draws; they depend on the set of patients and not on the order of the cases.

    >>> drawn = patient_weights(np.array(["b", "a", "b"]), replicates=2)
    >>> drawn.patient.tolist(), drawn.counts.sum(axis=0).tolist()
    ([1, 0, 1], [2, 2, 2])
    """
    patients, patient = np.unique(patient_ids, return_inverse=True)
    n, rng = len(patients), np.random.default_rng(seed)
    counts = np.ones((n, 1 + replicates), np.uint16)
    for replicate in range(1, 1 + replicates):
        counts[:, replicate] = np.bincount(rng.integers(max(n, 1), size=n), minlength=n)
    return Resamples(patient, counts)


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval; replicates that are NaN are left out, NaN where none remains.

    >>> low, high = interval(np.arange(101.0))
    >>> float(low), float(high)
    (2.5, 97.5)
    """
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient of two arrays of one shape, NaN where the denominator is 0.

    >>> ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    array([0.5, nan])
    """
    undefined = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def mean_over_findings(values: np.ndarray) -> np.ndarray:
    """Mean of (C, ...) over those of the C findings that are not NaN; NaN where all are.

    >>> mean_over_findings(np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, np.nan]]))
    array([1.5, nan])
    """
    return ratio(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0))
