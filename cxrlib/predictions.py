"""Predictions: made by a model, kept in one file, read without executing code."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from cxrlib.datasets.base import Batch, CXRDataset, Truth, scaled
from cxrlib.findings import FINDINGS
from cxrlib.progress import track


@dataclass(frozen=True)
class Predictions:
    """What a model says of a dataset; the file is an ``.npz`` of these arrays, read without pickle.

    Attributes:
        image_ids: (N,) strings.
        scores: float32 (N, 14), probabilities.
        map_ids: (M,) strings: the images whose maps are kept, those with boxes or masks.
        maps: float16 (M, 14, h, w), 0 to 1.
        frame: side in pixels of the images the maps cover.
    """

    image_ids: np.ndarray
    scores: np.ndarray
    map_ids: np.ndarray
    maps: np.ndarray
    frame: int

    def write(self, file: Any) -> None:
        """Write the ``.npz`` to an open binary file."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        np.savez_compressed(file, schema=1, findings=np.array(FINDINGS), **arrays)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            names = [field.name for field in dataclasses.fields(cls)]
            return cls(**{name: stored[name] for name in names} | {"frame": int(stored["frame"])})

    def pairs(self, truth: Truth) -> np.ndarray:
        """The maps of the truth's (image, finding) pairs, float16 (P, h, w)."""
        row = {image_id: index for index, image_id in enumerate(self.map_ids)}
        rows = np.array([row[image_id] for image_id in self.image_ids[truth.image]], int)
        return self.maps[rows, truth.finding]


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
    return Predictions(
        image_ids=dataset.image_ids,
        scores=torch.cat(scores).numpy(),
        map_ids=dataset.image_ids[wanted],
        maps=torch.cat(maps).numpy(),
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
