"""Thresholds tuned on some patients and scored on others."""

from dataclasses import dataclass

import numpy as np

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS


@dataclass(frozen=True)
class Tuned:
    """The threshold of each finding, and where it may be scored.

    Attributes:
        thresholds: finding -> threshold, of the findings that have a box.
        column: int (P,), which of the tried thresholds is that of each pair's finding.
        scored: bool (P,), the pairs of patients who were not used to tune.
    """

    thresholds: dict[str, float]
    column: np.ndarray
    scored: np.ndarray

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Values (P, k) of all thresholds at each pair's own: (P, 1), NaN where it was tuned."""
        own = np.take_along_axis(values, self.column[:, None], axis=1)
        return np.where(self.scored[:, None], own, np.nan)


def tune(objective: np.ndarray, thresholds: np.ndarray, truth: Truth, boxval: np.ndarray) -> Tuned:
    """Choose for each finding the threshold with the highest mean on ``boxval``.

    Of equals the lowest is taken. A finding that no patient of ``boxval`` has gets the threshold
    that is best for all pairs there.

    Args:
        objective: float (P, k), what is to be high, at each threshold; NaN is left out.
        thresholds: float (k,), those tried.
        truth: the P pairs.
        boxval: bool (P,), the pairs to tune on.
    """
    at_all = _best(objective[boxval])
    chosen = np.full(len(FINDINGS), at_all)
    for finding in np.unique(truth.finding[boxval]):
        chosen[finding] = _best(objective[boxval & (truth.finding == finding)])
    names = {FINDINGS[finding]: finding for finding in np.unique(truth.finding)}
    return Tuned(
        {name: round(float(thresholds[chosen[finding]]), 6) for name, finding in names.items()},
        chosen[truth.finding],
        ~boxval,
    )


def _best(objective: np.ndarray) -> int:
    """The column with the highest mean; the first where there is nothing to go by."""
    known = ~np.isnan(objective)
    return int(
        (np.where(known, objective, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)).argmax()
    )
