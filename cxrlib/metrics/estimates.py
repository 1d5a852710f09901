"""Every protocol's number with its patient-clustered interval, and the difference of two sources.

All protocols are computed from sums of columns over pairs. A replicate weighs a pair by how often
its patient was drawn, so the sums of all replicates are one matrix product for each finding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxrlib.files import digest
from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import Estimate, mean_over_findings, patient_weights
from cxrlib.metrics.localization import Measured
from cxrlib.metrics.protocols import PROTOCOLS, Protocol

ROWS = (*FINDINGS, "macro", "micro")
"""Macro is the mean over the findings that have pairs, micro over the pairs of all together."""


@dataclass(frozen=True)
class Scores:
    """Every protocol's numbers of one source of maps.

    Attributes:
        replicates: protocol -> float64 (16, 1 + R), rows as :data:`ROWS`; column 0 is the value on
            the data themselves, the others are replicates. NaN where not defined.
        n: protocol -> int64 (16,), the number of pairs.
        thresholds: protocol -> finding -> the tuned threshold, of protocols that tune one.
        drawn: names the pairs and the draws; scores can be compared where it is the same.
    """

    replicates: dict[str, np.ndarray]
    n: dict[str, np.ndarray]
    thresholds: dict[str, dict[str, float]]
    drawn: str

    def summary(self, protocol: str) -> dict[str, Any]:
        """``{"macro": Estimate, "micro": Estimate, "per_finding": {name: Estimate}}``."""
        rows = zip(self.replicates[protocol], self.n[protocol], strict=True)
        estimates = dict(zip(ROWS, (Estimate.of(*row) for row in rows), strict=True))
        return {
            "macro": estimates.pop("macro"),
            "micro": estimates.pop("micro"),
            "per_finding": estimates,
        }

    def minus(self, other: "Scores") -> "Scores":
        """The differences, replicate by replicate: both were drawn the same patients.

        Where only one of the two has a map, a number is not of the same pairs: the difference is
        NaN with n 0. Macro is the mean over the findings that are left, and micro is NaN.

        Args:
            other: of the same truth, replicates and seed. Tuned thresholds are each source's own.

        Raises:
            ValueError: the other was scored on other pairs or with other replicates.
        """
        if self.drawn != other.drawn or self.replicates.keys() != other.replicates.keys():
            raise ValueError(
                "these scores are not of the same pairs, protocols, replicates and seed; score "
                "both in the same way"
            )
        differences, n = {}, {}
        for name, pairs in self.n.items():
            same = pairs == other.n[name]  # (16,)
            difference = self.replicates[name] - other.replicates[name]
            difference = np.where(same[:, None], difference, np.nan)  # (16, 1 + R)
            n[name] = np.where(same, pairs, 0)
            if not same.all():
                difference[-2] = mean_over_findings(difference[:-2])
                n[name][-2] = n[name][:-2].sum()
            differences[name] = difference
        return Scores(differences, n, {}, self.drawn)


def estimate(
    measured: Measured,
    protocols: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    among: np.ndarray | None = None,
) -> Scores:
    """Compute protocols from measurements.

    Args:
        measured: of P pairs.
        protocols: keys of :data:`~cxrlib.metrics.protocols.PROTOCOLS`; all by default.
        replicates: R of the bootstrap over patients.
        seed: of the bootstrap; the same draws for every protocol and source.
        among: bool (P,), pairs to score, a stratum; all by default. Thresholds are tuned on all.
    """
    truth = measured.truth
    kept = np.arange(len(truth)) if among is None else np.flatnonzero(among)
    chosen = {name: PROTOCOLS[name] for name in protocols or PROTOCOLS}
    columns = [of.columns(measured)[kept] for of in chosen.values()]
    # Columns of a protocol leave out the same pairs, but where each is a finding.
    known = [
        ~np.isnan(of_protocol if of.every_record else of_protocol[:, :1])
        for of, of_protocol in zip(chosen.values(), columns, strict=True)
    ]
    finding, patient = truth.finding[kept], truth.patient[kept]
    resamples = patient_weights(patient, replicates, seed)

    def statistics(counts: np.ndarray) -> np.ndarray:
        weights = counts[resamples.patient]  # (P, r)
        totals, numbers = (_sums(part, finding, weights) for part in (columns, known))
        rows = map(_rows, chosen.values(), totals, numbers, on_data)
        return np.stack([*rows])  # (protocols, 16, r)

    once = np.ones((len(finding), 1))
    on_data, numbers = (_sums(part, finding, once) for part in (columns, known))
    return Scores(
        dict(zip(chosen, resamples.apply(statistics), strict=True)),
        dict(zip(chosen, map(_n, chosen.values(), numbers), strict=True)),
        {name: of.tuned(measured).thresholds for name, of in chosen.items() if of.tuned},
        digest(
            *truth.dataset.image_ids[truth.image[kept]], finding.tobytes(), f"{replicates} {seed}"
        ),
    )


def _sums(
    parts: Sequence[np.ndarray], finding: np.ndarray, weights: np.ndarray
) -> list[np.ndarray]:
    """Weighted sums over the pairs of each finding: (P, k) each -> (14, k, r) each."""
    table = np.nan_to_num(np.hstack(parts))
    sums = np.zeros((len(FINDINGS), table.shape[1], weights.shape[1]))
    for present in np.unique(finding):
        pairs = finding == present
        sums[present] = table[pairs].T @ weights[pairs]
    return np.split(sums, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)


def _rows(protocol: Protocol, *sums: np.ndarray) -> np.ndarray:
    """A protocol's value for each finding, macro and micro: (14, k, r) each -> (16, r)."""
    if protocol.every_record:  # a column is a finding: (14, 14, r) -> (14, 1, r)
        sums = tuple(part.sum(axis=0)[:, None] for part in sums)
    per_finding = protocol.combine(*sums)
    together = protocol.combine(*(part.sum(axis=0)[None] for part in sums))
    return np.vstack([per_finding, mean_over_findings(per_finding)[None], together])


def _n(protocol: Protocol, numbers: np.ndarray) -> np.ndarray:
    """Number of pairs of each row, from (14, k, 1): (16,)."""
    pairs = numbers[:, 0, 0]
    if protocol.every_record:
        pairs = numbers.sum(axis=0)[:, 0]
        return np.array([*pairs, pairs.max(), pairs.max()], int)
    return np.array([*pairs, pairs.sum(), pairs.sum()], int)
