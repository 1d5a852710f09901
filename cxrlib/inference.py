"""A model on a dataset: batches in order, scores and maps out, on whatever device there is."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from cxrlib.datasets.base import Batch, CXRDataset, scaled
from cxrlib.predictions import Predictions
from cxrlib.progress import track


def predict(
    model: nn.Module,
    dataset: CXRDataset,
    *,
    batch_size: int,
    accelerator: str = "auto",
    num_workers: int = 0,
) -> Predictions:
    """Scores of all images, and maps of those with boxes or masks.

    Args:
        model: in evaluation mode.
        dataset: N images.
        batch_size: images per step.
        accelerator: as in :func:`cxrlib.training.fit`.
        num_workers: processes that read images.
    """
    device = torch.device(device_type(accelerator))
    model = model.to(device)
    wanted = np.isin(dataset.image_ids, dataset.boxes["image_id"].to_numpy(str))
    scores, maps = [], []
    batches = loader(dataset, batch_size, num_workers)
    with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
        for index, batch in enumerate(track(batches, "predicting", len(batches))):
            output = model(scaled(batch.images.to(device)))
            scores.append(output.logits.float().sigmoid().cpu())
            keep = torch.from_numpy(wanted[index * batch_size :][: len(batch.images)])
            maps.append(output.maps[keep.to(device)].half().cpu())
    return Predictions.from_arrays(
        dataset.image_ids,
        torch.cat(scores),
        map_ids=dataset.image_ids[wanted],
        maps=torch.cat(maps),
        frame=dataset.image_size,
    )


def device_type(accelerator: str) -> str:
    """What an ``accelerator`` means on this machine: ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises:
        ValueError: it asks for a device that is not there.
    """
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    if accelerator in ("auto", "cpu"):
        return "cpu"
    raise ValueError(
        f"accelerator = {accelerator!r}, but this machine has no such device; use 'auto' or 'cpu'"
    )


def loader(
    dataset: CXRDataset,
    batch_size: int,
    num_workers: int,
    sampler: Sampler[int] | None = None,
    drop_last: bool = False,
) -> DataLoader:
    """Batches of a dataset, in order unless a sampler says otherwise."""
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        # Its own numbers: else an iterator takes one from those of the augmentation, and takes it
        # before they are seeded where a run is resumed, and after where it is not.
        generator=torch.Generator(),
        collate_fn=_as_read,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )


def _as_read(batch: Any) -> Batch:
    """Nothing is left to collate: a dataset reads whole batches."""
    return batch
