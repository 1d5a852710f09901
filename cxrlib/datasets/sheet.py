"""Plots of datasets: one function, one figure, as in :mod:`cxrlib.figures`, quick to import."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from cxrlib.datasets.base import CXRDataset, Split
from cxrlib.datasets.summary import counts, has_findings

COLUMNS = 6
"""Images of a finding on the contact sheet, each of another patient."""

WIDTH = 1600
"""Of the contact sheet, pixels at its own resolution."""

_SIDE, _GAP, _MARGIN, _HEAD, _TITLE, _CAPTION = 256, 8, 12, 72, 44, 18  # pixels
_ROW = _TITLE + _SIDE + _CAPTION


class _Row(NamedTuple):
    title: str
    images: np.ndarray  # up to COLUMNS indices
    finding: int  # 14: none


def contact_sheet(split: Split) -> Figure:
    """Test images of every finding with their boxes, and some without any finding.

    A row is a finding that an image of test is known to have or has a box of, which may disagree:
    the first image of each of up to six patients, boxed ones before others, else in the order of
    the dataset.

    Args:
        split: of any dataset.

    Returns:
        a figure 1600 px wide; each image is drawn at 256 px, its name below it.
    """
    dataset, rows = split.test, _rows(split)
    height = _HEAD + len(rows) * _ROW + _MARGIN
    figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100, facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    patients = len(np.unique(dataset.patient_ids))
    title = f"{dataset.name}, test: {len(dataset):,} images of {patients:,} patients"
    _write(axis, _MARGIN, 30, title, fontsize=17, weight="bold")
    note = (
        f"Up to {COLUMNS} patients of each finding, boxed images first; cyan: boxes of the finding"
    )
    _write(axis, _MARGIN, 56, note, fontsize=12, color="0.3")
    for place, row in enumerate(rows):
        _draw_row(axis, dataset, row, _HEAD + place * _ROW)
    axis.set(xlim=(0, WIDTH), ylim=(height, 0))
    return figure


def _rows(split: Split) -> list[_Row]:
    table = counts(split)
    found = table[(table["kind"] == "finding") & (table["part"] == "test")]
    has = has_findings(split, split.test)  # (N, 15)
    rows = [
        _Row(_title(row), _choose(split.test, has[:, finding], finding), finding)
        for finding, row in enumerate(found.to_dict("records"))
    ]
    return [row for row in rows if len(row.images)]


def _title(row: dict[Hashable, Any]) -> str:
    name = str(row["name"]).replace("_", " ").capitalize()
    tail = "" if pd.isna(row["boxed_images"]) else f", boxed images {row['boxed_images']:,}"
    return f"{name}: labelled images {row['images']:,}, patients {row['patients']:,}{tail}"


def _choose(dataset: CXRDataset, has: np.ndarray, finding: int) -> np.ndarray:
    """The first image of each of the first patients, those with a box before the others."""
    ids = dataset.boxes["image_id"][dataset.boxes["finding"] == finding]
    boxed = np.isin(dataset.image_ids, ids.to_numpy(str))
    order = np.concatenate([np.flatnonzero(boxed), np.flatnonzero(has & ~boxed)])
    _, first = np.unique(dataset.patient_ids[order], return_index=True)
    return order[np.sort(first)[:COLUMNS]]


def _draw_row(axis: Axes, dataset: CXRDataset, row: _Row, top: int) -> None:
    _write(axis, _MARGIN, top + _TITLE - 10, row.title, fontsize=13)
    top += _TITLE
    strip = np.full((_SIDE, WIDTH, 3), 255, np.uint8)  # in colour: colour maps round the greys
    for column, index in enumerate(row.images):
        left = _MARGIN + column * (_SIDE + _GAP)
        image_id = str(dataset.image_ids[index])
        picture = Image.fromarray(dataset.read_pixels(image_id)).resize((_SIDE, _SIDE))
        strip[:, left : left + _SIDE] = np.asarray(picture)[..., None]
        short = image_id if len(image_id) <= 40 else f"…{image_id[-39:]}"
        _write(axis, left, top + _SIDE + 13, short, fontsize=8, color="0.3")
        of_row = dataset.boxes["finding"] == row.finding
        boxes = dataset.boxes[of_row & (dataset.boxes["image_id"] == image_id)]
        for x0, y0, x1, y1 in boxes[["x0", "y0", "x1", "y1"]].to_numpy() * _SIDE:
            _draw_box(axis, left + x0, top + y0, x1 - x0, y1 - y0)
    # A picture at its own resolution: sharp, and much quicker than one axis for each image.
    axis.imshow(strip, extent=(0, WIDTH, top + _SIDE, top), aspect="auto")


def _draw_box(axis: Axes, x: float, y: float, width: float, height: float) -> None:
    box = Rectangle((x, y), width, height, fill=False, edgecolor="#00e5ff", linewidth=1.5)
    box.set_path_effects([withStroke(linewidth=2.5, foreground="black")])  # seen on white, too
    axis.add_patch(box)


def _write(axis: Axes, x: float, y: float, words: str, **style: Any) -> None:
    """Text as it is: a name with two dollar signs is no formula."""
    axis.text(x, y, words, parse_math=False, **style)
