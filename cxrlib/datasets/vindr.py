"""VinDr-CXR: radiographs read by three radiologists each, as PhysioNet or VinBigData released them.

Source: Nguyen et al., "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations",
Scientific Data 2022.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.datasets.base import CXRDataset, Split, split_patients
from cxrlib.datasets.boxes import fit_boxes, pixel_boxes, read_shapes
from cxrlib.datasets.images import Reader, find_images
from cxrlib.datasets.parts import check_arguments, divide
from cxrlib.datasets.tables import find_one, open_folder, read_csv, refuse, refuse_unknown
from cxrlib.findings import FINDINGS, finding_index

HOME = "https://physionet.org/content/vindr-cxr"
READERS = 3
"""Radiologists who read each training image; test images have one consensus."""

AGREEING = {"union": 1, "majority": 2}
"""Readers of a training image who must have marked a finding for its label to be 1."""

IN_BOTH = [
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Infiltration",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
]
"""Classes of both releases that are findings of ours."""

OURS = [*IN_BOTH, "Edema", "Emphysema", "Pneumonia"]
"""The same of PhysioNet's release."""

EITHER = "Nodule/Mass"
"""May be either: where it is marked, Nodule and Mass are unknown, and its boxes are not used."""

OTHERS = (
    "Aortic enlargement",
    "Calcification",
    "Clavicle fracture",
    "COPD",
    "Enlarged PA",
    "ILD",
    "Lung cavity",
    "Lung cyst",
    "Lung Opacity",
    "Lung tumor",
    "Mediastinal shift",
    "Other disease",
    "Other diseases",
    "Other lesion",
    "Rib fracture",
    "Tuberculosis",
)
"""Classes without a counterpart among our findings."""

NO_FINDING = "No finding"
TEST_FRACTION = 0.2
"""Share of the images that become test where there is no official test part: 3,000 of 15,000."""

_CORNERS = ["x_min", "y_min", "x_max", "y_max"]
_LAYOUT = (
    "expected a folder with annotations/ (image_labels_train.csv, image_labels_test.csv, "
    "annotations_test.csv), train/ and test/, as PhysioNet has it, or with train.csv and train/, "
    f"as VinBigData has it; get them from {HOME}"
)
_RESTORE = f"restore it from {HOME}"


@dataclass(frozen=True, slots=True)
class Tables:
    """What the tables say.

    Attributes:
        images: one row per image, strings: ``image_id``, and ``split``: ``"train"`` or ``"test"``,
            or ``""`` where there is no official split.
        labels: float32 (N, 14), 0, 1, or NaN for unknown.
        boxes: columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS` in pixels of the original
            images, all readers' boxes of the findings whose label is 1; the index is the row in
            the file. Those of the official training images are not read.
        unused: number of boxes of each class that has no counterpart, and of findings whose label
            is not 1.
        path: the table of the boxes.
    """

    images: pd.DataFrame
    labels: np.ndarray
    boxes: pd.DataFrame
    unused: dict[str, int]
    path: Path


def read_tables(data_dir: Path | str, readers: str = "union") -> Tables:
    """Read the tables of either release; needs no images.

    A finding is 1 where enough readers marked it, else 0. Findings that the release has no class
    for (Hernia, Mass and Nodule where Nodule/Mass is marked; in VinBigData also Edema, Emphysema
    and Pneumonia) are unknown, except that all 14 are 0 where "No finding" was the opinion of so
    many readers that too few are left to mark anything.

    Args:
        data_dir: the folder of the release.
        readers: ``"union"``, one of the three readers is enough, or ``"majority"``, two are needed.

    Raises:
        OSError: the folder or one of its files is absent.
        ValueError: ``readers`` is no such choice, or a file cannot be read, lacks a column, or
            disagrees with itself or another; names the file, the first rows and the mend.
    """
    if readers not in AGREEING:
        raise ValueError(f"readers is {readers!r}; give one of {', '.join(AGREEING)}")
    folder = open_folder(data_dir, _LAYOUT)
    if (folder / "annotations").is_dir():
        return _physionet(folder / "annotations", AGREEING[readers])
    return _vinbigdata(find_one(folder, "train.csv", _LAYOUT), AGREEING[readers])


def load(
    data_dir: Path | str,
    image_size: int,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    readers: str = "union",
    cache: bool = True,
) -> Split:
    """VinDr-CXR, padded to squares, every image file checked; only test images have boxes.

    PhysioNet's release is divided as published: 15,000 to train on, 3,000 to test. VinBigData's has
    no truth for its test images, so a fifth of the others is chosen at random. No release says
    which images are of one patient.

    Args:
        data_dir: the folder of the release; images are ``train/<image_id>.dicom`` (or ``.dcm``,
            ``.png``, ``.jpg``), and in the original size where boxes are to fit.
        image_size: H = W of the samples, 32 to 1024 pixels.
        seed: of the choice of the parts.
        val_fraction: share of the images not in test that become val.
        readers: see :func:`read_tables`.
        cache: keep the resized images in the user's cache, a byte for each pixel; else each is
            decoded whenever it is read.

    Raises:
        OSError: a file is absent, an image is damaged, or the cache cannot be written.
        ValueError: an argument is out of range, a table is wrong, a box is not in its image, or a
            part would be empty.
    """
    check_arguments(image_size, val_fraction)
    folder, tables = open_folder(data_dir, _LAYOUT), read_tables(data_dir, readers)
    ids = tables.images["image_id"].to_numpy(str)
    parts, notes = _choose_parts(tables, ids, seed, val_fraction)
    paths = find_images(folder, ("train", "test"))
    mend = f"restore it from {HOME}, or delete its rows from the tables in {tables.path.parent}"
    boxes = tables.boxes[tables.boxes["image_id"].isin(ids[parts[2]])]
    shapes = read_shapes([*boxes["image_id"].unique()], paths, mend)
    fit = "restore the original image, as boxes fit no other size"
    reader = Reader(paths, image_size, mend, pad=True)
    dataset = CXRDataset(
        "vindr",
        ids,
        ids,
        tables.labels,
        fit_boxes(tables.path, boxes, shapes, fit),
        image_size,
        reader,
        read_original=reader.original,
    )
    return divide(dataset, reader, parts, notes, folder, cache)


def _vinbigdata(path: Path, agreeing: int) -> Tables:
    table = read_csv(path, ["image_id", "class_name", "rad_id"], _RESTORE, optional=_CORNERS)
    ids, classes = table["image_id"], table["class_name"]
    refuse_unknown(path, ids, classes, _known)
    count = table.groupby("image_id")["rad_id"].transform("nunique")
    refuse(path, ids[count != READERS], f"an image without {READERS} readers", _RESTORE)
    healthy = classes == NO_FINDING
    contradicts = healthy.groupby([ids, table["rad_id"]]).transform("nunique") > 1
    refuse(path, ids[contradicts], "a reader who marks a finding and none", "delete one")
    votes = table.groupby(["image_id", "class_name"])["rad_id"].nunique().unstack(fill_value=0)
    votes = votes.reindex(columns=[*IN_BOTH, EITHER, NO_FINDING], fill_value=0)
    labels = _labels(votes, READERS, agreeing)
    images = pd.DataFrame({"image_id": votes.index.astype("str"), "split": ""})
    return Tables(images, labels, *_boxes(path, table, images, labels), path)


def _physionet(folder: Path, agreeing: int) -> Tables:
    train = _votes(find_one(folder, "image_labels_train.csv", _LAYOUT), READERS)
    path = find_one(folder, "image_labels_test.csv", _LAYOUT)
    test = _votes(path, 1)
    rows = pd.Series(test.index, pd.RangeIndex(2, len(test) + 2))
    refuse(path, rows[rows.isin(train.index)], "an image of the training part", "delete it")
    labels = np.concatenate([_labels(train, READERS, agreeing), _labels(test, 1, 1)])
    split = np.repeat(["train", "test"], [len(train), len(test)])
    images = pd.DataFrame({"image_id": [*train.index, *test.index], "split": split})
    path = find_one(folder, "annotations_test.csv", _LAYOUT)
    table = read_csv(path, ["image_id", "class_name"], _RESTORE, optional=_CORNERS)
    lost = table["image_id"][~table["image_id"].isin(test.index)]
    refuse(path, lost, "an image that image_labels_test.csv lacks", "add its row there")
    refuse_unknown(path, table["image_id"], table["class_name"], _known)
    return Tables(images, labels, *_boxes(path, table, images, labels), path)


def _votes(path: Path, readers: int) -> pd.DataFrame:
    """How many readers marked each class, by image."""
    names = [*OURS, EITHER, NO_FINDING]
    table = read_csv(path, ["image_id", *(["rad_id"] if readers > 1 else []), *names], _RESTORE)
    values = table[names].apply(pd.to_numeric, errors="coerce")
    wrong = ~values.isin([0, 1]).all(axis=1)
    refuse(path, table["image_id"][wrong], "a value that is not 0 or 1", _RESTORE)
    twice = table.drop(columns=names).duplicated()
    refuse(path, table["image_id"][twice], "a reading that already has a row", "delete one row")
    count = table.groupby("image_id")["image_id"].transform("size")
    refuse(path, table["image_id"][count != readers], f"not {readers} readers", _RESTORE)
    return values.groupby(table["image_id"], sort=False).sum()


def _labels(votes: pd.DataFrame, readers: int, agreeing: int) -> np.ndarray:
    labels = np.full((len(votes), len(FINDINGS)), np.nan, np.float32)
    for name in [name for name in OURS if name in votes]:
        labels[:, finding_index(name)] = votes[name] >= agreeing
    either = np.where(votes[EITHER] >= agreeing, np.nan, 0)
    labels[:, [finding_index("Nodule"), finding_index("Mass")]] = either[:, None]
    healthy = (votes[NO_FINDING] > readers - agreeing).to_numpy()
    labels[healthy[:, None] & np.isnan(labels)] = 0
    return labels


def _boxes(
    path: Path, table: pd.DataFrame, images: pd.DataFrame, labels: np.ndarray
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The boxes of findings that are present, and the number of the others by class."""
    if absent := [name for name in _CORNERS if name not in table]:
        raise ValueError(f"{path} lacks {absent}; {_RESTORE}")
    table = table[table["class_name"] != NO_FINDING]
    ours = table["class_name"].isin(OURS)
    found = table["class_name"].where(ours, "Mass").map(finding_index)
    boxes = pixel_boxes(path, table["image_id"], found, table[_CORNERS], _RESTORE)
    place = pd.Series(range(len(images)), images["image_id"])[boxes["image_id"]].to_numpy()
    present = labels[place, found.to_numpy()] == 1
    unused = Counter(table["class_name"][~ours])
    if disputed := int((ours & ~present).sum()):
        unused["findings too few readers marked"] = disputed
    return boxes[ours & present], dict(unused)


def _choose_parts(
    tables: Tables, ids: np.ndarray, seed: int, val_fraction: float
) -> tuple[list[np.ndarray], list[str]]:
    split = tables.images["split"].to_numpy(str)
    official = "test" in split
    test = split == "test" if official else split_patients(ids, TEST_FRACTION, seed)
    rest = np.flatnonzero(~test)
    is_val = split_patients(ids[rest], val_fraction, seed)
    origin = "the official one" if official else f"{TEST_FRACTION:.0%} of the images, seed {seed}"
    elsewhere = int((~tables.boxes["image_id"].isin(ids[test])).sum())
    unused = {**tables.unused, "findings in train and val": elsewhere}
    notes = [
        f"test is {origin}; val is {val_fraction:.0%} of the other images, seed {seed}",
        "no patients are published: each image counts as a patient of its own",
        "boxes not used: "
        + ", ".join(f"{count} of {name}" for name, count in sorted(unused.items())),
    ]
    return [rest[~is_val], rest[is_val], np.flatnonzero(test)], notes


def _known(name: str) -> None:
    if name not in {*OURS, *OTHERS, EITHER, NO_FINDING}:
        raise ValueError(f"{name!r} is no class of VinDr-CXR")
