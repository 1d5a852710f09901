"""One type for all datasets: `Sample`, `CXRDataset`, `Truth` and `Split`."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxrlib.datasets.coverage import coverage, rasterize
from cxrlib.files import digest

BOX_COLUMNS = ["image_id", "finding", "x0", "y0", "x1", "y1"]
"""A table of boxes: ``finding`` is an index, corners are fractions of the image side, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One radiograph.

    Attributes:
        image: float32 (1, H, W), 0 to 1.
        labels: float32 (14,): 1 present, 0 absent, NaN unknown.
        boxes: float32 (n, 4), xyxy, half-open pixel edges in the frame of ``image``.
        box_findings: int64 (n,), the finding of each box.
        masks: bool (14, H, W), or None where the dataset has none.
        image_id: name of the image, without suffix.
        patient_id: name of the patient.
    """

    image: Tensor
    labels: Tensor
    boxes: Tensor
    box_findings: Tensor
    masks: Tensor | None
    image_id: str
    patient_id: str


class Batch(NamedTuple):
    """What training and prediction need of some samples."""

    images: Tensor  # (B, 1, H, W): uint8 from a loader, float32 once :func:`scaled` on the device
    labels: Tensor  # float32 (B, 14)
    masks: Tensor | None = None  # bool (B, 14, H, W), of boxes to learn from; None: no boxes
    teacher: Tensor | None = None  # float32 (B, 14) log-odds of another model, NaN unknown
    prior: Tensor | None = None  # float32 (B, 1, h, w), 0 to 1: where findings may be


def scaled(images: Tensor) -> Tensor:
    """Bytes as float32, 0 to 1, as in a :class:`Sample`.

    >>> scaled(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return images / 255


class Original(NamedTuple):
    """The image as its source gives it, which :attr:`Sample.image` shows squared and resized."""

    path: str
    height: int  # pixels; the shorter side is padded equally on both ends to the longer one
    width: int


class CXRDataset(Dataset[Sample]):
    """Radiographs with image labels and, for some images, boxes or masks.

    Args:
        name: what the data are, e.g. ``"nih"``.
        image_ids: (N,) strings.
        patient_ids: (N,) strings.
        labels: float32 (N, 14), 0/1, NaN = unknown.
        boxes: table with the columns of :data:`BOX_COLUMNS`; images without a row have no boxes.
        image_size: H = W of the samples, pixels.
        read_pixels: image id -> uint8 (H, W). Where it also has ``batch``, (B,) image ids -> uint8
            (B, H, W), batches are read by that.
        read_masks: image id -> bool (14, H, W); None where the dataset has no masks.
        views: (N,) strings such as ``"PA"``, ``""`` where unknown; None: all unknown.
        read_original: image id -> its file and size; None where images have no files.
    """

    def __init__(
        self,
        name: str,
        image_ids: np.ndarray,
        patient_ids: np.ndarray,
        labels: np.ndarray,
        boxes: pd.DataFrame,
        image_size: int,
        read_pixels: Callable[[str], np.ndarray],
        read_masks: Callable[[str], np.ndarray] | None = None,
        views: np.ndarray | None = None,
        read_original: Callable[[str], Original] | None = None,
    ) -> None:
        self.name = name
        self.image_ids = np.asarray(image_ids, str)
        self.patient_ids = np.asarray(patient_ids, str)
        self.labels = np.asarray(labels, np.float32)
        self.boxes = boxes[BOX_COLUMNS].reset_index(drop=True)
        self.image_size = image_size
        self.read_pixels = read_pixels
        self.read_masks = read_masks
        self.read_original = read_original
        self.views = np.full(len(self), "") if views is None else np.asarray(views, str)
        # Arrays, not the table: pandas would cost more per sample than reading the pixels.
        self._box_rows = self.boxes.groupby("image_id").indices
        self._corners = self.boxes[["x0", "y0", "x1", "y1"]].to_numpy(np.float32)
        self._box_findings = self.boxes["finding"].to_numpy(np.int64, copy=True)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``."""
        image_id = str(self.image_ids[index])
        pixels = torch.from_numpy(self.read_pixels(image_id).copy())  # torch wants it writable
        rows = self._box_rows.get(image_id, [])
        masks = self.read_masks(image_id) if self.read_masks else None
        return Sample(
            image=scaled(pixels)[None],  # (1, H, W)
            labels=torch.from_numpy(self.labels[index]),
            boxes=torch.from_numpy(self._corners[rows] * self.image_size),
            box_findings=torch.from_numpy(self._box_findings[rows]),
            masks=None if masks is None else torch.from_numpy(masks),
            image_id=image_id,
            patient_id=str(self.patient_ids[index]),
        )

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch at ``indices``, for a ``DataLoader``: its images are uint8."""
        ids, read = self.image_ids[indices], self.read_pixels
        pixels = read.batch(ids) if hasattr(read, "batch") else np.stack([*map(read, ids.tolist())])
        return Batch(torch.from_numpy(pixels)[:, None], torch.from_numpy(self.labels[indices]))

    def reading(self, read_pixels: Callable[[str], np.ndarray]) -> "CXRDataset":
        """The same dataset with another reader of the same pixels."""
        other = copy.copy(self)
        other.read_pixels = read_pixels
        return other

    def subset(self, indices: np.ndarray) -> "CXRDataset":
        """The same dataset with only these images, in this order."""
        ids = self.image_ids[indices]
        return CXRDataset(
            self.name,
            ids,
            self.patient_ids[indices],
            self.labels[indices],
            self.boxes[self.boxes["image_id"].isin(ids)],
            self.image_size,
            self.read_pixels,
            self.read_masks,
            self.views[indices],
            self.read_original,
        )


class Truth:
    """Where the findings of a dataset are: one entry for each (image, finding) that has a box.

    Attributes:
        image: int64 (P,), index of the image in the dataset.
        finding: int64 (P,), index of the finding.
        patient: (P,) strings.
        boxes: float32 (P, K, 4), xyxy as fractions of the image side; a pair with fewer than K
            boxes is filled up with NaN rows.
        outlined: whether the dataset has masks, finer than its boxes.
        dataset: where they are from.
    """

    def __init__(self, dataset: CXRDataset) -> None:
        position = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
        table = dataset.boxes.assign(image=dataset.boxes["image_id"].map(position))
        table = table.sort_values(["image", "finding"], kind="stable")
        pair = table.groupby(["image", "finding"], sort=False).ngroup().to_numpy()
        slot = table.groupby(["image", "finding"], sort=False).cumcount().to_numpy()
        first = slot == 0
        self.image = table["image"].to_numpy(np.int64)[first]
        self.finding = table["finding"].to_numpy(np.int64)[first]
        self.patient = dataset.patient_ids[self.image]
        self.boxes = np.full((len(self.image), int(slot.max(initial=0)) + 1, 4), np.nan, np.float32)
        self.boxes[pair, slot] = table[["x0", "y0", "x1", "y1"]].to_numpy(np.float32)
        self.outlined = dataset.read_masks is not None
        self.dataset = dataset

    def __len__(self) -> int:
        """Number of (image, finding) pairs."""
        return len(self.image)

    def area(self) -> np.ndarray:
        """Share of the image that each pair's truth covers: float64 (P,), 0 to 1."""
        if not len(self):
            return np.zeros(0)
        chunks = np.array_split(np.arange(len(self)), -(-len(self) // 256))
        return np.concatenate([self.masks(c, 64).mean(dim=(1, 2)).double() for c in chunks])

    def masks(self, pairs: np.ndarray, size: int) -> Tensor:
        """Masks of some pairs: float32 (k, size, size), the fraction of each pixel that is covered.

        The dataset's own masks where it has them, averaged exactly to any size, else the union
        of the boxes.
        """
        read = self.dataset.read_masks
        if read is None:
            return torch.from_numpy(rasterize(self.boxes[pairs], size))
        ids = self.dataset.image_ids[self.image[pairs]]
        found = zip(ids, self.finding[pairs], strict=True)
        own = np.stack([read(str(name))[finding] for name, finding in found]).astype(np.float32)
        edge = np.arange(own.shape[-1] + 1, dtype=np.float32) * (size / own.shape[-1])
        overlap = coverage(edge[:-1], edge[1:], size)  # (side, size)
        # Overlaps of one pixel add up to 1 but for rounding, hence the clip.
        return torch.from_numpy((overlap.T @ own @ overlap).clip(0, 1))


@dataclass(frozen=True)
class Split:
    """Three patient-disjoint parts of a dataset.

    Attributes:
        train: has no patient of ``val`` or ``test`` and none with a box.
        val: chooses the checkpoint.
        test: is scored once.
        data_hash: of the images' names, sizes and labels.
        notes: what a reader should know of how the parts came about, one sentence each.
    """

    train: CXRDataset
    val: CXRDataset
    test: CXRDataset
    data_hash: str
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, CXRDataset]:
        """The parts by name, in the order ``train``, ``val``, ``test``."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def split_hash(self) -> str:
        """Names which image is in which part."""
        return digest(*(digest("\n".join(sorted(p.image_ids))) for p in self.parts.values()))

    def refuse_leaks(self) -> None:
        """Raise if a patient is in two parts, or a patient with boxes is in ``train`` or ``val``.

        Raises:
            ValueError: names the parts and the first few patients.
        """
        patients = {name: set(part.patient_ids) for name, part in self.parts.items()}
        # As strings: np.isin compares each object with each.
        boxed = np.isin(self.test.image_ids, self.test.boxes["image_id"].to_numpy(str))
        patients["boxes"] = set(self.test.patient_ids[boxed])
        for one, other in (*combinations(self.parts, 2), ("train", "boxes"), ("val", "boxes")):
            shared = sorted(patients[one] & patients[other])
            if shared:
                raise ValueError(
                    f"{len(shared)} patients are in both {one!r} and {other!r}, such as "
                    f"{', '.join(shared[:5])}; split by patient before training"
                )
        for name in ("train", "val"):
            if len(self.parts[name].boxes):
                raise ValueError(
                    f"{name!r} holds images with boxes; boxed patients belong to 'test' only"
                )

    def empty_part(self) -> str | None:
        """Name of a part without images, or None."""
        return next((name for name, part in self.parts.items() if not len(part)), None)


def split_patients(patient_ids: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose a share of the patients at random.

    Args:
        patient_ids: (N,) strings, one per image.
        fraction: share of the patients to choose, 0 to 1.
        seed: of the choice.

    Returns:
        bool (N,): the images whose patient is chosen.

    >>> split_patients(np.array(["a", "a", "b", "c"]), 0.34, seed=0).tolist()
    [False, False, False, True]
    """
    patients = np.unique(patient_ids)
    chosen = np.random.default_rng(seed).permutation(patients)[: round(fraction * len(patients))]
    return np.isin(patient_ids, chosen)
