"""What the official tables of ChestX-ray14 say of labels, splits and boxes; no image is needed.

``python -m cxrlib.datasets.facts <folder of the release> results`` writes the tables that the book
shows.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.datasets.base import CXRDataset, Truth, split_patients
from cxrlib.datasets.nih import FRAME, Tables, read_tables
from cxrlib.datasets.splits import leaked
from cxrlib.files import write_csv
from cxrlib.findings import FINDINGS, NO_FINDING
from cxrlib.metrics.bootstrap import ratio
from cxrlib.metrics.controls import grid_ceiling_maps
from cxrlib.metrics.estimates import estimate
from cxrlib.metrics.localization import measure, of_pairs
from cxrlib.progress import track

GRIDS = (7, 8, 16, 32, 64, 128)
"""Cells per side: stride 32 at 224 px, then strides 64 to 4 at 512 px."""

SHARE, SEEDS = 0.7, range(10)
"""Share of a re-split that is for training, and the seeds of the re-splits."""

_CEILING_FRAME = 512
_CEILING_METRICS = ("pointing", "continuous_dice", "iou@0.5")


def label_counts(tables: Tables) -> pd.DataFrame:
    """Number of images with each label, in both official lists.

    Returns:
        one row for each list (``train_val``, ``test``) and label (the 14 findings and "No
        Finding"): ``images`` and ``patients`` of the list, ``positive`` images and their ``share``.
    """
    named = pd.DataFrame(tables.labels, columns=FINDINGS)
    named[NO_FINDING] = (tables.labels == 0).all(axis=1)
    rows = []
    for name, part in tables.images.groupby("split", sort=False):
        positive = named.loc[part.index].sum().astype(int)
        counts = pd.DataFrame({"split": name, "label": positive.index, "images": len(part)})
        counts["patients"] = part["patient_id"].nunique()
        rows.append(
            counts.assign(positive=positive.to_numpy(), share=positive.to_numpy() / len(part))
        )
    return pd.concat(rows, ignore_index=True)


def cooccurrence(tables: Tables) -> pd.DataFrame:
    """How often two findings are on one image.

    Returns:
        one row for each ordered pair of different findings ``given`` and ``finding``: ``n`` images
        with the first, ``both``, and ``lift``, how many times as frequent the second is among those
        as among all; NaN where one of the two is on no image.
    """
    labels = tables.labels.astype(float)
    together = labels.T @ labels  # (14, 14)
    n = together.diagonal()
    given, finding = np.nonzero(~np.eye(len(FINDINGS), dtype=bool))
    both = together[given, finding]
    columns = {
        "given": np.array(FINDINGS)[given],
        "finding": np.array(FINDINGS)[finding],
        "n": n[given].astype(int),
        "both": both.astype(int),
        "lift": ratio(both * len(labels), n[given] * n[finding]),
    }
    return pd.DataFrame(columns)


def resplits(tables: Tables, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """What random re-splits of all images give away, with 70 % for training.

    Args:
        tables: the official ones.
        seeds: of the re-splits.

    Returns:
        one row for each way (``by`` image, patient) and seed: images for training (``train``); how
        many official test patients have one of them (``test patients seen`` of ``test patients``);
        how many images with a box are among them (``boxed seen`` of ``boxed``); and of the images
        held out (``held out``), how many show a patient who is also trained on (``held out seen``).
    """
    patients = tables.images["patient_id"].to_numpy(str)
    ways: dict[str, Callable[[int], np.ndarray]] = {
        "image": lambda seed: split_patients(np.arange(len(patients)).astype(str), SHARE, seed),
        "patient": lambda seed: split_patients(patients, SHARE, seed),
    }
    tasks = [(by, seed) for by in ways for seed in seeds]
    rows = [
        {"by": by, "seed": seed} | _given_away(tables, patients, ways[by](seed))
        for by, seed in track(tasks, "re-splitting", len(tasks))
    ]
    return pd.DataFrame(rows)


def _given_away(tables: Tables, patients: np.ndarray, train: np.ndarray) -> dict[str, int]:
    worst = leaked(tables.images["image_id"][train].tolist(), tables)
    is_test = (tables.images["split"] == "test").to_numpy()
    return {
        "train": int(train.sum()),
        "test patients": len(np.unique(patients[is_test])),
        "test patients seen": int((worst["test"] > 0).sum()),
        "boxed": tables.boxes["image_id"].nunique(),
        "boxed seen": int(worst["boxed in train"].sum()),
        "held out": int((~train).sum()),
        "held out seen": int(np.isin(patients[~train], patients[train]).sum()),
    }


def grid_ceiling(tables: Tables, grids: Sequence[int] = GRIDS) -> pd.DataFrame:
    """What a perfect map of the official boxes scores on grids of several sizes.

    The boxes are averaged over the cells of a grid and scored in a frame of 512 px.

    Args:
        tables: the official ones.
        grids: cells per side.

    Returns:
        one row for each grid, metric and finding ("macro" is their mean): ``value``, ``low`` and
        ``high`` (95 % over patients) and ``n`` pairs of image and finding.
    """
    truth = boxed_truth(tables)
    rows = []
    for grid in track(grids, "scoring perfect maps", len(grids)):
        maps = of_pairs(grid_ceiling_maps(truth, grid), truth, _CEILING_FRAME)
        perfect = measure({"perfect": maps}, truth, _CEILING_FRAME, ["maps"])["perfect"]
        scores = estimate(perfect, _CEILING_METRICS)
        rows += [
            {"grid": grid, "metric": metric, "finding": name} | number
            for metric in _CEILING_METRICS
            for name, number in _numbers(scores.summary(metric)).items()
            if number["n"]
        ]
    return pd.DataFrame(rows)


def _numbers(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    estimates = {**summary["per_finding"], "macro": summary["macro"]}
    return {name: estimate.to_json() for name, estimate in estimates.items()}


def boxed_truth(tables: Tables) -> Truth:
    """The official boxes as truth, without any image.

    Args:
        tables: the official ones.
    """
    images = tables.images[tables.images["image_id"].isin(tables.boxes["image_id"])]
    pixels: dict[str, np.ndarray] = {}  # none is read
    ids, patients = images["image_id"].to_numpy(), images["patient_id"].to_numpy()
    labels = tables.labels[images.index]
    return Truth(CXRDataset("nih", ids, patients, labels, tables.boxes, FRAME, pixels.__getitem__))


TABLES: dict[str, Callable[[Tables], pd.DataFrame]] = {
    "label_counts.csv": label_counts,
    "label_cooccurrence.csv": cooccurrence,
    "resplit_leaks.csv": resplits,
    "grid_ceiling.csv": grid_ceiling,
}
"""What :func:`main` writes: name of the file, and the function that computes it."""


def main(arguments: list[str] | None = None) -> None:
    """Compute every table and write it to a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m cxrlib.datasets.facts", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("data_dir", help="folder of the release of ChestX-ray14, or of its tables")
    parser.add_argument("out_dir", type=Path, help="folder for the tables, e.g. results")
    chosen = parser.parse_args(arguments)
    tables = read_tables(chosen.data_dir)
    for name, compute in TABLES.items():
        path = chosen.out_dir / name
        write_csv(path, compute(tables))
        print(path)


if __name__ == "__main__":
    main()
