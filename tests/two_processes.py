"""A toy dataset, a model's outputs of it, and what each of two processes does with its share.

Apart from the tests, so that a process that is started does not import what only they need.
"""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import distributed
from torch.utils.data import DistributedSampler

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset
from cxrlib.metrics.modules import ClassificationScores, PredictionScores

N, SIZE, GRID = 23, 32, 8  # odd, so that two processes need a repeat to be even
BOXED = [1, 2, 5, 8, 9, 12, 15, 20, 22]
FAST = {"replicates": 10, "seed": 3}


def make_dataset(boxed=BOXED):
    """23 images of 12 patients; every second boxed image shows finding 1, the others finding 4."""
    rng = np.random.default_rng(0)
    ids = np.array([f"i{index:02d}" for index in range(N)])
    labels = (rng.random((N, 14)) < 0.3).astype(float)
    rows = [
        (ids[image], 1 + 3 * (place % 2), *rng.uniform(0, 0.4, 2), *rng.uniform(0.5, 1, 2))
        for place, image in enumerate(boxed)
    ]
    boxes = pd.DataFrame(rows, columns=BOX_COLUMNS)
    patients = np.array([f"p{index // 2}" for index in range(N)])
    return CXRDataset("toy", ids, patients, labels, boxes, SIZE, np.load)


def make_outputs(seed=1):
    """Scores and maps of every image, as a model gives them: float32."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(N, 14, generator=generator)
    return scores, torch.rand(N, 14, GRID, GRID, generator=generator)


DATASET = make_dataset()
SCORES, MAPS = make_outputs()


def feed(metric, indices, batch=5, scores=SCORES, maps=MAPS):
    """Batch by batch, as a loop over a DataLoader does."""
    for start in range(0, len(indices), batch):
        index = torch.tensor(indices[start : start + batch])
        only_scores = isinstance(metric, ClassificationScores)
        metric.update(index, scores[index], *(() if only_scores else (maps[index],)))
    return metric


def padded(rank, shuffle):
    """A process's share as Lightning deals it out: the first image comes twice to be even."""
    sampler = DistributedSampler(range(N), num_replicas=2, rank=rank, shuffle=shuffle)
    assert len(sampler) == 12
    return list(sampler)


def shares(rank):
    """How the images may be dealt out: name -> this process's positions, and its batch size."""
    others = [index for index in range(N) if index not in BOXED]
    return {
        "padded": (padded(rank, shuffle=False), 3 + 4 * rank),
        "shuffled": (padded(rank, shuffle=True), 5 - 4 * rank),
        "one has all boxes": ((BOXED, others)[rank], 2),
        "the second has nothing": ((range(N), [])[rank], 6),
        "the first has nothing": (([], range(N))[rank], 6),
    }


def run_process(rank: int, folder: str) -> None:
    """One of two processes: its results go to a file."""
    store, limit = f"file://{folder}/store", timedelta(seconds=60)
    distributed.init_process_group("gloo", store, timeout=limit, rank=rank, world_size=2)
    metric, labels = PredictionScores(DATASET, **FAST), ClassificationScores(DATASET, **FAST)
    found = {}
    for name, (indices, batch) in shares(rank).items():
        metric.reset()
        found[name] = feed(metric, indices, batch).compute()
        own = sum(len(part) for part in metric.index)
        assert own == len(indices)  # what the other process gave is gone again
    found["labels"] = feed(labels, padded(rank, shuffle=False)).compute()
    nothing = feed(PredictionScores(make_dataset(boxed=[]), **FAST), padded(rank, shuffle=False))
    found["no boxes"] = nothing.compute()
    for name, indices in {"unseen": range(rank, N - 3, 2), "no batch": []}.items():
        try:
            found[name] = feed(PredictionScores(DATASET, **FAST), indices).compute()
        except ValueError as refused:
            found[name] = str(refused)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()
