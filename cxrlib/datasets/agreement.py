"""What the labels of ChestX-ray14 are worth where radiologists have looked again.

The labels were mined from the text of radiology reports. For some of the images others have drawn
boxes: RSNA for its challenge of 2018, and ChestX-Det. The command ``python -m
cxrlib.datasets.agreement <folder> results/label_agreement.csv`` compares the two.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from cxrlib.datasets.extra import RSNA_CLASSES, chestxdet, rsna
from cxrlib.datasets.nih import Tables, read_tables
from cxrlib.files import write_csv
from cxrlib.findings import FINDINGS, NO_FINDING

PNEUMONIA_LIKE = ("Pneumonia", "Infiltration", "Consolidation")
"""Labels of reports that describe what RSNA's readers marked: an opacity that may be pneumonia."""


def compare(labelled: np.ndarray, seen: np.ndarray) -> pd.DataFrame:
    """How well a label tells what radiologists saw.

    Args:
        labelled: bool (N,), the images with the label.
        seen: bool (N,), the images on which they saw it.

    Returns:
        one row for each ``measure``: ``ppv`` (of the labelled images, the share on which it was
        seen), ``missed`` (the same of the images without the label) and ``sensitivity`` (of the
        images on which it was seen, the share that is labelled), with ``k`` of ``n`` images,
        ``value`` and the 95 % interval of Wilson, ``low`` to ``high``. NaN where n is 0.

    >>> table = compare(np.array([True, True, False]), np.array([True, False, False]))
    >>> table.set_index("measure")["value"].to_dict()
    {'ppv': 0.5, 'missed': 0.0, 'sensitivity': 1.0}
    """
    shares = {
        "ppv": seen[labelled],
        "missed": seen[~labelled],
        "sensitivity": labelled[seen],
    }
    return pd.DataFrame([{"measure": name} | _share(cases) for name, cases in shares.items()])


def _share(cases: np.ndarray) -> dict[str, float]:
    k, n = int(cases.sum()), len(cases)
    if not n:
        return {"k": 0, "n": 0, "value": np.nan, "low": np.nan, "high": np.nan}
    ends = binomtest(k, n).proportion_ci(method="wilson")
    return {"k": k, "n": n, "value": k / n, "low": float(ends.low), "high": float(ends.high)}


def label_agreement(data_dir: Path | str) -> pd.DataFrame:
    """Official labels against the radiologists of RSNA and of ChestX-Det.

    RSNA's readers looked at every image of their table. Of ChestX-Det only images with a box of one
    of our findings are known here: one on which its readers saw none is not among those compared.

    Args:
        data_dir: folder of ChestX-ray14 with the tables of both in ``extra/``.

    Returns:
        the columns of :func:`compare` for each ``reference``, what was ``seen`` and ``label``
        (joined by ``|``: any of them), with the numbers of ``images`` and ``patients`` compared and
        of those ``unlabelled``, "No Finding".

    Raises:
        OSError: a table is absent.
        ValueError: a table is damaged, or has images that the official table has not.
    """
    tables = read_tables(data_dir)
    extra = Path(data_dir).expanduser() / "extra"
    rows = []
    for reference, seen in (("RSNA", _rsna(extra)), ("ChestX-Det", _chestxdet(extra))):
        labels, patients = _labels_of(tables, seen.index, extra)
        for sight, label in _questions(reference, seen):
            labelled = labels[label.split("|")].any(axis=1).to_numpy()
            origin = {"reference": reference, "seen": sight, "label": label}
            size = {"images": len(seen), "patients": patients.nunique()}
            size["unlabelled"] = int(labels[NO_FINDING].sum())
            rows.append(compare(labelled, seen[sight].to_numpy()).assign(**origin, **size))
    table = pd.concat(rows, ignore_index=True)
    return table[[*origin, *size, *table.columns[:6]]]


def _rsna(folder: Path) -> pd.DataFrame:
    """What was seen, bool, by image."""
    classes = rsna(folder).classes
    return pd.DataFrame({name: classes == name for name in RSNA_CLASSES})


def _chestxdet(folder: Path) -> pd.DataFrame:
    boxes = chestxdet(folder, 32).boxes
    return pd.crosstab(boxes["image_id"], np.array(FINDINGS)[boxes["finding"]]) > 0


def _questions(reference: str, seen: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """What was seen, and the label that should tell it."""
    if reference == "RSNA":
        normal, _, opacity = RSNA_CLASSES
        yield opacity, "Pneumonia"
        yield opacity, "|".join(PNEUMONIA_LIKE)
        yield normal, NO_FINDING
    else:
        for name in seen:
            yield str(name), str(name)
        yield "Consolidation", "|".join(PNEUMONIA_LIKE)


def _labels_of(tables: Tables, ids: pd.Index, extra: Path) -> tuple[pd.DataFrame, pd.Series]:
    labels = pd.DataFrame(tables.labels > 0, tables.images["image_id"], FINDINGS)
    strangers = ids.difference(labels.index)
    if len(strangers):
        raise ValueError(
            f"{extra} tells of {len(strangers)} images that are not in {tables.path}, such as "
            f"{', '.join(strangers[:3])}; delete their rows"
        )
    labels[NO_FINDING] = ~labels.any(axis=1)
    return labels.loc[ids], tables.images.set_index("image_id")["patient_id"].loc[ids]


def main(arguments: list[str] | None = None) -> None:
    """Compute the table and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m cxrlib.datasets.agreement", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("data_dir", help="folder of ChestX-ray14 with the other tables in extra/")
    parser.add_argument("out", type=Path, help="CSV to write")
    chosen = parser.parse_args(arguments)
    write_csv(chosen.out, label_agreement(chosen.data_dir))


if __name__ == "__main__":
    main()
