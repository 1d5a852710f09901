"""CheXpert: frontal radiographs with labels of reports, and the boxes drawn for HAM.

Source: Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and
Expert Comparison", AAAI 2019.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split, split_patients
from cxrlib.datasets.boxes import fit_boxes, read_shapes
from cxrlib.datasets.ham import HamBoxes, parse_names, read_ham
from cxrlib.datasets.images import Reader
from cxrlib.datasets.parts import check_arguments, divide
from cxrlib.datasets.tables import find_one, open_folder, read_csv, refuse
from cxrlib.findings import FINDINGS, finding_index

HOME = "https://stanfordmlgroup.github.io/competitions/chexpert"
LABELS = (
    "Cardiomegaly",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
)
"""The labels that are findings of ours. The other seven have no counterpart: Lung Lesion is nodule,
mass and more; Lung Opacity is any of several findings; Pleural Other is more than thickening;
Enlarged Cardiomediastinum, Fracture, Support Devices and No Finding are none of the 14."""

UNCERTAIN = {"nan": np.nan, "zero": 0.0, "one": 1.0}
"""What a label of -1, uncertain, can become."""

_LAYOUT = (
    "expected a folder with train.csv, valid.csv, train/ and valid/ (and, where you have them, "
    f"test.csv or test_labels.csv with test/); get them from {HOME}"
)
_RESTORE = f"restore it from {HOME}"


@dataclass(frozen=True, slots=True)
class Tables:
    """What the official tables say of the frontal views.

    Attributes:
        images: one row per image, all strings: ``image_id`` (such as
            ``train/patient00001/study1/view1_frontal``), ``patient_id``, ``split`` (``"train"``,
            ``"valid"`` or ``"test"``), ``file``, below the folder, and ``projection`` (``"AP"``,
            ``"PA"``, ``"LL"`` or ``"RL"``; ``""`` where the table does not say).
        labels: float32 (N, 14): 0, 1, or NaN where CheXpert has no such label.
        lateral: number of lateral views, which are left out.
        release: the first folder of the paths, such as ``CheXpert-v1.0-small/``.
        path: the training table.
    """

    images: pd.DataFrame
    labels: np.ndarray
    lateral: int
    release: str
    path: Path


def read_tables(data_dir: Path | str, uncertain: str = "nan") -> Tables:
    """Read the official tables; needs no images.

    A blank label is 0: the report does not mention the finding. This is what most work on CheXpert
    does, and gives a label to nearly all images; torchxrayvision takes a blank for unknown unless
    No Finding is 1. Findings without a CheXpert label are NaN everywhere, also where No Finding is
    1, since that speaks of CheXpert's own labels only.

    Args:
        data_dir: the folder of the release.
        uncertain: what -1 becomes: ``"nan"`` (unknown), ``"zero"`` or ``"one"``; the paper's
            U-Ignore, U-Zeros and U-Ones.

    Raises:
        OSError: the folder or one of its files is absent.
        ValueError: ``uncertain`` is no such choice, or a file cannot be read, lacks a column, or
            disagrees with itself or another; names the file, the first rows and the mend.
    """
    if uncertain not in UNCERTAIN:
        raise ValueError(f"uncertain is {uncertain!r}; give one of {', '.join(UNCERTAIN)}")
    folder = open_folder(data_dir, _LAYOUT)
    paths = [find_one(folder, name, _LAYOUT) for name in ("train.csv", "valid.csv")]
    if any(folder.glob("test*.csv*")):
        paths.append(find_one(folder, "test*.csv", _LAYOUT))
    tables = [_read_table(path) for path in paths]
    for number, (path, table) in enumerate(zip(paths, tables, strict=True)):
        for other, earlier in zip(paths[:number], tables[:number], strict=True):
            both = table["patient_id"][table["patient_id"].isin(earlier["patient_id"])]
            refuse(path, both, f"a patient who is also in {other}", "delete the rows from one")
    parts = ("train", "valid", "test")[: len(tables)]
    images = pd.concat(tables, keys=parts, names=["split"]).reset_index("split")
    frontal = images[images["view"] == "frontal"].reset_index(drop=True)
    frontal["file"] = frontal["image_id"] + frontal["suffix"]
    return Tables(
        frontal[["image_id", "patient_id", "split", "file", "projection"]],
        _encode(frontal, UNCERTAIN[uncertain]),
        len(images) - len(frontal),
        str(images["release"].iloc[0]),
        paths[0],
    )


def load(
    data_dir: Path | str,
    image_size: int,
    *,
    seed: int = 0,
    uncertain: str = "nan",
    val_fraction: float = 0.1,
    boxes: Path | str | None = None,
    cache: bool = True,
) -> Split:
    """CheXpert's frontal views, padded to squares, every image file checked.

    Train and val are the patients of train.csv. Test is the official test table where there is one,
    else valid.csv. With ``boxes``, test is the images with a box of our findings instead, and all
    other images of the patients in the box file are left out; labels stay those of the tables.

    Args:
        data_dir: the folder of the release, ``CheXpert-v1.0`` or ``CheXpert-v1.0-small``.
        image_size: H = W of the samples, 32 to 1024 pixels.
        seed: of the choice of validation patients.
        uncertain: what -1 becomes, see :func:`read_tables`.
        val_fraction: share of the patients of train.csv that become val.
        boxes: the box file of HAM, see :func:`cxrlib.datasets.ham.read_ham`; needs the full-size
            images.
        cache: keep the resized images in the user's cache, a byte for each pixel; else each is
            decoded whenever it is read.

    Raises:
        OSError: a file is absent, an image is damaged, or the cache cannot be written.
        ValueError: an argument is out of range, a table is wrong, the images are not those of the
            boxes, a part would be empty, or a patient is in two parts.
    """
    check_arguments(image_size, val_fraction)
    folder, tables = open_folder(data_dir, _LAYOUT), read_tables(data_dir, uncertain)
    images = tables.images
    paths = dict(zip(images["image_id"], (str(folder) + "/" + images["file"]), strict=True))
    mend = f"restore it from {HOME}, or delete its row from the table in {folder}"
    ham = None if boxes is None else _boxes_of(tables, boxes)
    placed = pd.DataFrame(columns=BOX_COLUMNS) if ham is None else _place(ham, paths, mend)
    parts, notes = _choose_parts(tables, ham, seed, val_fraction)
    reader = Reader(paths, image_size, mend, pad=True)
    dataset = CXRDataset(
        "chexpert",
        images["image_id"].to_numpy(),
        images["patient_id"].to_numpy(),
        tables.labels,
        placed,
        image_size,
        reader,
        views=images["projection"].to_numpy(),
        read_original=reader.original,
    )
    return divide(dataset, reader, parts, notes, folder, cache)


def _read_table(path: Path) -> pd.DataFrame:
    table = read_csv(path, ["Path"], _RESTORE, optional=[*LABELS, "AP/PA"])
    if absent := [name for name in LABELS if name not in table]:
        raise ValueError(f"{path} lacks {absent}; {_RESTORE}")
    table = table.join(parse_names(path, table["Path"]))
    table["projection"] = table.get("AP/PA", "")
    twice = table["Path"][table["image_id"].duplicated()]
    refuse(path, twice, "an image that already has a row", "delete one row")
    for name in LABELS:
        wrong = (table[name] != "") & ~pd.to_numeric(table[name], errors="coerce").isin([-1, 0, 1])
        refuse(path, table["Path"][wrong], f"a {name!r} that is not 1, 0, -1 or blank", _RESTORE)
    return table


def _encode(table: pd.DataFrame, uncertain: float) -> np.ndarray:
    labels = np.full((len(table), len(FINDINGS)), np.nan, np.float32)
    values = table[[*LABELS]].apply(pd.to_numeric).fillna(0).replace(-1, uncertain)
    labels[:, [finding_index(name) for name in LABELS]] = values
    return labels


def _boxes_of(tables: Tables, path: Path | str) -> HamBoxes:
    if "small" in tables.release:
        raise ValueError(
            f"the boxes are in pixels of the full-size images, but {tables.path} is of "
            f"{tables.release.rstrip('/')}, whose scale is not known; give the folder of the "
            "full-size CheXpert-v1.0, or boxes=None"
        )
    ham = read_ham(path)
    names = ham.boxes["image_id"]
    lost = names[~names.isin(tables.images["image_id"])]
    refuse(ham.path, lost, f"an image without a row in {tables.path.parent}", "add its row")
    return ham


def _place(ham: HamBoxes, paths: dict[str, str], mend: str) -> pd.DataFrame:
    shapes = read_shapes([*ham.boxes["image_id"].unique()], paths, mend)
    return fit_boxes(ham.path, ham.boxes, shapes, "restore the full-size image, which it is of")


def _choose_parts(
    tables: Tables, ham: HamBoxes | None, seed: int, val_fraction: float
) -> tuple[list[np.ndarray], list[str]]:
    images, patients = tables.images, tables.images["patient_id"].to_numpy(str)
    split = images["split"].to_numpy(str)
    if ham is None:
        in_test = split == ("test" if "test" in split else "valid")
        rest = np.flatnonzero(split == "train")
    else:
        in_test = images["image_id"].isin(ham.boxes["image_id"]).to_numpy()
        rest = np.flatnonzero((split == "train") & ~np.isin(patients, [*ham.patients]))
    is_val = split_patients(patients[rest], val_fraction, seed)
    left = ~in_test
    left[rest] = False
    notes = [
        f"val is {val_fraction:.0%} of the patients of train.csv, seed {seed}; test is "
        + ("the boxed images" if ham else f"the official {split[in_test][0]} images"),
        f"{tables.lateral} lateral views left out",
        *([ham.note] if ham else []),
        *(
            f"{count} frontal images of {name}.csv left out, "
            + ("their patients being in the box file" if name == "train" else "being of no part")
            for name, count in sorted(Counter(split[left]).items())
        ),
    ]
    return [rest[~is_val], rest[is_val], np.flatnonzero(in_test)], notes
