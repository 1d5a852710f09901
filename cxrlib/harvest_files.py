"""Mined boxes as files for other programs: a tidy table, and a document in COCO's format.

Corners are in pixels of the original images, also where these are oblong.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib import __version__
from cxrlib.checkpoints import Trained
from cxrlib.datasets.base import CXRDataset, Original, Split
from cxrlib.datasets.boxes import CORNERS, original_boxes
from cxrlib.findings import FINDINGS
from cxrlib.harvest import harvest_model, refuse_share
from cxrlib.parameters import nearest
from cxrlib.progress import track

ALL = "all"
"""Every part of a split."""


@dataclass(frozen=True)
class Harvest:
    """Mined boxes to keep, with where they come from.

    Attributes:
        boxes: a row per box: ``image_id``, ``finding`` (its name), ``x0``, ``y0``, ``x1``, ``y1``
            in pixels of the original image, half-open, and ``score``, 0 to 1.
        images: a row per image that was looked through, also of those without boxes: ``image_id``,
            ``part``, ``file`` (relative to the dataset's folder), ``height``, ``width`` (pixels).
        provenance: what decides the boxes: run, model, dataset, data_hash, split_hash, image_size,
            share, version.
    """

    boxes: pd.DataFrame
    images: pd.DataFrame
    provenance: dict[str, Any]

    @classmethod
    def of_run(
        cls,
        run: Trained,
        split: Split,
        part: str = ALL,
        share: float = 0.5,
        *,
        folder: Path | str = "",
        accelerator: str = "auto",
        num_workers: int = 0,
    ) -> "Harvest":
        """Mine boxes with the model of a finished run.

        Args:
            run: from :func:`cxrlib.checkpoints.load_model`.
            split: the dataset, in images of the run's size.
            part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
            share: of :func:`cxrlib.harvest.harvest`.
            folder: of the dataset, for the names of the files.
            accelerator, num_workers: of :func:`cxrlib.inference.predict`.

        Raises:
            ValueError: there is no such part, none of its images has a finding, or the share is
                out of range.
            OSError: an image cannot be read.
        """
        refuse_share(share)
        if part not in (*split.parts, ALL):
            raise ValueError(f"no part {part!r}; {nearest(part, [*split.parts, ALL])}")
        chosen = {name: data for name, data in split.parts.items() if part in (name, ALL)}
        _refuse_unlabelled(part, chosen)
        images = pd.concat(
            [_images(data, folder).assign(part=name) for name, data in chosen.items()]
        )
        batches = {"batch_size": run.params["batch_size"], "accelerator": accelerator}
        mined = [
            harvest_model(run.model, data, share, **batches, num_workers=num_workers)
            for data in chosen.values()
            if (data.labels == 1).any()
        ]
        provenance = {
            "run": run.key,
            "model": type(run.model).__name__,
            "dataset": split.train.name,
            "data_hash": split.data_hash,
            "split_hash": split.split_hash,
            "image_size": split.train.image_size,
            "share": share,
            "version": __version__,
        }
        images = images.reset_index(drop=True)
        return cls(in_pixels(pd.concat(mined), images), images, provenance)

    def __str__(self) -> str:
        found = self.boxes["image_id"].nunique()
        return f"{len(self.boxes)} boxes on {found} of {len(self.images)} images"

    def to_csv(self) -> pd.DataFrame:
        """The boxes, each with the part of its image and the provenance."""
        part = self.images.set_index("image_id")["part"]
        return self.boxes.assign(part=self.boxes["image_id"].map(part), **self.provenance)

    def to_coco(self) -> dict[str, Any]:
        """A COCO document: ids count from 1, a finding's is its place among the 14.

        ``score`` and an image's ``part`` are not in COCO's format, whose readers pass over them.
        """
        images = self.images.rename(columns={"file": "file_name"}).drop(columns="image_id")
        images.insert(0, "id", np.arange(1, len(images) + 1))
        place = pd.Series(images["id"].to_numpy(), self.images["image_id"])
        low, size = _spans(self.boxes)
        annotations = pd.DataFrame(
            {
                "id": np.arange(1, len(self.boxes) + 1),
                "image_id": self.boxes["image_id"].map(place).astype(int),
                "category_id": self.boxes["finding"].map(FINDINGS.index).astype(int) + 1,
                "bbox": np.hstack([low, size]).tolist(),
                "area": size.prod(axis=1),
                "iscrowd": 0,
                "score": self.boxes["score"],
            }
        )
        about = "Boxes mined from image labels by a model; score: probability times peak of the map"
        return {
            "info": {"description": about, **self.provenance},
            "images": images.to_dict("records"),
            "annotations": annotations.to_dict("records"),
            "categories": [
                {"id": index, "name": name, "supercategory": "finding"}
                for index, name in enumerate(FINDINGS, start=1)
            ],
        }


def in_pixels(boxes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Boxes of the padded square on the original images, and findings by their names.

    Args:
        boxes: with the columns of :data:`cxrlib.harvest.COLUMNS`.
        images: ``image_id``, ``height`` and ``width`` (pixels) of each.

    Returns:
        the same columns; what lies on the padding is cut off, and boxes there alone are left out.

    >>> from cxrlib.harvest import COLUMNS
    >>> boxes = pd.DataFrame([["a", 4, 0.0, 0.0, 0.25, 0.5, 0.9]], columns=COLUMNS)
    >>> images = pd.DataFrame({"image_id": ["a"], "height": [100], "width": [200]})
    >>> in_pixels(boxes, images).to_numpy().tolist()
    [['a', 'Mass', 0.0, 0.0, 50.0, 50.0, 0.9]]
    """
    heights, widths = (
        images.set_index("image_id").loc[boxes["image_id"], ["height", "width"]].to_numpy().T
    )
    corners = original_boxes(boxes[CORNERS].to_numpy(float), heights, widths)
    named = boxes.assign(finding=np.array(FINDINGS)[boxes["finding"].to_numpy(int)])
    named[CORNERS] = corners
    _, size = _spans(named)
    return named.iloc[np.flatnonzero((size > 0).all(axis=1))].reset_index(drop=True)


def _spans(boxes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Left and top, and width and height, (n, 2) each."""
    corners = boxes[CORNERS].to_numpy(float)
    return corners[:, :2], corners[:, 2:] - corners[:, :2]


def _images(dataset: CXRDataset, folder: Path | str) -> pd.DataFrame:
    """Names and sizes of the original files; those of images without one, as they are exported."""
    ids, size = dataset.image_ids.tolist(), dataset.image_size
    if dataset.read_original is None:
        found = [Original(f"{image_id}.png", size, size) for image_id in ids]
    else:
        with ThreadPoolExecutor(8) as pool:
            each = pool.map(dataset.read_original, ids)
            found = [*track(each, "reading sizes of images", len(ids))]
        found = [o._replace(path=Path(os.path.relpath(o.path, folder)).as_posix()) for o in found]
    table = pd.DataFrame(found, columns=["file", "height", "width"])
    table.insert(0, "image_id", ids)
    return table


def _refuse_unlabelled(part: str, chosen: dict[str, CXRDataset]) -> None:
    if not any((data.labels == 1).any() for data in chosen.values()):
        count = sum(map(len, chosen.values()))
        raise ValueError(
            f"none of the {count} images of {part!r} is labelled with a finding; boxes are mined "
            "for findings that the labels say are present: label them 1, or choose another --part"
        )
