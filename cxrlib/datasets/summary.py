"""What a dataset holds: images, patients, findings, boxes and views of each part."""

from typing import Any

import numpy as np
import pandas as pd

from cxrlib.datasets.base import CXRDataset, Split
from cxrlib.findings import FINDINGS, NO_FINDING

_LEGEND = """\
train, val, test: images known to have it; unknown: images of all parts without this label;
boxes, boxed images: of it, in test; median box: its area in % of the square image"""


def counts(split: Split) -> pd.DataFrame:
    """All counts of a split, tidy: one row for each kind, name and part.

    Args:
        split: of any dataset.

    Returns:
        columns ``kind``, ``name``, ``part`` (``"train"``, ``"val"`` or ``"test"``), and numbers of
        ``images`` and ``patients``. The kinds are

        - ``"all"``: everything in the part;
        - ``"finding"``: what is known to have one of the 14, or for ``"No Finding"`` to have none
          of those that the dataset has any label of; ``unknown`` is the number of images of which
          neither this nor the opposite is known;
        - ``"view"``: the projections, the most frequent first; ``"unknown"`` where not recorded.

        For findings, and for ``"all"`` of them together, ``boxes`` counts their boxes,
        ``boxed_images`` and ``boxed_patients`` what has one, and ``median_box_percent`` is the
        median area of a box in % of the square image. What does not apply to a row is missing.

    >>> from cxrlib.datasets.base import BOX_COLUMNS
    >>> boxes = pd.DataFrame([("c", 4, 0.0, 0.0, 0.5, 0.5)], columns=BOX_COLUMNS)
    >>> toy = CXRDataset("toy", [*"abc"], [*"123"], np.eye(14)[[3, 3, 4]], boxes, 32, np.load)
    >>> split = Split(toy.subset([0]), toy.subset([1]), toy.subset([2]), data_hash="")
    >>> counts(split).query("name == 'Mass'")[["part", "images", "boxes"]].to_numpy().tolist()
    [['train', 0, 0], ['val', 0, 0], ['test', 1, 1]]
    """
    parts = split.parts
    views = pd.Series(np.concatenate([part.views for part in parts.values()])).value_counts().index
    tables = [
        _count(part, has_findings(split, part), views.to_numpy(str)).assign(part=name)
        for name, part in parts.items()
    ]
    # All have the same rows: the index brings those of one kind and name together.
    table = pd.concat(tables).sort_index(kind="stable").reset_index(drop=True)
    return table[["kind", "name", "part", *table.columns.drop(["kind", "name", "part"])]]


def has_findings(split: Split, part: CXRDataset) -> np.ndarray:
    """Which images are known to have each finding, or none.

    Args:
        split: says which findings the dataset has any label of.
        part: of this split, N images.

    Returns:
        bool (N, 15): the 14 findings, then whether none of those with labels is present.
    """
    parts = split.parts.values()
    labelled = ~np.all([np.isnan(other.labels).all(axis=0) for other in parts], axis=0)  # (14,)
    none = (part.labels[:, labelled] == 0).all(axis=1) & labelled.any()
    return np.column_stack([part.labels == 1, none])


def text(split: Split) -> str:
    """The counts of a split, to be read in a terminal 100 characters wide.

    Args:
        split: of any dataset.

    Returns:
        lines: dataset, parts, hashes and notes, then a table of findings, then one of views.
    """
    table = counts(split)
    whole = table[table["kind"] == "all"].set_index("part")
    rows = whole[["images", "patients"]].itertuples()
    found = table[table["kind"] == "finding"]
    in_test = found[found["part"] == "test"].set_index("name")
    findings = _by_part(found).assign(
        **{
            "unknown": found.groupby("name")["unknown"].sum(),
            "boxes": in_test["boxes"],
            "boxed images": in_test["boxed_images"],
            "median box": in_test["median_box_percent"],
        }
    )
    lines = [
        f"{split.test.name}, images of {split.test.image_size} px",
        *(
            f"{part + ':':6} {images:,} images of {patients:,} patients"
            for part, images, patients in rows
        ),
        f"data {split.data_hash}, split {split.split_hash}",
        *split.notes,
        "",
        _layout(findings, "finding"),
        _LEGEND,
        "",
        _layout(_by_part(table[table["kind"] == "view"]), "view"),
    ]
    return "\n".join(lines)


def _count(part: CXRDataset, has: np.ndarray, views: np.ndarray) -> pd.DataFrame:
    """One row for each kind and name; the same rows for every part."""
    everything = np.ones(len(part), bool)
    member = np.column_stack([everything, has, part.views[:, None] == views])  # (N, 16 + views)
    unsure = np.column_stack([np.isnan(part.labels), ~has.any(axis=1)]).sum(axis=0)  # (15,)
    patient, _ = pd.factorize(part.patient_ids)
    table = pd.DataFrame(
        {
            "kind": ["all", *["finding"] * unsure.size, *["view"] * len(views)],
            "name": ["all", *FINDINGS, NO_FINDING, *np.where(views == "", "unknown", views)],
            "images": member.sum(axis=0),
            "patients": [len(np.unique(patient[column])) for column in member.T],
        }
    )
    table["unknown"] = pd.Series(unsure, range(1, unsure.size + 1), "Int64")
    return table.join(_count_boxes(part))


def _count_boxes(part: CXRDataset) -> pd.DataFrame:
    """Row 0 is of all boxes, row 1 + i of those of finding i."""
    boxes = part.boxes
    patients = pd.Series(part.patient_ids, part.image_ids)
    boxes = boxes.assign(
        row=boxes["finding"] + 1,
        patient=boxes["image_id"].map(patients),
        percent=100 * (boxes["x1"] - boxes["x0"]) * (boxes["y1"] - boxes["y0"]),
    )
    by_row = pd.concat([boxes.assign(row=0), boxes]).groupby("row")
    rows = range(1 + len(FINDINGS))
    numbers = by_row.agg(
        boxes=("row", "size"),
        boxed_images=("image_id", "nunique"),
        boxed_patients=("patient", "nunique"),
    )
    numbers = numbers.reindex(rows, fill_value=0).astype("Int64")
    return numbers.assign(median_box_percent=by_row["percent"].median().reindex(rows))


def _by_part(table: pd.DataFrame) -> pd.DataFrame:
    """Images by name and part, in the order of the table."""
    wide = table.pivot(index="name", columns="part", values="images")
    return wide.loc[table["name"].unique(), table["part"].unique()]


def _layout(table: pd.DataFrame, title: str) -> str:
    return table.map(_cell).rename_axis(index=None, columns=title).to_string()


def _cell(value: Any) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.1f} %" if isinstance(value, float) else f"{value:,}"
