"""Patients made of the phantom, as a dataset: drawn, rendered once into the user's cache, split.

Everything follows from (seed, index, size): the same index at two sizes is the same patient on the
same day, and a longer dataset begins with the shorter one.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from scipy import ndimage

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split, split_patients
from cxrlib.datasets.rows import Rows, npy_header
from cxrlib.files import cache_dir, digest, explain_os_error
from cxrlib.findings import FINDINGS
from cxrlib.phantom.controls import Controls, controls_of
from cxrlib.phantom.population import Radiograph, check_size, labels_of, patient_of, render_some
from cxrlib.progress import track

VERSION = 3
"""Changes with every change of what the phantom looks like, so that no cache is stale."""


def mask_boxes(mask: np.ndarray, least: float = 0.05) -> np.ndarray:
    """Boxes around the connected parts of a mask.

    Args:
        mask: bool (H, W).
        least: parts below this share of the mask's area get no box.

    Returns:
        float64 (n, 4), xyxy half-open pixel edges.

    >>> mask_boxes(np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool)).tolist()
    [[0.0, 0.0, 2.0, 1.0], [3.0, 1.0, 4.0, 2.0]]
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = ndimage.sum_labels(mask, parts, np.arange(1, count + 1))
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for (rows, columns), area in zip(ndimage.find_objects(parts), areas, strict=True)
        if area >= least * mask.sum()
    ]
    return np.array(boxes, float).reshape(-1, 4)


def load(
    image_size: int,
    *,
    n_train: int = 2400,
    n_val: int = 240,
    n_test: int = 480,
    seed: int = 0,
    **options: Any,
) -> Split:
    """The phantom's patient-disjoint split, rendered on first use into the user's cache.

    Only the test part has masks and boxes: training sees image labels alone, and only they are
    noisy where ``label_noise`` says so.

    Args:
        image_size: pixels per side, 64 to 1024.
        n_train, n_val, n_test: about how many images; patients stay whole.
        seed: of the population and of the split.
        options: the experiment, see :class:`cxrlib.phantom.controls.Controls`.

    Raises:
        ValueError: an argument is out of its range.
        OSError: the cache cannot be written; the message names the place and the mend.
    """
    check_size(image_size)
    controls = controls_of(**options)
    total = n_train + n_val + n_test
    dials = asdict(controls)
    if not controls.pacemaker:  # younger than the others: populations without it keep their hash
        del dials["pacemaker"]
    recipe = dict(version=VERSION, size=image_size, images=total, seed=seed, controls=dials)
    patients = np.array([f"P{patient_of(index):05d}" for index in range(total)])
    test = split_patients(patients, n_test / total, seed)
    val = ~test & split_patients(np.where(test, "", patients), n_val / (n_train + n_val), seed + 1)
    folder = _rendered(recipe, test)
    labels = np.load(folder / "labels.npy")
    boxes = pd.read_csv(folder / "boxes.csv", dtype={"image_id": str})
    image_ids = np.array([f"{index:06d}" for index in range(total)])
    ap = [labels_of(index, seed, controls)[1] for index in range(total)]
    views = np.where(ap, "AP", "PA")
    read_pixels = Rows(folder / "pixels.npy", image_ids)
    read_masks = _ReadMasks(Rows(folder / "masks.npy", image_ids[test]))

    def part(chosen: np.ndarray, with_truth: bool) -> CXRDataset:
        return CXRDataset(
            "phantom",
            image_ids[chosen],
            patients[chosen],
            labels[chosen],
            boxes if with_truth else boxes[:0],
            image_size,
            read_pixels,
            read_masks if with_truth else None,
            views[chosen],
        )

    split = Split(
        part(~test & ~val, False),
        part(val, False),
        part(test, True),
        data_hash=digest(json.dumps(recipe, sort_keys=True), labels.tobytes()),
        notes=(
            "Digital phantom, not patients: the numbers compare methods, they diagnose nobody.",
        ),
    )
    split.refuse_leaks()
    return split


@dataclass(frozen=True)
class _ReadMasks:
    """The masks of the test images, which are stored as bits."""

    rows: Rows

    def __call__(self, image_id: str) -> np.ndarray:
        packed = self.rows(image_id)  # (14, size, size / 8)
        return np.unpackbits(packed, axis=-1, count=packed.shape[-2]).astype(bool)


def _rendered(recipe: dict[str, Any], with_masks: np.ndarray) -> Path:
    """The folder of the rendered images; made in a temporary one, so it is whole or absent."""
    name = "phantom-" + digest(json.dumps(recipe, sort_keys=True), with_masks.tobytes())
    folder = cache_dir() / name
    if folder.is_dir():
        return folder
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        _render_all(temporary, recipe, with_masks)
        temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker, with the same bytes
            raise explain_os_error(error, folder) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _render_all(folder: Path, recipe: dict[str, Any], with_masks: np.ndarray) -> None:
    size, total = recipe["size"], recipe["images"]
    labels, rows = [], []
    # Written as streams: a disk that fills up is then an error, not a crash as with a memory map.
    with open(folder / "pixels.npy", "wb") as pixels, open(folder / "masks.npy", "wb") as masks:
        pixels.write(npy_header(total, size, size))
        masks.write(npy_header(int(with_masks.sum()), len(FINDINGS), size, -(-size // 8)))
        for index, image in enumerate(track(_images(recipe), "drawing the phantom", total)):
            pixels.write(image.pixels.tobytes())
            labels.append(image.labels if with_masks[index] else image.training_labels)
            if with_masks[index]:
                masks.write(np.packbits(image.masks, axis=-1).tobytes())
                rows += [
                    (f"{index:06d}", finding, *box / size)
                    for finding in np.flatnonzero(image.labels)
                    for box in mask_boxes(image.masks[finding])
                ]
    np.save(folder / "labels.npy", np.array(labels))
    pd.DataFrame(rows, columns=BOX_COLUMNS).to_csv(folder / "boxes.csv", index=False)


def _images(recipe: dict[str, Any]) -> Iterator[Radiograph]:
    """All images in order, rendered by all cores."""
    size, seed, total = recipe["size"], recipe["seed"], recipe["images"]
    controls = Controls(**recipe["controls"])
    tasks = (
        joblib.delayed(render_some)(range(start, min(start + 32, total)), size, seed, controls)
        for start in range(0, total, 32)
    )
    for images in joblib.Parallel(n_jobs=-1, return_as="generator")(tasks):
        yield from images
