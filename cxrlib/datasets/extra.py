"""More truth for ChestX-ray14 images, drawn by others: RSNA 2018 and ChestX-Det.

Sources: Shih et al., "Augmenting the National Institutes of Health Chest Radiograph Dataset with
Expert Annotations of Possible Pneumonia", Radiology: Artificial Intelligence 2019; Lian et al., "A
Structure-Aware Relation Network for Thoracic Diseases Detection and Segmentation", IEEE
Transactions on Medical Imaging 2021. Both are read as tables whose names and frame are those of
ChestX-ray14: images by name, corners and outlines in the 1024 px frame.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxrlib.datasets.base import CXRDataset
from cxrlib.datasets.boxes import CORNERS, fit_boxes, pixel_boxes
from cxrlib.datasets.nih import FRAME
from cxrlib.datasets.tables import (
    find_one,
    open_folder,
    read_csv,
    reading,
    refuse,
    refuse_unknown,
    stems,
)
from cxrlib.findings import FINDINGS, finding_index

RSNA_FINDING = "Pneumonia"
"""What RSNA's boxes, "Lung Opacity", are: the readers marked opacities that may be pneumonia."""

RSNA_CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
NOT_OURS = ("Calcification", "Diffuse Nodule", "Fracture")
"""Classes of ChestX-Det without a counterpart; the other ten are findings of ours by name. Diffuse
Nodule outlines a region full of nodules, which is not where one nodule is."""

_SIDES = ["x1024", "y1024", "w1024", "h1024"]
_RESTORE = "restore it"


class Rsna(NamedTuple):
    """What RSNA says of ChestX-ray14 images.

    Attributes:
        boxes: columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`; all are of Pneumonia.
        classes: one of :data:`RSNA_CLASSES` for each image that was read, by image id.
    """

    boxes: pd.DataFrame
    classes: pd.Series


class ChestXDet(NamedTuple):
    """What ChestX-Det says of ChestX-ray14 images.

    Attributes:
        boxes: columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`.
        masks: reads the masks of an image.
        unused: number of boxes of each class in :data:`NOT_OURS`.
    """

    boxes: pd.DataFrame
    masks: "Outlines"
    unused: dict[str, int]


@dataclass(frozen=True)
class Outlines:
    """Masks from polygons; a class, not a closure, so that loader processes can be sent it.

    Attributes:
        polygons: the outlines of each image: (finding, float (n, 2) of x, y as fractions of the
            side).
        image_size: side of the masks, pixels.
    """

    polygons: Mapping[str, list[tuple[int, np.ndarray]]]
    image_size: int

    def __call__(self, image_id: str) -> np.ndarray:
        """The masks of an image, bool (14, image_size, image_size); of any other, none is set."""
        masks = np.zeros((len(FINDINGS), self.image_size, self.image_size), bool)
        for finding, polygon in self.polygons.get(image_id, []):
            masks[finding] |= fill(polygon * self.image_size, self.image_size)
        return masks


def rsna(folder: Path | str) -> Rsna:
    """Read ``rsna_boxes.csv`` and ``rsna_class.csv``.

    Raises:
        OSError: the folder or a file is absent.
        ValueError: a file cannot be read, lacks a column, has an image twice, an unknown class or a
            bad box, or a box on an image of another class; names the rows and the mend.
    """
    layout = "expected a folder with rsna_boxes.csv and rsna_class.csv"
    folder = open_folder(folder, layout)
    path = find_one(folder, "rsna_class.csv", layout)
    table = read_csv(path, ["image_id", "rsna_class"], _RESTORE)
    ids = stems(table["image_id"])
    refuse(path, ids[ids.duplicated()], "an image that already has a row", "delete one row")
    refuse_unknown(path, ids, table["rsna_class"], _rsna_class)
    opaque = ids[table["rsna_class"] == RSNA_CLASSES[2]]
    path = find_one(folder, "rsna_boxes.csv", layout)
    boxes, labels = _read_boxes(path, lambda name: finding_index(RSNA_FINDING))
    refuse_unknown(path, boxes["image_id"], labels, _rsna_box)
    lost = boxes["image_id"][~boxes["image_id"].isin(opaque)]
    refuse(path, lost, f"an image that is not {RSNA_CLASSES[2]!r} in rsna_class.csv", _RESTORE)
    return Rsna(_in_frame(path, boxes), table.set_index(ids)["rsna_class"])


def chestxdet(folder: Path | str, image_size: int) -> ChestXDet:
    """Read ``chestxdet_boxes.csv`` and ``chestxdet_polygons.json``.

    Args:
        folder: where they are.
        image_size: side of the masks, pixels; any.

    Raises:
        OSError: the folder or a file is absent.
        ValueError: a file cannot be read, has an unknown class or a bad box or outline, or the two
            do not list the same boxes.
    """
    layout = "expected a folder with chestxdet_boxes.csv and chestxdet_polygons.json"
    folder = open_folder(folder, layout)
    path = find_one(folder, "chestxdet_boxes.csv", layout)
    boxes, labels = _read_boxes(path, _chestxdet_finding)
    entries = _read_polygons(find_one(folder, "chestxdet_polygons.json", layout))
    pairs = pd.Series([*zip(boxes["image_id"], labels, strict=True)], boxes.index)
    if sorted(pairs) != sorted((image_id, label) for image_id, label, _ in entries):
        raise ValueError(
            f"{path} and chestxdet_polygons.json beside it do not list the same findings of the "
            f"same images; {_RESTORE} and the other"
        )
    polygons: dict[str, list[tuple[int, np.ndarray]]] = {}
    for image_id, label, polygon in entries:
        if label not in NOT_OURS:
            found = (_chestxdet_finding(label), polygon / FRAME)
            polygons.setdefault(image_id, []).append(found)
    other = labels.isin(NOT_OURS)
    kept = _in_frame(path, boxes)[~other.to_numpy()].reset_index(drop=True)
    return ChestXDet(kept, Outlines(polygons, image_size), dict(Counter(labels[other])))


def with_truth(
    dataset: CXRDataset,
    boxes: pd.DataFrame,
    masks: Callable[[str], np.ndarray] | None = None,
) -> CXRDataset:
    """The same images with another truth of where findings are; labels stay.

    Args:
        dataset: whose images.
        boxes: columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`; replaces all of the dataset's.
        masks: image id -> bool (14, image_size, image_size); replaces the dataset's.

    Raises:
        ValueError: a box is on an image that the dataset does not have; names the first few.

    >>> ids = np.array(["a", "b"])
    >>> none = pd.DataFrame(columns=["image_id", "finding", "x0", "y0", "x1", "y1"])
    >>> data = CXRDataset("demo", ids, ids, np.zeros((2, 14)), none, 4, lambda name: None)
    >>> found = pd.DataFrame([["b", 6, 0.0, 0.0, 0.5, 0.5]], columns=none.columns)
    >>> with_truth(data, found).boxes["image_id"].tolist()
    ['b']
    """
    names = boxes["image_id"]
    unknown = names[~names.isin(dataset.image_ids)].unique()
    if len(unknown):
        raise ValueError(
            f"boxes on {len(unknown)} images that are not among the {len(dataset)} of "
            f"{dataset.name!r}, such as {', '.join(unknown[:3])}; keep those that are: "
            "boxes[boxes['image_id'].isin(dataset.image_ids)]"
        )
    return CXRDataset(
        dataset.name,
        dataset.image_ids,
        dataset.patient_ids,
        dataset.labels,
        boxes,
        dataset.image_size,
        dataset.read_pixels,
        masks,
        dataset.views,
        dataset.read_original,
    )


def fill(polygon: np.ndarray, size: int) -> np.ndarray:
    """The pixels whose centres are inside a polygon, by the even-odd rule.

    Pillow's own filling adds the outline, which at 64 px makes the outlines of ChestX-Det 10 %
    too large.

    Args:
        polygon: (n, 2), x and y of the corners, pixels; closed by itself.
        size: side of the result, pixels.

    Returns:
        bool (size, size).

    >>> fill(np.array([[0, 0], [2, 0], [2, 1], [0, 1]]), 3).astype(int).tolist()
    [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    """
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    centre = np.arange(size) + 0.5
    edge, row = np.nonzero((y0[:, None] <= centre) != (y1[:, None] <= centre))  # (crossings,)
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (centre[row] - y0[edge]) * slope
    # A crossing turns the pixels to the right of it in or out.
    turns = np.zeros((size, size + 1), np.int64)
    np.add.at(turns, (row, np.ceil(x - 0.5).astype(int).clip(0, size)), 1)
    return turns.cumsum(axis=1)[:, :size] % 2 == 1


def _read_boxes(path: Path, finding: Callable[[str], int]) -> tuple[pd.DataFrame, pd.Series]:
    """Boxes in the 1024 px frame, and what the file calls them; indexed by row."""
    table = read_csv(path, ["image_id", "label", *_SIDES], _RESTORE)
    ids = stems(table["image_id"])
    refuse_unknown(path, ids, table["label"], finding)
    sides = table[_SIDES].apply(pd.to_numeric, errors="coerce")
    x, y, width, height = (sides[name] for name in _SIDES)
    corners = pd.DataFrame(dict(zip(CORNERS, (x, y, x + width, y + height), strict=True)))
    return pixel_boxes(path, ids, table["label"].map(finding), corners, _RESTORE), table["label"]


def _in_frame(path: Path, boxes: pd.DataFrame) -> pd.DataFrame:
    shapes = dict.fromkeys(boxes["image_id"], (FRAME, FRAME))
    return fit_boxes(path, boxes, shapes, _RESTORE)


def _read_polygons(path: Path) -> list[tuple[str, str, np.ndarray]]:
    """Image, label and outline in the 1024 px frame, (n, 2), of each entry."""
    with reading(path, _RESTORE):
        entries = json.loads(path.read_text("utf-8-sig"))
        return [_polygon(number, entry) for number, entry in enumerate(entries, start=1)]


def _polygon(number: int, entry: Any) -> tuple[str, str, np.ndarray]:
    try:
        outline = np.array(entry["polygon_xy_1024"], float)
        good = outline.shape[1:] == (2,) and len(outline) > 2
        good = good and bool(((outline >= 0) & (outline <= FRAME)).all())
        found = Path(entry["image_id"]).stem, str(entry["label"]), outline
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"entry {number} has no image_id, label and outline in {FRAME} px")
    return found


def _chestxdet_finding(name: str) -> int:
    # A box without a counterpart needs some index until it is dropped.
    return 0 if name in NOT_OURS else finding_index(name)


def _rsna_class(name: str) -> None:
    if name not in RSNA_CLASSES:
        raise ValueError(f"{name!r} is not one of {', '.join(RSNA_CLASSES)}")


def _rsna_box(name: str) -> None:
    if name != RSNA_CLASSES[2]:
        raise ValueError(f"{name!r} is not {RSNA_CLASSES[2]!r}")
