"""A folder of the user's own radiographs: ``labels.csv``, ``boxes.csv`` and image files.

``labels.csv`` has one row per image. Its columns are

- ``image``: path relative to the folder, with suffix; PNG, JPEG or DICOM;
- ``patient`` (optional): images of one patient stay in one part;
- ``split`` (optional): ``train``, ``val`` or ``test``;
- one for each finding that was looked for, at least one, in any spelling that
  :func:`cxrlib.findings.canonical` knows: 1 present, 0 absent, empty unknown.

``boxes.csv`` (optional) has one row per box: ``image``, ``finding`` and ``x0``, ``y0``, ``x1``,
``y1`` in pixels of the original image, half-open.
"""

import os
import posixpath
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Sample, Split, split_patients
from cxrlib.datasets.boxes import fit_boxes, pixel_boxes, read_shapes
from cxrlib.datasets.images import Reader, read_pixels
from cxrlib.datasets.parts import check_arguments, check_size, divide
from cxrlib.datasets.tables import open_folder, read_csv, refuse, refuse_unknown, stems
from cxrlib.findings import FINDINGS, canonical, finding_index

_LAYOUT = "expected a folder with labels.csv, the images it names and, for boxes, boxes.csv"
_PARTS = ("train", "val", "test")
_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": np.nan}
_CORRECT = "correct the table"
_CORNERS = ["x0", "y0", "x1", "y1"]


def load(
    data_dir: Path | str,
    image_size: int,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    cache: bool = True,
) -> Split:
    """A folder of radiographs as a patient-disjoint split, every image file checked.

    With a ``split`` column the parts are those of the table. Without one, the patients with boxes
    are in test, joined by others at random up to ``test_fraction`` of all patients; and
    ``val_fraction`` of the rest are val. Oblong images are padded with black to squares. The data
    hash covers the names, labels, boxes and file sizes, not the files' contents.

    Args:
        data_dir: the folder; its layout is told above.
        image_size: H = W of the samples, pixels, 32 to 1024.
        seed: of the choice of patients; of no effect with a ``split`` column.
        val_fraction: share of the patients outside test, between 0 and 1; of no effect likewise.
        test_fraction: share of all patients, between 0 and 1; of no effect likewise.
        cache: keep the resized images in the user's cache, a byte for each pixel; else each is
            decoded whenever it is read.

    Raises:
        OSError: the folder, its ``labels.csv`` or an image is absent or damaged, or the cache
            cannot be written.
        ValueError: an argument is out of range, a table is wrong (the message names the rows and
            the mend), or a part would be empty.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "labels.csv").write_text(
    ...     "image,split,Mass\\na.png,train,1\\nb.png,val,0\\nc.png,test,\\n"
    ... )
    >>> for name in "abc":
    ...     Image.new("L", (40, 60)).save(folder / f"{name}.png")
    >>> load(folder, 32).train[0].labels[:6]
    tensor([nan, nan, nan, nan, 1., nan])
    """
    check_arguments(image_size, val_fraction)
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; give a share between 0 and 1")
    folder = open_folder(data_dir, _LAYOUT)
    table = _read_labels(folder / "labels.csv")
    paths = dict(zip(table["image_id"], f"{folder}/" + table["file"], strict=True))
    mend = f"export it again, or delete its row from {folder / 'labels.csv'}"
    reader = Reader(paths, image_size, mend, pad=True)
    dataset = CXRDataset(
        "folder",
        table["image_id"].to_numpy(),
        _patients(table).to_numpy(),
        table[[*FINDINGS]].to_numpy(np.float32),
        _read_boxes(folder / "boxes.csv", table, paths, mend),
        image_size,
        reader,
        read_original=reader.original,
    )
    part_of, notes = _choose_parts(table, dataset.boxes, seed, val_fraction, test_fraction)
    parts = [np.flatnonzero(part_of == part) for part in _PARTS]
    return divide(dataset, reader, parts, notes, folder, cache)


def sample(path: Path | str, image_size: int) -> Sample:
    """One image file as a sample of unknown labels, e.g. to show a model a radiograph of one's own.

    Args:
        path: PNG, JPEG or DICOM of any shape; padded with black, centred, to a square.
        image_size: H = W of the sample, pixels, 32 to 1024.

    Returns:
        all labels NaN, no boxes; ``image_id`` and ``patient_id`` are the file's name.

    Raises:
        OSError: the file cannot be decoded.
        ValueError: ``image_size`` is out of range.

    >>> import tempfile
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp()) / "mine.png"
    >>> Image.new("L", (300, 400)).save(path)
    >>> sample(path, 64).image.shape
    torch.Size([1, 64, 64])
    """
    check_size(image_size)
    path = Path(path).expanduser()
    pixels = read_pixels(path, image_size, "give a whole PNG, JPEG or DICOM", pad=True)
    return Sample(
        image=torch.from_numpy(pixels.astype(np.float32) / 255)[None],  # (1, H, W)
        labels=torch.full((len(FINDINGS),), torch.nan),
        boxes=torch.empty(0, 4),
        box_findings=torch.empty(0, dtype=torch.int64),
        masks=None,
        image_id=path.stem,
        patient_id=path.stem,
    )


def _read_labels(path: Path) -> pd.DataFrame:
    """The table with ``image_id``, ``file`` and all 14 findings as numbers, rows as in the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {_LAYOUT}")
    table = read_csv(
        path, ["image"], _CORRECT, rename=_namer(path), optional=["patient", "split", *FINDINGS]
    )
    table["file"], table["image_id"] = _normal(table["image"])
    _refuse_files(path, table)
    for name in table.columns.intersection(["patient", "split"]):
        refuse(path, table["image"][table[name] == ""], f"no {name!r}", _CORRECT)
    if "split" in table:
        _refuse_split(path, table)
    return _number_labels(path, table)


def _namer(path: Path) -> Callable[[str], str]:
    """What gives a column its canonical name, and refuses an unknown or a repeated one."""
    seen = set()

    def rename(name: str) -> str:
        plain = name.strip().lower()
        try:
            found = plain if plain in ("image", "patient", "split") else canonical(name)
        except ValueError as error:
            raise ValueError(
                f"{path} has a column of no known meaning ({error}); "
                "name it image, patient, split or a finding, or delete it"
            ) from None
        if found in seen:
            raise ValueError(f"{path} has two columns for {found!r}; delete one")
        seen.add(found)
        return found

    return rename


def _normal(names: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Paths in one spelling, and the image ids: the same without suffix."""
    files = names.str.replace("\\", "/", regex=False).map(posixpath.normpath)
    return files, stems(files)


def _refuse_files(path: Path, table: pd.DataFrame) -> None:
    if not len(table):
        raise ValueError(f"{path} has no rows; add one for each image")
    images, ids, files = table["image"], table["image_id"], table["file"]
    outside = files.str.match(r"/|\.\.(/|$)")
    refuse(path, images[outside], f"a path outside {path.parent}", "move the file into it")
    flaw = "an image that, but for its suffix, already has a row"
    refuse(path, images[ids.duplicated()], flaw, "delete one row, or rename the file")
    absent = [not os.path.isfile(path.parent / file) for file in files]
    refuse(path, images[absent], "a file that does not exist", "correct the path or delete the row")


def _refuse_split(path: Path, table: pd.DataFrame) -> None:
    images, split = table["image"], table["split"]
    refuse(path, images[~split.isin(_PARTS)], f"a split that is none of {_PARTS}", _CORRECT)
    torn = split != split.groupby(_patients(table)).transform("first")
    flaw = "a patient who is in another split above"
    refuse(path, images[torn], flaw, "give all images of a patient one split")


def _number_labels(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    given = [name for name in FINDINGS if name in table]
    if not given:
        raise ValueError(f"{path} has no column of a finding; add one of {', '.join(FINDINGS)}")
    for name in given:
        bad = ~table[name].isin([*_VALUES])
        refuse(path, table["image"][bad], f"a value of {name} that is not 1, 0 or empty", _CORRECT)
        table[name] = table[name].map(_VALUES)
    return table.reindex(columns=[*dict.fromkeys([*table, *FINDINGS])])


def _patients(table: pd.DataFrame) -> pd.Series:
    return table["patient"] if "patient" in table else table["image_id"]


def _read_boxes(path: Path, table: pd.DataFrame, paths: dict[str, str], mend: str) -> pd.DataFrame:
    """Columns of BOX_COLUMNS; no rows where the file is absent."""
    if not path.exists():
        return pd.DataFrame({name: [] for name in BOX_COLUMNS})
    boxes = read_csv(path, ["image", "finding", *_CORNERS], _CORRECT, rename=str.lower)
    images, (files, ids) = boxes["image"], _normal(boxes["image"])
    lost = images[~files.isin(table["file"])]
    refuse(path, lost, "an image without a row in labels.csv", "add its row, or delete the box")
    refuse_unknown(path, images, boxes["finding"], finding_index)
    if "split" in table:
        outside = ids.map(table.set_index("image_id")["split"]) != "test"
        flaw = "a box of a patient who is not in test"
        refuse(path, images[outside], flaw, "give the patient split test")
    found = boxes["finding"].map(finding_index)
    boxes = pixel_boxes(path, ids, found, boxes[_CORNERS], _CORRECT)
    shapes = read_shapes(ids.unique().tolist(), paths, mend)
    return fit_boxes(path, boxes, shapes, "give pixels of the original image")


def _choose_parts(
    table: pd.DataFrame, boxes: pd.DataFrame, seed: int, val_fraction: float, test_fraction: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The part of each image, (N,) strings, and how it came about."""
    alone = "labels.csv names no patients: each image counts as a patient of its own"
    notes = () if "patient" in table else (alone,)
    if "split" in table:
        return table["split"].to_numpy(str), ("parts as in labels.csv", *notes)
    patients = _patients(table).to_numpy(str)
    boxed = np.isin(patients, patients[table["image_id"].isin(boxes["image_id"])])
    total, held = len(np.unique(patients)), len(np.unique(patients[boxed]))
    share = max(0.0, test_fraction * total - held) / max(1, total - held)
    parts, rest = np.full(len(table), "test", "U5"), np.flatnonzero(~boxed)
    free = rest[~split_patients(patients[rest], share, seed)]
    is_val = split_patients(patients[free], val_fraction, seed)
    parts[free] = np.where(is_val, "val", "train")
    boxed_too = f", among them all {held} with boxes" if held else ""
    tested = f"test is {len(np.unique(patients[parts == 'test']))} of {total} patients{boxed_too}"
    return parts, (f"{tested}; val is {val_fraction:.0%} of the rest; seed {seed}", *notes)
