"""What each step of attention mining finds: true area covered, area claimed, labels still known.

A union of maps can only grow, and a map that claims the whole image covers every finding. So what
is found stands beside what is claimed, and beside three regions that claim *just as many cells*:
cells at random, those where other patients have the finding, and those that the truth covers most.

``python -m cxrlib.models.mining_steps runs/study/attention_mining steps.csv am am_kp`` gathers the
tables that the chapter's runs of these variants have written.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor, nn

from cxrlib import runs
from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.files import write_csv
from cxrlib.findings import FINDINGS
from cxrlib.inference import predict
from cxrlib.metrics.bootstrap import Estimate, mean_over_findings, patient_weights, ratio
from cxrlib.metrics.classification import score_classification
from cxrlib.metrics.controls import grid_ceiling_maps, location_prior
from cxrlib.models.attention_mining import AttentionMining, unit_maps
from cxrlib.models.base import Output
from cxrlib.models.mining_network import CAMNetwork
from cxrlib.predictions import Predictions

SHARE = 0.5
"""A cell is claimed where a map reaches this share of its maximum, as ``tau`` of the erased set."""

TABLE = "steps.csv"
"""Its name in a run's folder."""


class OneStep(nn.Module):
    """f_t by itself, as a model: its scores and its own map, without those before it."""

    def __init__(self, f: CAMNetwork) -> None:
        super().__init__()
        self.f = f

    def forward(self, images: Tensor) -> Output:
        """Images (B, 1, H, W), 0 to 1 -> log-odds (B, C), maps (B, C, h, w)."""
        answer = self.f.answer(self.f(images))
        return Output(answer.logits, unit_maps([answer])[0])


def predict_steps(
    model: AttentionMining,
    dataset: CXRDataset,
    *,
    batch_size: int,
    accelerator: str = "auto",
    num_workers: int = 0,
) -> list[Predictions]:
    """What f_0 to f_T say, each by itself; arguments as of :func:`cxrlib.inference.predict`."""
    return [
        predict(
            OneStep(f).eval(),
            dataset,
            batch_size=batch_size,
            accelerator=accelerator,
            num_workers=num_workers,
        )
        for f in model.networks
    ]


def claimed(maps: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Cells that the maps of steps 0 to t claim together.

    Args:
        maps: float (T + 1, ..., h, w), 0 to 1, of each step by itself.
        share: above 0 to 1.

    Returns:
        bool, the same shape.

    >>> claimed(np.array([[[1.0, 0.2, 0.0]], [[0.1, 0.6, 1.0]]]))
    array([[[ True, False, False]],
    <BLANKLINE>
           [[ True,  True,  True]]])
    """
    return np.maximum.accumulate(maps >= share, axis=0)


def as_many(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The highest cells of each map, as many as another region has.

    Args:
        values: float (P, h, w).
        cells: int (P,), how many.

    Returns:
        float32 (P, h, w), 1 where a cell is among them, else 0; NaN where ``values`` are.

    >>> as_many(np.array([[[3.0, 1.0, 2.0]]]), np.array([2]))
    array([[[1., 0., 1.]]], dtype=float32)
    """
    flat = values.reshape(len(values), -1)
    rank = (-flat).argsort(axis=1, kind="stable").argsort(axis=1)
    chosen = (rank < cells[:, None]).astype(np.float32)
    return np.where(np.isnan(flat), np.float32(np.nan), chosen).reshape(values.shape)


def covered(region: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the true area that a region covers.

    Args:
        region: (P, h, w), 0 or 1.
        truth: float (P, h, w), how much of each cell the truth covers, 0 to 1.

    Returns:
        float (P,), NaN where there is no truth.
    """
    return ratio((region * truth).sum((1, 2), dtype=float), truth.sum((1, 2), dtype=float))


def measure_steps(
    steps: Sequence[Predictions],
    dataset: CXRDataset,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """AUROC of every step; what the union of the maps up to it finds and claims, with controls.

    Args:
        steps: of :func:`predict_steps`, of the dataset's images.
        dataset: with boxes or masks.
        replicates: of the bootstrap over patients.
        seed: of the bootstrap.

    Returns:
        tidy rows: step, part, metric, finding, value, low, high, n. Metrics: ``auroc`` (part
        ``classification``), ``found``, the share of the true area that is claimed, and
        ``precision``, the share of the claimed area that is true, on the grid of the maps. Part
        ``localization`` is the model's; part ``random`` of ``found`` equals the share of the image
        that is claimed. Of the findings, ``macro`` is the mean.
    """
    truth = Truth(dataset)
    maps = np.stack([of.aligned(dataset).pairs(truth) for of in steps]).astype(np.float32)
    h = maps.shape[-1]
    exact = grid_ceiling_maps(truth, h)
    prior = location_prior(truth, h, grid=h)
    places = zip(truth.image.tolist(), truth.finding.tolist(), strict=True)
    usual = np.stack([prior(image, finding, False) for image, finding in places])
    tables = []
    for t, (of, region) in enumerate(zip(steps, claimed(maps), strict=True)):
        cells = region.sum((1, 2))
        regions = {
            "localization": region,
            "location_prior": as_many(usual, cells),
            "grid_ceiling": as_many(exact, cells),
            "random": np.broadcast_to((cells / h**2)[:, None, None], region.shape),
        }
        labels = score_classification(
            of.scores, dataset.labels, dataset.patient_ids, replicates, seed
        )["auroc"]
        rows = [("classification", "auroc", {"mean": labels["mean"], **labels["per_finding"]})]
        for part, claim in regions.items():
            found = _means(covered(claim, exact), truth, replicates, seed)
            precise = _means(covered(exact, claim), truth, replicates, seed)
            rows += [(part, "found", found), (part, "precision", precise)]
        tables += [
            {"step": t, "part": part, "metric": metric, "finding": name, **number.to_json()}
            for part, metric, numbers in rows
            for name, number in numbers.items()
        ]
    return pd.DataFrame(tables)


def _means(values: np.ndarray, truth: Truth, replicates: int, seed: int) -> dict[str, Estimate]:
    """Mean of one value of each pair, for every finding and over findings."""
    resamples = patient_weights(truth.patient, replicates, seed)
    known = np.flatnonzero(~np.isnan(values))
    row = truth.finding[known]
    total = resamples.gather(row, len(FINDINGS), known, values[known])
    number = resamples.gather(row, len(FINDINGS), known)

    def statistic(counts: np.ndarray) -> np.ndarray:
        means = ratio(total @ counts, number @ counts)  # (14, r)
        return np.vstack([means, mean_over_findings(means)[None]])

    n = np.bincount(row, minlength=len(FINDINGS))
    rows = zip((*FINDINGS, "macro"), resamples.apply(statistic), (*n, n.sum()), strict=True)
    return {name: Estimate.of(values, n) for name, values, n in rows}


def collect_steps(root: Path, variants: Sequence[str]) -> pd.DataFrame:
    """The tables of finished runs below a folder, with what tells the runs apart.

    Args:
        root: searched at any depth.
        variants: whose runs.

    Returns:
        the rows of :func:`measure_steps`, of single findings only what is found, after variant,
        seed, source, data_hash and commit.

    Raises:
        FileNotFoundError: there is none.
    """
    tables = []
    for path in runs.in_runs(root, TABLE):
        if not (path.parent / "metrics.json").exists():
            continue
        params, environment = (
            json.loads((path.parent / f"{name}.json").read_text())
            for name in ("params", "environment")
        )
        if params["variant"] not in variants:
            continue
        origin = {name: params[name] for name in ("variant", "seed")}
        origin |= {name: environment["decides"][name] for name in ("source", "data_hash")}
        origin |= {"commit": environment["git_commit"]}
        tables.append(pd.read_csv(path).assign(**origin))
    if not tables:
        raise FileNotFoundError(
            f"{root} holds no finished run of {', '.join(variants)} with a {TABLE}"
        )
    table = pd.concat(tables, ignore_index=True)
    table = table[table["finding"].isin(["macro", "mean"]) | (table["metric"] == "found")]
    return table[[*origin, *table.columns.difference([*origin], sort=False)]]


if __name__ == "__main__":
    write_csv(Path(sys.argv[2]), collect_steps(Path(sys.argv[1]), sys.argv[3:]))
