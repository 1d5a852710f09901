"""Splits beside the official one: folds, halves of the boxed images, and what a re-split leaks."""

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.datasets.tables import stems
from cxrlib.parameters import nearest

if TYPE_CHECKING:
    from cxrlib.datasets.nih import Tables

HALVES = ("boxval", "boxtest")
"""The halves of the boxed images: one to tune a threshold on, one to score it on."""


def folds(patient_ids: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Divide images into folds; a patient's images stay together.

    Args:
        patient_ids: (N,) strings, one per image.
        k: number of folds, 2 or more.
        seed: of the assignment.

    Returns:
        int64 (N,), the fold of each image, 0 to k - 1. The numbers of patients in the folds differ
        by one at most.

    Raises:
        ValueError: k is below 2 or above the number of patients.

    >>> folds(np.array(["a", "a", "b", "c", "d"]), 2, seed=0).tolist()
    [0, 0, 0, 1, 1]
    """
    patients, which = np.unique(patient_ids, return_inverse=True)
    if not 2 <= k <= len(patients):
        raise ValueError(f"{k} folds of {len(patients)} patients; give 2 to {len(patients)} folds")
    return np.random.default_rng(seed).permutation(len(patients))[which] % k


def halve(boxes: pd.DataFrame, patients: pd.Series) -> pd.Series:
    """Divide boxed patients into two halves with as many boxes of each finding; nothing is random.

    Patients are taken one by one, those with most boxes first, then by number. Each goes where its
    findings are fewer so far: with d the lead of boxval over boxtest in boxes of each finding, in
    images and in patients, and v what the patient adds to them, to boxtest if d . v > 0, else to
    boxval.

    Args:
        boxes: columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`.
        patients: the patient of each image, by image id; digits.

    Returns:
        one of :data:`HALVES` for each patient with a box, by number of the patient.

    >>> boxes = pd.DataFrame({"image_id": ["1_0", "2_0", "3_0", "3_1"], "finding": [0, 0, 0, 1]})
    >>> halve(boxes, pd.Series({"1_0": "1", "2_0": "2", "3_0": "3", "3_1": "3"})).to_dict()
    {'1': 'boxtest', '2': 'boxtest', '3': 'boxval'}
    """
    owner = boxes["image_id"].map(patients).astype(int)
    adds = pd.crosstab(owner, boxes["finding"])  # (patients, findings), sorted by number
    adds["images"] = boxes.groupby(owner)["image_id"].nunique()
    adds["patients"] = 1
    by_number = owner.value_counts().sort_index()
    most_first = by_number.sort_values(ascending=False, kind="stable").index
    lead = np.zeros(adds.shape[1], np.int64)
    halves = {}
    for patient, row in zip(most_first, adds.loc[most_first].to_numpy(), strict=True):
        to_test = bool(lead @ row > 0)
        lead += -row if to_test else row
        halves[str(patient)] = HALVES[to_test]
    return pd.Series(halves, [str(patient) for patient in by_number.index], name="half")


def box_halves() -> pd.Series:
    """The frozen halves of the 726 patients with official ChestX-ray14 boxes.

    They were made once by :func:`halve` from the official tables and stay as they are, so that
    thresholds tuned on ``boxval`` and scores on ``boxtest`` can be compared between runs.

    Returns:
        one of :data:`HALVES` for each patient, by number of the patient (a string).

    >>> (box_halves() == "boxval").mean().item()
    0.5
    """
    with (resources.files("cxrlib.datasets") / "box_halves.csv").open() as file:
        return pd.read_csv(file, dtype=str).set_index("patient")["half"]


def box_half(dataset: CXRDataset, half: str) -> CXRDataset:
    """The images with boxes of the patients in one of the frozen halves.

    Args:
        dataset: ChestX-ray14 images with their official boxes, e.g. the test part.
        half: one of :data:`HALVES`.

    Raises:
        ValueError: no such half, or a patient with boxes is in neither.
    """
    if half not in HALVES:
        raise ValueError(f"no half {half!r}; {nearest(half, list(HALVES))}")
    boxed = np.flatnonzero(pd.Series(dataset.image_ids).isin(dataset.boxes["image_id"]))
    halves = pd.Series(dataset.patient_ids[boxed]).map(box_halves())
    if len(strangers := np.unique(dataset.patient_ids[boxed][halves.isna()])):
        raise ValueError(
            f"{len(strangers)} patients of {dataset.name!r} have boxes but are in neither half, "
            f"such as {', '.join(strangers[:5])}; the halves are of the patients with official "
            "ChestX-ray14 boxes: give nih.load(...).test or a subset of it"
        )
    return dataset.subset(boxed[halves == half])


def boxval(truth: Truth) -> np.ndarray:
    """Which (image, finding) pairs are of patients on whom a threshold may be tuned.

    Of ChestX-ray14 it is the frozen half; other boxed patients are halved in the same way.

    Args:
        truth: P pairs.

    Returns:
        bool (P,); a patient's pairs are all in or all out.
    """
    patients, which = np.unique(truth.patient, return_inverse=True)
    frozen = box_halves()
    if truth.dataset.name == "nih" and np.isin(patients, frozen.index).all():
        return (frozen[patients] == HALVES[0]).to_numpy()[which]
    if not len(truth):
        return np.zeros(0, bool)
    image = truth.image.astype(str)
    boxes = pd.DataFrame({"image_id": image, "finding": truth.finding})
    halves = halve(boxes, pd.Series(which.astype(str), image).groupby(level=0).first())
    return (halves == HALVES[0])[which.astype(str)].to_numpy()


def leaked(image_ids: Sequence[str], tables: "Tables") -> pd.DataFrame:
    """What a list of training images gives away of the official test and boxed patients.

    For lists released with a checkpoint or a re-split: a score on the official test images, or on
    the boxes, is only clean if this table is empty.

    Args:
        image_ids: ChestX-ray14 images trained on, with or without suffix.
        tables: the official ones, from :func:`cxrlib.datasets.nih.read_tables`.

    Returns:
        one row for each patient with an image in the list and one in the official test list or
        with a box, the worst first. Columns: ``patient`` (string), and numbers of images: ``train``
        (in the list), ``test`` (in the official test list), ``boxed`` (with a box), ``boxed in
        train`` (with a box and in the list).

    Raises:
        ValueError: an image is not in the tables; names the first few.
    """
    names = stems(pd.Series([*image_ids], dtype="str"))
    images = tables.images
    unknown = names[~names.isin(images["image_id"])]
    if len(unknown):
        raise ValueError(
            f"{len(unknown)} of {len(names)} images are not in {tables.path}, such as "
            f"{', '.join(unknown.head(3))}; give names like 00000001_000.png"
        )
    train, boxed = images["image_id"].isin(names), images["image_id"].isin(tables.boxes["image_id"])
    is_in = {
        "train": train,
        "test": images["split"] == "test",
        "boxed": boxed,
        "boxed in train": train & boxed,
    }
    counts = pd.DataFrame(is_in).groupby(images["patient_id"]).sum()
    counts = counts[(counts["train"] > 0) & (counts[["test", "boxed"]] > 0).any(axis=1)]
    worst = counts.sort_values(["boxed in train", "boxed", "train"], ascending=False, kind="stable")
    return worst.rename_axis("patient").reset_index()
