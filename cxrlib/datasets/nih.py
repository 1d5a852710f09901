"""ChestX-ray14 (NIH): official tables, split lists, boxes and images, as one folder holds them.

Source: Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases", CVPR 2017.
"""

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split, split_patients
from cxrlib.datasets.images import Reader, find_images
from cxrlib.datasets.parts import check_arguments, divide
from cxrlib.datasets.splits import folds
from cxrlib.datasets.tables import (
    find_one,
    open_folder,
    read_csv,
    reading,
    refuse,
    refuse_unknown,
    stems,
)
from cxrlib.findings import encode_labels, finding_index

HOME = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
FRAME = 1024
"""Side, in pixels, of the frame of the official boxes, whatever the size of the stored image."""

_LAYOUT = (
    "expected a folder with Data_Entry_2017*.csv, train_val_list.txt, test_list.txt, "
    "BBox_List_2017.csv and images/ (or images_001/images/ ... images_012/images/); "
    f"get them from {HOME}"
)
_RESTORE = f"restore it from {HOME}"


@dataclass(frozen=True, slots=True)
class Tables:
    """What the official tables say.

    Attributes:
        images: one row per image: ``image_id`` (no suffix), ``patient_id``, ``split``
            (``"train_val"`` or ``"test"``) and ``view`` (``"PA"``, ``"AP"``, or ``""`` where the
            table does not say), all strings.
        labels: float32 (N, 14), 0/1, in the order of ``images``.
        boxes: columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`.
        path: the image table these were read from.
    """

    images: pd.DataFrame
    labels: np.ndarray
    boxes: pd.DataFrame
    path: Path


def read_tables(data_dir: Path | str) -> Tables:
    """Read the image table, both official lists and the box table; needs no images.

    Both official spellings of each header are read, and each file may be gzipped.

    Args:
        data_dir: the folder of the release.

    Raises:
        OSError: the folder or one of its files is absent.
        ValueError: a file cannot be read, lacks a column, or disagrees with itself or another;
            the message names the file, the first rows and the mend.
    """
    folder = open_folder(data_dir, _LAYOUT)
    path = find_one(folder, "Data_Entry_2017*.csv", _LAYOUT)
    needed = ["Image Index", "Finding Labels", "Patient ID"]
    table = read_csv(path, needed, _RESTORE, optional=["View Position"])
    ids = stems(table["Image Index"])
    refuse(path, ids[ids.duplicated()], "an image that already has a row", "delete one row")
    images = {
        "image_id": ids,
        "patient_id": table["Patient ID"],
        "split": _split(folder, path, ids),
        "view": table.get("View Position", ""),
    }
    refuse_unknown(path, ids, table["Finding Labels"], lambda text: encode_labels([text]))
    labels = encode_labels(table["Finding Labels"])
    boxes = _read_boxes(find_one(folder, "BBox_List_2017*.csv", _LAYOUT), path, ids)
    return Tables(pd.DataFrame(images).reset_index(drop=True), labels, boxes, path)


def load(
    data_dir: Path | str,
    image_size: int,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    limit_train: int | None = None,
    fold: tuple[int, int] | None = None,
    cache: bool = True,
) -> Split:
    """ChestX-ray14 in its official split, every image file checked.

    Test is the official test list. The official train_val list, less every patient with a box,
    is divided by patient into train and val. Where only some of the twelve archives are there, as
    ``images_001`` and so on, the images of the others are left out, which a note says. The data
    hash covers the names, labels, boxes and file sizes of the images used, not their contents:
    those are 42 GB.

    Args:
        data_dir: the folder of the release.
        image_size: H = W of the samples, 32 to 1024 pixels.
        seed: of the choice of validation patients, and of the images ``limit_train`` keeps.
        val_fraction: share of the train_val patients that become val.
        limit_train: train on this many images only, and validate on a fifth as many; test stays.
        fold: (i, k) makes fold i, 0 to k - 1, of k folds of the train_val patients val;
            ``val_fraction`` has no use then.
        cache: keep the resized images in the user's cache, where all of them take 7.3 GB at 256 px
            and 29.4 GB at 512 px; else each is decoded whenever it is read.

    Raises:
        OSError: a file is absent, an image is empty, truncated or no PNG or JPEG, or the cache
            cannot be written.
        ValueError: an argument is out of range, a table is wrong, a part would be empty, or a
            patient is in two parts.
    """
    _check_arguments(image_size, val_fraction, limit_train, fold)
    folder, tables = open_folder(data_dir, _LAYOUT), read_tables(data_dir)
    tables, archives = _downloaded(folder, tables)
    parts, notes = _choose_parts(tables, seed, val_fraction, limit_train, fold)
    paths = find_images(folder)
    mend = (
        f"restore it from {HOME}, or delete its row from {tables.path} and its name from the list "
        "and box tables beside it"
    )
    reader = Reader(paths, image_size, mend, frame=FRAME)
    dataset = CXRDataset(
        "nih",
        tables.images["image_id"].to_numpy(),
        tables.images["patient_id"].to_numpy(),
        tables.labels,
        tables.boxes,
        image_size,
        reader,
        views=tables.images["view"].to_numpy(),
        read_original=reader.original,
    )
    return divide(dataset, reader, parts, (*notes, *archives), folder, cache)


def parts_table() -> pd.DataFrame:
    """What each part of the release brings; the index is the part, 1 to 12.

    The archives hold the images in the order of their names: 4,999 in the first, 7,121 in the last
    and 10,000 in each other, as the README of the release's edition on Kaggle lists them. Public
    code that must know in which folder an image lies changes folders at the same names.

    Returns:
        columns first (name of its first image), images, train_val, test (images of the official
        lists), boxed_images, boxes, bytes (of the archive), md5, link.

    >>> table = parts_table()
    >>> int(table["images"].sum()), int(table["boxes"].sum())
    (112120, 984)
    >>> table.loc[12, ["images", "train_val", "test"]].tolist()
    [7121, 3529, 3592]
    """
    path = resources.files("cxrlib.datasets") / "nih_parts.csv"
    with resources.as_file(path) as file:
        return pd.read_csv(file, index_col="part")


def _downloaded(folder: Path, tables: Tables) -> tuple[Tables, tuple[str, ...]]:
    """The tables of the archives that are there, and a note if some are not.

    An archive counts as absent only as a whole: one that lacks a single image is damaged.
    """
    here = [int(place.name[7:]) for place in folder.glob("images_[0-9][0-9][0-9]")]
    if not here or (folder / "images").exists():
        return tables, ()
    first = parts_table()["first"].to_numpy(str)
    ids = tables.images["image_id"].to_numpy(str)
    archive = np.searchsorted(first, ids, side="right")  # (N,), 1 to 12
    kept = np.isin(archive, here)
    if kept.all():
        return tables, ()
    boxes = tables.boxes[tables.boxes["image_id"].isin(ids[kept])]
    names = ", ".join(map(str, sorted(here)))
    note = f"only archives {names} of {len(first)} are there: {(~kept).sum()} images left out"
    images = tables.images[kept].reset_index(drop=True)
    return Tables(images, tables.labels[kept], boxes, tables.path), (note,)


def _check_arguments(
    image_size: int, val_fraction: float, limit_train: int | None, fold: tuple[int, int] | None
) -> None:
    check_arguments(image_size, val_fraction)
    if limit_train is not None and limit_train < 1:
        raise ValueError(f"limit_train is {limit_train}; give a number of images, or None for all")
    if fold is not None and not 0 <= fold[0] < fold[1]:
        raise ValueError(f"fold is {fold}; give (i, k), fold i of k, with i from 0 to k - 1")


def _choose_parts(
    tables: Tables,
    seed: int,
    val_fraction: float,
    limit_train: int | None,
    fold: tuple[int, int] | None,
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    images = tables.images
    patients = images["patient_id"].to_numpy(str)
    test = (images["split"] == "test").to_numpy()
    boxed = np.isin(patients, patients[images["image_id"].isin(tables.boxes["image_id"])])
    rest = np.flatnonzero(~test & ~boxed)
    share, is_val = _choose_val(patients[rest], seed, val_fraction, fold)
    parts = [rest[~is_val], rest[is_val], np.flatnonzero(test)]
    notes = [f"official lists; val is {share} of the train_val patients, seed {seed}"]
    if dropped := int((~test & boxed).sum()):
        notes.append(f"{dropped} train_val images left out because their patients have boxes")
    _refuse_empty(parts, tables.path.parent, notes)
    if limit_train is not None:
        for part, limit in enumerate((limit_train, max(1, limit_train // 5))):
            parts[part] = _some(parts[part], patients, limit, seed)
        notes.append(
            f"limit_train {limit_train}: {len(parts[0])} train, {len(parts[1])} val images"
        )
    return parts, tuple(notes)


def _choose_val(
    patients: np.ndarray, seed: int, val_fraction: float, fold: tuple[int, int] | None
) -> tuple[str, np.ndarray]:
    if fold is None:
        return f"{val_fraction:.0%}", split_patients(patients, val_fraction, seed)
    return f"fold {fold[0]} of {fold[1]}", folds(patients, fold[1], seed) == fold[0]


def _refuse_empty(parts: Sequence[np.ndarray], folder: Path, notes: Sequence[str]) -> None:
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        if not len(part):
            source = "test_list.txt" if name == "test" else "train_val_list.txt"
            raise ValueError(
                f"no image is left for {name!r}: {folder / source} lists too few patients "
                f"({'; '.join(notes)}); add images to the list, or change val_fraction"
            )


def _some(part: np.ndarray, patients: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """The first images of a shuffle that keeps patients together; a smaller limit is a subset."""
    names, which = np.unique(patients[part], return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))[which]
    return np.sort(part[np.argsort(rank, kind="stable")[:limit]])


def _read_list(path: Path) -> pd.Series:
    with reading(path, _RESTORE), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        names = file.read().decode("utf-8-sig").split()
    return stems(pd.Series(names, pd.RangeIndex(1, len(names) + 1), dtype="str"))


def _split(folder: Path, table: Path, ids: pd.Series) -> np.ndarray:
    paths = [find_one(folder, name, _LAYOUT) for name in ("train_val_list.txt", "test_list.txt")]
    train_val, test = map(_read_list, paths)
    both = test[test.isin(train_val)]
    refuse(paths[1], both, f"an image that is also in {paths[0]}", "delete it from one list")
    for path, listed in zip(paths, (train_val, test), strict=True):
        lost = listed[~listed.isin(ids)]
        refuse(path, lost, f"an image without a row in {table}", "add its row, or delete it here")
    is_test = ids.isin(test)
    free = ids[~is_test & ~ids.isin(train_val)]
    refuse(table, free, f"an image in neither {paths[0].name} nor {paths[1].name}", "list it")
    return np.where(is_test, "test", "train_val")


def _short(name: str) -> str:
    """Both official headers, ``Bbox [x,y,w,h],,,`` and ``Bbox x,Bbox y,...``, become x, y, w, h."""
    return re.sub(r"^Bbox\b|[\[\]]", "", name)


def _read_boxes(path: Path, table: Path, ids: pd.Series) -> pd.DataFrame:
    boxes = read_csv(path, ["Image Index", "Finding Label", *"xywh"], _RESTORE, rename=_short)
    names = stems(boxes["Image Index"])
    refuse(path, names[~names.isin(ids)], f"an image without a row in {table}", "delete them")
    refuse_unknown(path, names, boxes["Finding Label"], finding_index)
    x, y, w, h = boxes[[*"xywh"]].apply(pd.to_numeric, errors="coerce").to_numpy(float).T
    corners = np.stack([x, y, x + w, y + h], axis=1)  # (n, 4)
    # One pixel of tolerance for rounding; written so that NaN is refused too.
    inside = (corners > -1).all(axis=1) & (corners < FRAME + 1).all(axis=1) & (w > 0) & (h > 0)
    refuse(path, names[~inside], f"a box outside the {FRAME} px frame or not a number", _RESTORE)
    found = boxes["Finding Label"].map(finding_index).to_numpy()
    columns = [names.to_numpy(), found, *(corners / FRAME).clip(0, 1).T]
    return pd.DataFrame(dict(zip(BOX_COLUMNS, columns, strict=True)))
