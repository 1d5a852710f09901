"""Boxes drawn on CheXpert for HAM, and how the files of CheXpert are named.

Source: Ouyang et al., "Learning Hierarchical Attention for Weakly-supervised Chest X-Ray
Abnormality Localization and Diagnosis", IEEE Transactions on Medical Imaging 2021. The file holds
6,101 boxes on 2,347 of the 2,348 images it names, of 2,202 patients. 4,932 of them are of our
findings and on frontal views: 1,932 images of 1,832 patients.
"""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlib.datasets.boxes import CORNERS, pixel_boxes
from cxrlib.datasets.tables import reading, refuse, refuse_unknown
from cxrlib.findings import finding_index

NOT_OURS = {
    "Enlarged_Cardiomediastinum": "Enlarged_Cardiomediastinum",
    "Enlarg_Cardiomediastinum": "Enlarged_Cardiomediastinum",
    "Fracture": "Fracture",
}
"""Names in the box file that are no finding of ours, a slip among them, and how notes spell them.
The other slip, ``edema`` for ``Edema``, is a spelling every finding may have."""

_NAME = (
    r"^(?P<release>CheXpert-[^/]*/)?(?P<image_id>(?:train|valid|test)/(?P<patient_id>patient\d+)"
    r"/study\d+/view\d+_(?P<view>frontal|lateral))(?P<suffix>\.\w+)$"
)
_EXAMPLE = "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"


@dataclass(frozen=True, slots=True)
class HamBoxes:
    """What the box file holds.

    Attributes:
        boxes: columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS` in pixels of the full-size
            images: boxes of our findings on frontal views. The index is the number of the image in
            the file, from 1.
        patients: all patients in the file.
        note: how many boxes there are, and how many were left out and why.
        path: the file.
    """

    boxes: pd.DataFrame
    patients: frozenset[str]
    note: str
    path: Path


def read_ham(path: Path | str) -> HamBoxes:
    """Read the boxes released with HAM, ``{image: {name: [[x0, y0, x1, y1], ...]}}``; no images.

    Args:
        path: the JSON file, plain or gzipped.

    Raises:
        OSError: the file is absent.
        ValueError: it cannot be read, an image is there twice, a name is neither a finding nor in
            :data:`NOT_OURS`, or a box is none.
    """
    path = Path(path).expanduser()
    mend = "restore it from the authors of HAM"
    if not path.is_file():
        raise FileNotFoundError(f"boxes {path} is no file; give the JSON of the boxes, or None")
    with reading(path, mend), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        files, rows = _rows(json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=_once))
    table = pd.DataFrame(rows, columns=["number", "file", "name", *CORNERS]).set_index("number")
    parsed = parse_names(path, pd.Series(files, pd.RangeIndex(1, len(files) + 1), dtype="str"))
    table = table.join(parsed)
    ours = ~table["name"].isin([*NOT_OURS])
    refuse_unknown(path, table["file"][ours], table["name"][ours], finding_index)
    index = table["name"].where(ours, "Mass").map(finding_index)
    boxes = pixel_boxes(path, table["image_id"], index, table[CORNERS], mend)
    frontal = table["view"] == "frontal"
    kept = boxes[frontal & ours]
    others = Counter(table["name"][frontal & ~ours].map(NOT_OURS))
    note = (
        f"{path.name}: {len(kept)} of {len(boxes)} boxes are used, on "
        f"{kept['image_id'].nunique()} images; not used are {int((~frontal).sum())} on "
        f"{int((parsed['view'] == 'lateral').sum())} lateral views"
        + "".join(f", {count} of {name}" for name, count in sorted(others.items()))
    )
    return HamBoxes(kept, frozenset(parsed["patient_id"]), note, path)


def parse_names(path: Path, files: pd.Series) -> pd.DataFrame:
    """What the file names of CheXpert say.

    Args:
        path: where they were read, for the message.
        files: (n,) names.

    Returns:
        columns ``release``, ``image_id``, ``patient_id``, ``view`` and ``suffix``, strings.

    Raises:
        ValueError: a name is unlike those of CheXpert; names the rows and the mend.

    >>> name = "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
    >>> parse_names(Path("train.csv"), pd.Series([name])).iloc[0].tolist()[1:4]
    ['train/patient00001/study1/view1_frontal', 'patient00001', 'frontal']
    """
    parsed = files.str.extract(_NAME)
    refuse(path, files[parsed["image_id"].isna()], f"a name unlike {_EXAMPLE}", "restore it")
    return parsed.fillna({"release": ""})


def _rows(content: Any) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the images, and (number of the image, its name, name of the box, corners)."""
    try:
        rows = [
            (number, image, name, *_four(box))
            for number, (image, boxes) in enumerate(content.items(), start=1)
            for name, corners in boxes.items()
            for box in corners
        ]
    except (AttributeError, TypeError):
        raise ValueError("it is not {image: {name: [[x0, y0, x1, y1], ...]}}") from None
    return [*content], rows


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a name twice, and Python keeps the last: refuse it instead."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice")
    return dict(pairs)


def _four(box: Sequence[Any]) -> Sequence[Any]:
    if len(box) != len(CORNERS):
        raise ValueError(f"a box has {len(box)} numbers, not {len(CORNERS)}")
    return box
