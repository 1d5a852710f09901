"""All methods on the same images: what each scores and costs, and how they rank, with intervals.

``python -m cxrlib.ranks scores.csv ranks.csv --runs runs/study`` reads the finished runs of the
studies and writes the tables of the page that compares them. A method that is ahead with one seed
and on one draw of patients may be behind with another; a rank therefore gets an interval over both.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cxrlib import datasets, runs
from cxrlib.checkpoints import best_checkpoint
from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.files import write_csv
from cxrlib.metrics.bootstrap import interval, mean_over_findings
from cxrlib.metrics.classification import replicate_classification
from cxrlib.metrics.estimates import ROWS, estimate
from cxrlib.metrics.localization import Measured, measure
from cxrlib.metrics.scorer import MODEL, of_predictions
from cxrlib.predictions import Predictions
from cxrlib.progress import track
from cxrlib.studies import finished

ARMS: dict[str, tuple[str, str, Any]] = {
    "LSE-LBA": ("lse_lba", "r0", 5),
    "AM + KP": ("attention_mining", "variant", "am_kp"),
    "HAM": ("ham", "ordinal", 0.1),
    "PYLON": ("pylon", "variant", "pylon"),
    "CLARiTy": ("clarity", "variant", "clarity"),
    "HAM, no ordinal loss": ("ham", "ordinal", 0),
    "MSA": ("attention_mining", "variant", "msa"),
    "FPN": ("pylon", "variant", "fpn"),
    "CAM, stride 16": ("attention_mining", "variant", "cam"),
    "CAM, stride 32": ("pylon", "variant", "cam_mean"),
}
"""Methods, then their baselines: notebook, and the parameter and value that tell its runs apart."""

RANKED = ("auroc", "pointing", "continuous_dice", "iou@0.5")
"""What methods are ranked by: the labels, a point, the whole map, a region."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # kept, but not learnt


@dataclass(frozen=True)
class Arms:
    """Runs that can be compared: every arm has the same seeds, on the same images.

    Attributes:
        folders: name -> seed -> run folder.
        seeds: that every arm has, ascending.
    """

    folders: dict[str, dict[int, Path]]
    seeds: tuple[int, ...]


def find(roots: Iterable[Path], arms: Mapping[str, tuple[str, str, Any]] = ARMS) -> Arms:
    """The runs of every arm.

    Args:
        roots: searched at any depth for runs on the phantom with preset ``quick``.
        arms: as :data:`ARMS`.

    Raises:
        ValueError: an arm has no run, or a seed twice; no seed is common to all arms; or runs of a
            seed were tested on different patients.
    """
    folders: dict[str, dict[int, Path]] = {name: {} for name in arms}
    everything = {at: of for root in roots for at, of in finished(root).items()}
    for folder, params in everything.items():
        if (params["dataset"], params["preset"]) != ("phantom", "quick"):
            continue
        for name, (notebook, parameter, value) in arms.items():
            if params["notebook"] != notebook or params[parameter] != value:
                continue
            if params["seed"] in folders[name]:
                twice = folders[name][params["seed"]]
                raise ValueError(f"{twice} and {folder} are the same run of {name}")
            folders[name][params["seed"]] = folder
    lacking = [name for name, of_arm in folders.items() if not of_arm]
    if lacking:
        raise ValueError(f"no finished run of {', '.join(lacking)} in these folders")
    seeds = sorted(set.intersection(*(set(of_arm) for of_arm in folders.values())))
    if not seeds:
        raise ValueError(f"no seed is common to all of {', '.join(folders)}")
    for seed in seeds:
        splits = {_decides(of_arm[seed])["split_hash"] for of_arm in folders.values()}
        if len(splits) > 1:
            raise ValueError(f"the runs of seed {seed} were split differently: {sorted(splits)}")
    return Arms(folders, tuple(seeds))


def _decides(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "environment.json").read_text())["decides"]


def scores(arms: Arms) -> pd.DataFrame:
    """What each run scored and cost.

    Args:
        arms: of :func:`find`.

    Returns:
        tidy rows: method, seed, image_size, device, source, split_hash, data_hash, commit; part,
        metric, finding (a mean), value, low, high (95 % over patients), n. Part ``"cost"`` has the
        metrics weights and train_seconds, by the clock.
    """
    columns = ["image_size", "device", "source", "split_hash", "data_hash", "commit"]
    columns += ["part", "metric", "finding", "value", "low", "high", "n"]
    tables = []
    for name, of_arm in arms.folders.items():
        for seed in arms.seeds:
            table = runs.collect(of_arm[seed])
            wanted = table["metric"].isin([*RANKED, "average_precision", "maxboxacc_v2", "pxap"])
            table = table[wanted & table["finding"].isin(["mean", "macro", "micro"])]
            cost = pd.DataFrame(_cost(of_arm[seed])).assign(**table.iloc[0][columns[:6]])
            rows = pd.concat([table, cost], ignore_index=True)[columns]
            tables.append(rows.assign(method=name, seed=seed))
    together = pd.concat(tables, ignore_index=True)
    return together[["method", "seed", *columns]]


def _cost(folder: Path) -> list[dict[str, Any]]:
    stored = torch.load(best_checkpoint(folder), map_location="cpu", weights_only=True)
    learnt = {
        name: of for name, of in stored["state_dict"].items() if not name.endswith(_STATISTICS)
    }
    seconds = json.loads((folder / "metrics.json").read_text())["seconds"]["train"]
    numbers = {"weights": sum(of.numel() for of in learnt.values()), "train_seconds": seconds}
    return [{"part": "cost", "metric": name, "value": value} for name, value in numbers.items()]


def drawn_scores(
    predictions: Predictions, test: CXRDataset, count: int = 1000
) -> dict[tuple[str, str], np.ndarray]:
    """A model's scores on test images and on draws of their patients, the same for all models.

    Args:
        predictions: of the test images, with maps.
        test: N images.
        count: R, how many draws.

    Returns:
        metric of :data:`RANKED` and mean (``"mean"``; ``"macro"`` and ``"micro"``) -> float64
        (1 + R,); the first is of the images themselves.
    """
    predictions, truth = predictions.aligned(test), Truth(test)
    maps = of_predictions(predictions, test, test.image_size)
    measured = measure({MODEL: maps}, truth, test.image_size, ["maps"])[MODEL]
    of_labels = replicate_classification(
        predictions.scores, test.labels, test.patient_ids, count, names=("auroc",)
    )[0]
    return {("auroc", "mean"): mean_over_findings(of_labels)} | drawn_maps(measured, count)


def drawn_maps(measured: Measured, count: int = 1000) -> dict[tuple[str, str], np.ndarray]:
    """The part of :func:`drawn_scores` that is about maps, for any source of maps."""
    names = RANKED[1:]
    estimates = estimate(measured, names, count).replicates
    return {
        (name, mean): estimates[name][ROWS.index(mean)]
        for name in names
        for mean in ("macro", "micro")
    }


def _drawn(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Macro scores of a run on the phantom and its draws, by metric."""
    params = json.loads((folder / "params.json").read_text())
    size, seed = params["image_size"], params["seed"]
    test = datasets.load("phantom", None, size, seed=seed, **params["phantom"]).test
    scored = drawn_scores(Predictions.read(folder / "predictions.npz"), test, count)
    return {metric: of for (metric, mean), of in scored.items() if mean != "micro"}


def rank(drawn: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Ranks of arms with intervals over seeds and patients.

    A draw takes as many seeds as there are, with replacement, and for each one draw of patients,
    the same for all arms.

    Args:
        drawn: float (arms, seeds, 1 + R), more is better; the first replicate is of the data.
        seed: of the draws.

    Returns:
        a row for each arm: value, low, high; rank (1 is best), rank_low, rank_high; first, the
        share of draws in which it is the best.

    >>> apart = np.array([[[0.9, 0.8, 0.9]], [[0.5, 0.4, 0.6]]])
    >>> rank(apart)[["rank", "rank_high", "first"]].values.tolist()
    [[1.0, 1.0, 1.0], [2.0, 2.0, 0.0]]
    """
    arms, seeds, columns = drawn.shape
    rng = np.random.default_rng(seed)
    count = columns - 1
    chosen = rng.integers(seeds, size=(count, seeds))
    patients = rng.integers(1, columns, size=(count, seeds))
    values = drawn[:, chosen, patients].mean(axis=2)  # (arms, R)
    ranks = stats.rankdata(-values, axis=0)
    means = drawn[:, :, 0].mean(axis=1)
    ends = [(*interval(values[arm]), *interval(ranks[arm])) for arm in range(arms)]
    table = pd.DataFrame(ends, columns=["low", "high", "rank_low", "rank_high"])
    first = (ranks == ranks.min(axis=0)).mean(axis=1)
    return table.assign(value=means, rank=stats.rankdata(-means), first=first)


def ranking(arms: Arms, count: int = 1000) -> pd.DataFrame:
    """Ranks of all arms by every metric of :data:`RANKED`.

    Args:
        arms: of :func:`find`.
        count: of draws.

    Returns:
        the columns of :func:`rank` after method and metric, then seeds, how many.
    """
    names = list(arms.folders)
    places = [(name, seed) for name in names for seed in arms.seeds]
    drawn = [
        _drawn(arms.folders[name][seed], count)
        for name, seed in track(places, "drawing patients", len(places))
    ]
    tables = []
    for metric in RANKED:
        values = np.stack([of_run[metric] for of_run in drawn])
        table = rank(values.reshape(len(names), len(arms.seeds), count + 1))
        tables.append(table.assign(method=names, metric=metric, seeds=len(arms.seeds)))
    columns = ["method", "metric", "value", "low", "high", "rank", "rank_low", "rank_high", "first"]
    return pd.concat(tables, ignore_index=True)[[*columns, "seeds"]]


def main(arguments: list[str] | None = None) -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.ranks")
    parser.add_argument("scores", type=Path, help="CSV file to write: what each run scored")
    parser.add_argument("ranks", type=Path, help="CSV file to write: how the methods rank")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of runs")
    chosen = parser.parse_args(arguments)
    arms = find(chosen.runs)
    write_csv(chosen.scores, scores(arms))
    write_csv(chosen.ranks, ranking(arms))


if __name__ == "__main__":
    main()
