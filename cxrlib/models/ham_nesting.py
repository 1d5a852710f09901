"""How far HAM's attention is nested: what its ordinal constraints ask for, as a number of a run.

The share of the class maps' mass that lies outside the map of abnormality, at findings that are
present. The losses themselves also count cells that are too weak; this does not. Strong maps count
for more than weak ones, and one without any mass for nothing.

``python -m cxrlib.models.ham_nesting runs/study/ham results/ham_mean_maps.csv`` writes where the
maps of finished runs are on average, whatever the image.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cxrlib import runs
from cxrlib.datasets.base import CXRDataset
from cxrlib.files import write_csv
from cxrlib.findings import FINDINGS
from cxrlib.inference import answers
from cxrlib.metrics.bootstrap import Estimate, mean_over_findings, patient_weights, ratio
from cxrlib.models.ham import HAM
from cxrlib.models.ham_losses import masses
from cxrlib.predictions import Predictions

METRIC = "outside_abnormality"
"""Name in ``metrics.json``, under ``attention``."""


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
        a row for each finding that an image has: patient_id, finding (its index), mass of the map,
        outside (how much of it).
    """
    levels = answers(model, dataset, batch_size, accelerator, num_workers, ask=model.levels)
    both = torch.cat([torch.stack(masses(of.A, of.A_abnormal), -1).cpu() for of in levels])
    image, finding = np.nonzero(dataset.labels == 1)
    mass, outside = both.double().numpy()[image, finding].T  # (N, 14, 2) -> (n,) each
    patients = dataset.patient_ids[image]
    return pd.DataFrame(
        {"patient_id": patients, "finding": finding, "mass": mass, "outside": outside}
    )


def summarise_nesting(
    table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Share of the mass outside, with intervals over patients, as ``metrics.json`` has it.

    Args:
        table: of :func:`nesting`.
        replicates: of the bootstrap over patients.
        seed: of the bootstrap.

    Returns:
        ``{"outside_abnormality": {"macro": N, "micro": N, "per_finding": {name: N}}}``.

    >>> rows = {"patient_id": ["1", "1", "2"], "finding": [0, 4, 4], "mass": [2.0, 1.0, 3.0]}
    >>> table = pd.DataFrame(rows).assign(outside=[1.0, 1.0, 0.0])
    >>> shares = summarise_nesting(table)["outside_abnormality"]
    >>> shares["macro"]["value"], shares["per_finding"]["Mass"]["value"]
    (0.375, 0.25)
    """
    drawn = patient_weights(table["patient_id"].to_numpy(str), replicates, seed)
    finding, cases = table["finding"].to_numpy(), np.arange(len(table))
    rows = len(FINDINGS)
    outside = drawn.gather(finding, rows, cases, table["outside"].to_numpy())
    whole = drawn.gather(finding, rows, cases, table["mass"].to_numpy())
    beyond, mass = drawn.apply(lambda weights: np.stack([outside @ weights, whole @ weights]))
    per_finding = ratio(beyond, mass)  # (14, 1 + R)
    n = np.bincount(finding, minlength=rows)

    def summary(statistics: np.ndarray, n: int) -> dict[str, Any]:
        return Estimate.of(statistics, n).to_json()

    return {
        METRIC: {
            "macro": summary(mean_over_findings(per_finding), len(table)),
            "micro": summary(ratio(beyond.sum(0), mass.sum(0)), len(table)),
            "per_finding": dict(zip(FINDINGS, map(summary, per_finding, n), strict=True)),
        }
    }


def mean_maps(root: Path) -> pd.DataFrame:
    """The mean class map of each finished run below a folder, over its test images and findings.

    A map that follows the findings is bright where chests have them; one that follows nothing is
    bright in the same few cells.

    Args:
        root: searched for run folders at any depth.

    Returns:
        a row for each run and cell: ordinal, seed, row, column, value (0 to 1).

    Raises:
        ValueError: there is no finished run.
    """
    tables = []
    for path in runs.in_runs(root, "metrics.json"):
        params = json.loads((path.parent / "params.json").read_text())
        maps = Predictions.read(path.parent / "predictions.npz").maps  # (N, 14, h, w)
        mean = maps.astype(np.float32).mean((0, 1))
        row, column = np.indices(mean.shape)
        cells = {"row": row.ravel(), "column": column.ravel(), "value": mean.ravel()}
        origin = {name: params[name] for name in ("ordinal", "seed")}
        tables.append(pd.DataFrame(origin, index=range(mean.size)).assign(**cells))
    if not tables:
        raise ValueError(f"no finished run below {root}")
    return pd.concat(tables, ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    """Write the mean maps of runs."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.models.ham_nesting")
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("table", type=Path, help="CSV file to write")
    chosen = parser.parse_args(arguments)
    write_csv(chosen.table, mean_maps(chosen.root))


if __name__ == "__main__":
    main()
