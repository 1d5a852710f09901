"""A split written as a folder of files, in the layout that :mod:`cxrlib.datasets.folder` reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from cxrlib.datasets.base import CXRDataset, Split
from cxrlib.files import write_atomic
from cxrlib.findings import FINDINGS
from cxrlib.parameters import nearest


def export(split: Split, folder: Path | str, kind: Literal["png", "dicom"] = "png") -> None:
    """Write every image of a split, ``labels.csv`` and, where there are boxes, ``boxes.csv``.

    Masks are not written. A DICOM holds the pixels as MONOCHROME1, where bone is dark, as many
    digital X-ray machines do.

    Args:
        split: its images are written at their size.
        folder: is made if absent; files of the same names are overwritten.
        kind: of the image files, ``"png"`` or ``"dicom"``.

    Raises:
        ValueError: no such kind.
        OSError: a file cannot be written.

    >>> import tempfile
    >>> from cxrlib.phantom import dataset
    >>> folder = Path(tempfile.mkdtemp())
    >>> export(dataset.load(64, n_train=3, n_val=3, n_test=3), folder)
    >>> print((folder / "labels.csv").read_text()[:27])
    image,patient,split,Atelect
    """
    if kind not in WRITERS:
        raise ValueError(f"no kind of image {kind!r}; {nearest(kind, list(WRITERS))}")
    folder = Path(folder).expanduser()
    suffix, write = WRITERS[kind]
    tables = []
    for name, part in {"train": split.train, "val": split.val, "test": split.test}.items():
        files = np.char.add(part.image_ids, suffix)
        for image_id, file in zip(part.image_ids.tolist(), files.tolist(), strict=True):
            write(part.read_pixels(image_id), folder / file)
        places = {"image": files, "patient": part.patient_ids, "split": name}
        labels = pd.DataFrame(part.labels, columns=FINDINGS).astype("Int64")  # NaN is left empty
        tables.append(pd.concat([pd.DataFrame(places), labels], axis=1))
    _write_csv(pd.concat(tables), folder / "labels.csv")
    if len(split.test.boxes):
        _write_csv(_boxes(split.test, suffix), folder / "boxes.csv")


def _boxes(part: CXRDataset, suffix: str) -> pd.DataFrame:
    boxes = part.boxes
    corners = boxes[["x0", "y0", "x1", "y1"]] * part.image_size
    corners.insert(0, "image", boxes["image_id"] + suffix)
    corners.insert(1, "finding", np.array(FINDINGS)[boxes["finding"]])
    return corners


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    write_atomic(path, lambda file: table.to_csv(file, index=False))


def _write_png(pixels: np.ndarray, path: Path) -> None:
    write_atomic(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def _write_dicom(pixels: np.ndarray, path: Path) -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    data.set_pixel_data(255 - pixels, "MONOCHROME1", bits_stored=8)
    # The whole range as the window; without one a viewer stretches each image to its own greys.
    data.WindowCenter, data.WindowWidth = 128, 256
    write_atomic(path, lambda file: data.save_as(file, enforce_file_format=True))


WRITERS: dict[str, tuple[str, Callable[[np.ndarray, Path], None]]] = {
    "png": (".png", _write_png),
    "dicom": (".dcm", _write_dicom),
}
"""Suffix of the files of each kind, and what writes one."""
