"""What the chapter on scoring computes: maps of known flaws, and the controls of real boxes.

``python -m cxrlib.metrics.experiments <folder> results/protocol_controls.csv`` scores the controls
of the official boxes in a folder of ChestX-ray14, or of its tables alone, by every protocol.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.datasets.extra import with_truth
from cxrlib.datasets.facts import boxed_truth
from cxrlib.datasets.nih import FRAME, read_tables
from cxrlib.files import digest, write_csv
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.controls import controls, grid_ceiling_maps
from cxrlib.metrics.estimates import ROWS, Scores, estimate
from cxrlib.metrics.localization import Frames, measure, of_pairs
from cxrlib.metrics.protocols import PROTOCOLS
from cxrlib.parameters import PageParameters

GRID = 64
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"images": 60, "size": 128, "replicates": 50},
    "quick": {"images": 400, "size": 256, "replicates": 1000},
}
"""Sizes of ``notebooks/metrics.ipynb``: test images, frame in pixels, repetitions."""


class MetricsParameters(PageParameters):
    """Parameters of ``notebooks/metrics.ipynb``."""


def single_boxes(dataset: CXRDataset, seed: int = 0) -> Truth:
    """The boxes, without masks, that are the only one of their finding in their image.

    Each is moved by a random fraction of a pixel: where they are drawn, all corners lie on pixel
    edges, and how a convention rounds them would not matter.

    Args:
        dataset: with boxes.
        seed: of the shifts.
    """
    boxes = dataset.boxes[~dataset.boxes.duplicated(["image_id", "finding"], keep=False)]
    shift = np.random.default_rng(seed).uniform(-0.5, 0.5, (len(boxes), 2)) / dataset.image_size
    corners = ["x0", "y0", "x1", "y1"]
    moved = (boxes[corners].to_numpy() + np.tile(shift, 2)).clip(0, 1)
    return Truth(with_truth(dataset, boxes.assign(**dict(zip(corners, moved.T, strict=True)))))


def lineup(truth: Truth, seed: int = 0) -> dict[str, np.ndarray]:
    """Nine maps of every pair, each made from its box with one virtue or flaw.

    Args:
        truth: P pairs of one box each.
        seed: of the speckle.

    Returns:
        name -> float32 (P, 64, 64), 0 to 1: ``"perfect"`` the truth on the grid; ``"blob"`` a
        Gaussian as wide as the box (a quarter of it is the standard deviation); ``"spot"`` a narrow
        one; ``"wide"`` one three times as wide; ``"beside"`` the blob moved right or left by half
        a box, so that its peak is on the box's edge; ``"mirrored"`` with its image on the other
        side of the chest, a tenth lower; ``"speckled"`` with multiplicative noise; ``"faint"`` at
        a tenth of its height; ``"hazy"`` half a blob on a floor of one half.
    """
    x0, y0, x1, y1 = truth.boxes[:, 0].T[..., None, None]  # (P, 1, 1) each, fractions
    cell = (np.arange(GRID) + 0.5) / GRID
    x, y = cell[None, None, :], cell[None, :, None]
    centre, half = (x0 + x1) / 2, (x1 - x0) / 2

    def gaussian(at: np.ndarray, spread: float | None, width: float = 1.0) -> np.ndarray:
        across = width * (x1 - x0) / 4 if spread is None else spread
        down = width * (y1 - y0) / 4 if spread is None else spread
        return np.exp(-(((x - at) / across) ** 2 + ((y - (y0 + y1) / 2) / down) ** 2) / 2)

    blob = gaussian(centre, None)
    noise = np.random.default_rng(seed).random(blob.shape)
    inward = np.where(centre < 0.5, 1, -1)
    maps = {
        "perfect": grid_ceiling_maps(truth, GRID),
        "blob": blob,
        "spot": gaussian(centre, 0.015),
        "wide": gaussian(centre, None, 3.0),
        "beside": gaussian(centre + inward * half, None),
        "mirrored": np.maximum(blob, 0.9 * gaussian(1 - centre, None)),
        "speckled": blob * noise,
        "faint": 0.1 * blob,
        "hazy": 0.5 + 0.5 * blob,
    }
    return {name: map_.astype(np.float32) for name, map_ in maps.items()}


def score_lineup(
    truth: Truth,
    maps: Mapping[str, np.ndarray],
    size: int,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Scores]:
    """Every protocol of several maps of the same pairs, and of the controls.

    Args:
        truth: the P pairs.
        maps: name -> float (P, h, w), 0 to 1.
        size: S, side of the frame in pixels.
        replicates, seed: of the bootstrap; the seed also of the random control.
    """
    sources: dict[str, Frames] = {name: of_pairs(map_, truth, size) for name, map_ in maps.items()}
    measured = measure(sources | controls(truth, GRID, size, seed), truth, size)
    return {
        name: estimate(of_source, replicates=replicates, seed=seed)
        for name, of_source in measured.items()
    }


def tidy(scores: Mapping[str, Scores], rows: tuple[str, ...] = ("macro", "micro")) -> pd.DataFrame:
    """Numbers of several sources as one table.

    Args:
        scores: source -> numbers.
        rows: of :data:`~cxrlib.metrics.estimates.ROWS`.

    Returns:
        one row for each source, protocol and row: ``source``, ``protocol``, ``finding``, ``value``,
        ``low``, ``high``, ``n``.
    """
    at = [ROWS.index(row) for row in rows]
    return pd.DataFrame(
        [
            {"source": source, "protocol": name, "finding": ROWS[row]}
            | Estimate.of(of_source.replicates[name][row], of_source.n[name][row]).to_json()
            for source, of_source in scores.items()
            for name in of_source.replicates
            for row in at
        ]
    )


def frames(truth: Truth, sizes: tuple[int, ...]) -> pd.DataFrame:
    """What the frame alone changes: a perfect box, scored at several resolutions.

    Args:
        truth: the P pairs.
        sizes: sides of the frame in pixels.

    Returns:
        :func:`tidy` rows of each finding, with the column ``size``.
    """
    tables = []
    for size in sizes:
        maps = of_pairs(grid_ceiling_maps(truth, size), truth, size)
        perfect = measure({"perfect": maps}, truth, size)
        scores = {"perfect": estimate(perfect["perfect"], replicates=0)}
        tables.append(tidy(scores, ROWS).assign(size=size))
    return pd.concat(tables, ignore_index=True).dropna(subset=["value"])


def control_table(data_dir: str, seed: int = 0) -> pd.DataFrame:
    """The controls of the official boxes by every protocol, in the frame of the boxes.

    Args:
        data_dir: folder of the release of ChestX-ray14, or of its tables.
        seed: of the random maps and of the bootstrap.

    Returns:
        :func:`tidy` rows with the number of boxes and the hash of their table, and how each
        protocol was applied.
    """
    tables = read_tables(data_dir)
    truth = boxed_truth(tables)
    table = tidy(score_lineup(truth, {}, FRAME, seed=seed))
    return table.assign(
        boxes=len(truth),
        data_hash=digest(tables.boxes.to_csv()),
        frame=FRAME,
        grid=GRID,
        seed=seed,
        origin=table["protocol"].map(lambda name: PROTOCOLS[name].origin),
        threshold=table["protocol"].map(lambda name: PROTOCOLS[name].threshold),
        edges=table["protocol"].map(lambda name: PROTOCOLS[name].boxes),
    )


def main(arguments: list[str] | None = None) -> None:
    """Score the controls of one or more folders and write one table."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.metrics.experiments")
    parser.add_argument("data_dir", nargs="+", help="of ChestX-ray14, or of its tables alone")
    parser.add_argument("csv", type=Path, help="e.g. results/protocol_controls.csv")
    chosen = parser.parse_args(arguments)
    write_csv(chosen.csv, pd.concat([control_table(folder) for folder in chosen.data_dir]))


if __name__ == "__main__":
    main()
