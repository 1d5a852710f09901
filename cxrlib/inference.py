"""A model on a dataset: batches in order, scores and maps out, on whatever device there is."""

from collections.abc import Callable, Iterator
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
    wanted = np.isin(dataset.image_ids, dataset.boxes["image_id"].to_numpy(str))
    scores, maps = [], []
    outputs = answers(model, dataset, batch_size, accelerator, num_workers)
    for index, output in enumerate(outputs):
        scores.append(output.logits.float().sigmoid().cpu())
        keep = torch.from_numpy(wanted[index * batch_size :][: len(output.logits)])
        maps.append(output.maps[keep.to(output.maps.device)].half().cpu())
    return Predictions.from_arrays(
        dataset.image_ids,
        torch.cat(scores),
        map_ids=dataset.image_ids[wanted],
        maps=torch.cat(maps),
        frame=dataset.image_size,
    )


def answers(
    model: nn.Module,
    dataset: CXRDataset,
    batch_size: int,
    accelerator: str = "auto",
    num_workers: int = 0,
    ask: Callable[[torch.Tensor], Any] | None = None,
) -> Iterator[Any]:
    """What a model says, batch by batch, so that the maps of one batch are all that is held.

    Args:
        model, dataset, batch_size, accelerator, num_workers: of :func:`predict`.
        ask: a method of the model that takes images, in place of the model itself.

    Yields:
        what it returns, of the dataset's images in order, on the model's device; of the model
        itself an :class:`~cxrlib.models.base.Output`.
    """
    device = torch.device(device_type(accelerator))
    model = model.to(device)
    batches = loader(dataset, batch_size, num_workers)
    for batch in track(batches, "predicting", len(batches)):
        # Left before each yield, or the caller's code would run under them too.
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            output = (ask or model)(scaled(batch.images.to(device)))
        yield output


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
