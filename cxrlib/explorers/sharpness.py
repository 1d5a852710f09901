"""The page on r0: maps of runs that differ in it, and what they pool to."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps

from cxrlib import studies
from cxrlib.checkpoints import load_model
from cxrlib.datasets.base import CXRDataset
from cxrlib.explorers.packing import (
    SEED,
    case_of,
    map_of,
    pictures,
    rounded,
    scenes,
    unpack,
)
from cxrlib.findings import FINDINGS
from cxrlib.metrics import conventions
from cxrlib.models.lse_lba import LSELBA
from cxrlib.pooling import lse_pool
from cxrlib.predictions import Predictions

SHARPNESSES = (0.0, 1.0, 5.0, 20.0, 100.0, math.inf)
"""At which the library's pooled probabilities are stored."""

SHOWN = {"finding": "Cardiomegaly", "r0": 5, "r": 5}
"""What the page shows at first, and its still picture always."""


def data(folder: Path) -> dict[str, Any]:
    """What the page needs.

    Args:
        folder: finished runs of LSE-LBA; of those with :data:`cxrlib.explorers.packing.SEED`, which
            differ in nothing but r0, the test images are shown.

    Returns:
        ``size`` of the frame in pixels, ``findings`` (:func:`cxrlib.explorers.packing.scenes`, each
        also with a ``negative`` image, which does not have it), ``images``, ``runs`` (of each
        ``r0``, the sharpness ``r`` of the kept epoch, and for each finding the ``maps`` of
        both images and the library's numbers), ``about`` (where all this comes from).
    """
    runs = {p["r0"]: path for path, p in studies.finished(folder).items() if p["seed"] == SEED}
    opened = {r0: load_model(runs[r0]) for r0 in sorted(runs)}
    one = next(iter(opened.values()))
    split = one.load_data(one.params["dataset"], None, None, {})
    found = [
        scene | {"negative": _without(split.test, scene["name"])} for scene in scenes(split.test)
    ]
    names = {scene[which] for scene in found for which in ("image", "negative")}
    return {
        "size": split.test.image_size,
        "shown": SHOWN,
        "findings": found,
        "images": pictures(split.test, names),
        "colours": {name: _colours(name) for name in ("magma", "viridis")},
        "sharpnesses": [str(r) for r in SHARPNESSES],
        "runs": [
            {"r0": r0, "r": _learned(run.model), "findings": _numbers(runs[r0], found)}
            for r0, run in opened.items()
        ],
        "about": {
            "seed": SEED,
            "data": split.data_hash,
            "runs": {f"r0 = {r0:g}": _named(runs[r0]) for r0 in opened},
        },
    }


def _named(run: Path) -> dict[str, str]:
    environment = json.loads((run / "environment.json").read_text())
    return {"run": environment["key"], "commit": environment["git_commit"]}


def _without(dataset: CXRDataset, finding: str) -> str:
    """The first image with a map that does not have the finding."""
    mapped = np.isin(dataset.image_ids, dataset.boxes["image_id"].to_numpy(str))
    absent = dataset.labels[:, FINDINGS.index(finding)] == 0
    return str(dataset.image_ids[mapped & absent][0])


def _colours(name: str) -> list[list[int]]:
    """A colour map in 17 steps, between which the page mixes."""
    rgb: np.ndarray = colormaps[name](np.linspace(0, 1, 17), bytes=True)
    return rgb[:, :3].tolist()


def _learned(model: Any) -> float:
    assert isinstance(model, LSELBA)
    return round(model.network.pool.r.item(), 3)


def _numbers(run: Path, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every finding the two maps, p at each sharpness, and scores of the first map."""
    predictions = Predictions.read(run / "predictions.npz")
    rows = []
    for scene in found:
        maps = [map_of(predictions, scene[which], scene["name"]) for which in ("image", "negative")]
        unpacked = [unpack(text) for text in maps]
        pooled = [[lse_pool(torch.from_numpy(S), r).item() for r in SHARPNESSES] for S in unpacked]
        measured = conventions.of_maps(case_of(unpacked[0], scene, predictions.frame))
        scores = {name: measured[name] for name in ("pointing", "continuous_dice")}
        rows.append({"maps": maps, "p": np.round(pooled, 5).tolist(), **rounded(scores)})
    return rows
