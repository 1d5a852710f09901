"""How far HAM's attention is nested: what its ordinal constraints ask for, as a number of a run.

The share of a class map's mass that lies outside the map of abnormality, at findings that are
present. The losses themselves also count cells that are too weak; this does not.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cxrlib.datasets.base import CXRDataset
from cxrlib.findings import FINDINGS
from cxrlib.inference import answers
from cxrlib.metrics.bootstrap import Estimate, mean_over_findings, patient_weights, ratio
from cxrlib.models.ham import HAM, Levels
from cxrlib.models.ham_losses import outside

METRIC = "outside_abnormality"
"""Name in ``metrics.json``, under ``attention``."""


class _AllLevels(nn.Module):
    """The network, answering with all its levels."""

    def __init__(self, model: HAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Levels:
        return self.model.levels(images)


def nesting(
    model: HAM,
    dataset: CXRDataset,
    *,
    batch_size: int,
    accelerator: str = "auto",
    num_workers: int = 0,
) -> pd.DataFrame:
    """How much of each class map lies outside the map of abnormality.

    Args:
        model: in evaluation mode.
        dataset: N images; boxes are not looked at.
        batch_size: images per step.
        accelerator: as in :func:`cxrlib.training.fit`.
        num_workers: processes that read images.

    Returns:
        a row for each finding that an image has: patient_id, finding (its index), outside (0 to 1).
    """
    rest = (batch_size, accelerator, num_workers)
    levels = cast(Iterator[Levels], answers(_AllLevels(model), dataset, *rest))
    shares = [outside(of.A, of.A_abnormal, -math.inf).cpu() for of in levels]
    image, finding = np.nonzero(dataset.labels == 1)
    share = torch.cat(shares).double().numpy()[image, finding]
    return pd.DataFrame(
        {"patient_id": dataset.patient_ids[image], "finding": finding, "outside": share}
    )


def summarise_nesting(
    table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Means with their intervals over patients, as ``metrics.json`` has them.

    Args:
        table: of :func:`nesting`.
        replicates: of the bootstrap over patients.
        seed: of the bootstrap.

    Returns:
        ``{"outside_abnormality": {"macro": N, "micro": N, "per_finding": {name: N}}}``.

    >>> rows = {"patient_id": ["1", "1", "2"], "finding": [0, 4, 4], "outside": [0.5, 0.2, 0.4]}
    >>> means = summarise_nesting(pd.DataFrame(rows))["outside_abnormality"]
    >>> round(means["macro"]["value"], 3), means["per_finding"]["Mass"]["n"]
    (0.4, 2)
    """
    drawn = patient_weights(table["patient_id"].to_numpy(str), replicates, seed)
    finding, cases = table["finding"].to_numpy(), np.arange(len(table))
    rows = len(FINDINGS)
    sums = drawn.gather(finding, rows, cases, table["outside"].to_numpy())
    numbers = drawn.gather(finding, rows, cases)
    totals, counts = drawn.apply(lambda weights: np.stack([sums @ weights, numbers @ weights]))
    per_finding = ratio(totals, counts)  # (14, 1 + R)
    n = np.bincount(finding, minlength=rows)

    def summary(statistics: np.ndarray, n: int) -> dict[str, Any]:
        return Estimate.of(statistics, n).to_json()

    return {
        METRIC: {
            "macro": summary(mean_over_findings(per_finding), len(table)),
            "micro": summary(ratio(totals.sum(0), counts.sum(0)), len(table)),
            "per_finding": dict(zip(FINDINGS, map(summary, per_finding, n), strict=True)),
        }
    }
