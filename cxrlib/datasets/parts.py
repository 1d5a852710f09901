"""From a dataset and its parts to a checked split: what the loaders have in common."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split
from cxrlib.datasets.cache import cached
from cxrlib.datasets.images import Reader, verify
from cxrlib.files import digest


def check_size(image_size: int) -> None:
    """Refuse a size out of range.

    Raises:
        ValueError: it is not 32 to 1024 pixels.
    """
    if not 32 <= image_size <= 1024:
        raise ValueError(f"image_size is {image_size}; give 32 to 1024 pixels")


def check_arguments(image_size: int, val_fraction: float) -> None:
    """Refuse sizes and shares out of range.

    Raises:
        ValueError: ``image_size`` is not 32 to 1024, or ``val_fraction`` not between 0 and 1.
    """
    check_size(image_size)
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; give a share between 0 and 1, like 0.1")


def divide(
    dataset: CXRDataset,
    reader: Reader,
    parts: Sequence[np.ndarray],
    notes: Sequence[str],
    folder: Path,
    cache: bool,
) -> Split:
    """The split of a dataset into these parts, every image file checked.

    The data hash covers the names, labels, boxes and file sizes of the images used, not their
    contents.

    Args:
        dataset: all images; only those of ``test`` have boxes.
        reader: of the dataset's images; knows their files.
        parts: indices of train, val and test.
        notes: of the split.
        folder: of the release.
        cache: whether to keep the resized images, see :func:`cxrlib.datasets.cache.cached`.

    Raises:
        OSError: an image file is absent or damaged, or the cache cannot be written.
        ValueError: a part is empty, or a patient is in two parts.
    """
    train, val, test = (dataset.subset(part) for part in parts)
    used = dataset.subset(np.sort(np.concatenate([*parts])))
    plain = Split(train, val, test, data_hash="", notes=tuple(notes))
    if empty := plain.empty_part():
        raise ValueError(
            f"no image is left for {empty!r} of {folder} ({'; '.join(notes)}); add images of more "
            "patients, or change val_fraction"
        )
    plain.refuse_leaks()
    files = verify(used.image_ids, reader.paths, reader.mend)
    split = dataclasses.replace(plain, data_hash=_data_hash(used, files.sizes))
    return cached(split, folder, files) if cache else split


def _data_hash(used: CXRDataset, sizes: np.ndarray) -> str:
    order = np.argsort(used.image_ids)
    boxes = used.boxes.sort_values(BOX_COLUMNS).to_csv(index=False, float_format="%.6f")
    names = "\n".join(used.image_ids[order])
    return digest(names, used.labels[order].tobytes(), boxes, sizes[order].tobytes())
