"""Learning from some boxes: a dataset whose batches hold masks, and splits that train on one.

Boxes to learn from are kept apart from boxes to be scored on, so that the check for leaks
(:meth:`cxrlib.datasets.base.Split.refuse_leaks`) holds with them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrlib.datasets.base import Batch, CXRDataset, Split, Truth, split_patients
from cxrlib.datasets.coverage import rasterize
from cxrlib.datasets.extra import with_truth
from cxrlib.datasets.splits import folds
from cxrlib.datasets.tables import stems
from cxrlib.findings import FINDINGS


class BoxTaught(CXRDataset):
    """Radiographs, some of which have boxes to learn from.

    Args:
        dataset: the radiographs.
        lessons: table with the columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`, of images of
            the dataset.

    Batches are those of the dataset, with masks: the pixels of which a box covers at least half.
    Samples are the dataset's own.

    >>> ids, boxes = np.array(["a", "b"]), pd.DataFrame([["b", 4, 0, 0, 0.5, 1]])
    >>> boxes.columns = ["image_id", "finding", "x0", "y0", "x1", "y1"]
    >>> read = lambda image_id: np.zeros((2, 2), np.uint8)
    >>> plain = CXRDataset("mine", ids, ids, np.zeros((2, 14)), boxes[:0], 2, read)
    >>> BoxTaught(plain, boxes).__getitems__([1]).masks[0, 4].tolist()
    [[True, False], [True, False]]
    """

    def __init__(self, dataset: CXRDataset, lessons: pd.DataFrame) -> None:
        super().__init__(
            dataset.name,
            dataset.image_ids,
            dataset.patient_ids,
            dataset.labels,
            dataset.boxes,
            dataset.image_size,
            dataset.read_pixels,
            dataset.read_masks,
            dataset.views,
            dataset.read_original,
        )
        self.lessons = lessons.reset_index(drop=True)
        self._truth = Truth(with_truth(dataset, self.lessons))
        self._pairs = pd.Series(np.arange(len(self._truth))).groupby(self._truth.image).indices

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch at ``indices``, with masks bool (B, 14, H, W)."""
        batch, side = super().__getitems__(indices), self.image_size
        masks = torch.zeros(len(indices), len(FINDINGS), side, side, dtype=torch.bool)
        for mask, index in zip(masks, np.asarray(indices).tolist(), strict=True):
            pairs = self._pairs.get(index, [])
            covered = rasterize(self._truth.boxes[pairs], side) >= 0.5
            mask[torch.from_numpy(self._truth.finding[pairs])] = torch.from_numpy(covered)
        return batch._replace(masks=masks)

    def subset(self, indices: np.ndarray) -> "BoxTaught":
        """The same dataset with only these images, in this order, and their lessons."""
        part = super().subset(indices)
        return BoxTaught(part, self.lessons[self.lessons["image_id"].isin(part.image_ids)])


def teach_boxes(
    split: Split, *, fold: tuple[int, int] = (0, 5), share: float = 1.0, seed: int = 0
) -> Split:
    """HAM's second setting without its leaks: some boxed images to train on, the others to test on.

    The patients with boxes, who are all in the test part, are divided into folds. One fold stays
    to be tested on, with all patients without boxes. The boxed images of the other folds go to the
    training part; no other image of their patients is used.

    Args:
        split: patient-disjoint, as a dataset's ``load`` gives it.
        fold: (i, k) tests on fold i, 0 to k - 1, of k.
        share: of the patients that go to training, how many teach with their boxes, 0 to 1; the
            images of the others are there with their labels, so that all shares train on the same
            images and test on the same.
        seed: of folds and share.

    Raises:
        ValueError: an argument is out of range, or there are fewer patients with boxes than folds.
    """
    i, k = fold
    if not 0 <= i < k:
        raise ValueError(f"fold is {fold}; give (i, k), fold i of k, with i from 0 to k - 1")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; give a share of the boxed patients, 0 to 1")
    test = split.test
    boxed = np.isin(test.image_ids, test.boxes["image_id"].to_numpy(str))
    patients = test.patient_ids[boxed]
    moved = np.unique(patients[folds(patients, k, seed) != i])
    staying = ~np.isin(test.patient_ids, moved)
    new = test.subset(np.flatnonzero(boxed & ~staying))
    teaches = split_patients(new.patient_ids, share, seed)
    lessons = new.boxes[new.boxes["image_id"].isin(new.image_ids[teaches])]
    note = (
        f"fold {i} of {k} of the patients with boxes is tested on, seed {seed}; {len(new)} images "
        f"of the others are trained on, {int(teaches.sum())} of them with boxes"
    )
    train = BoxTaught(_joined(split.train, new), lessons)
    result = replace(
        split, train=train, test=test.subset(np.flatnonzero(staying)), notes=(*split.notes, note)
    )
    result.refuse_leaks()
    return result


@dataclass(frozen=True)
class LeakySplit(Split):
    """A split that shares patients between its parts, to compare with numbers that did so."""

    def refuse_leaks(self) -> None:
        """Refuse nothing: the notes say what leaks."""


def released_fold_with_leaks(split: Split, lists: Path | str, fold: int) -> LeakySplit:
    """One of HAM's released folds of ChestX-ray14, which share patients: for comparison only.

    Half of the images without boxes and four fifths of those with boxes are trained on; the other
    boxed images are tested on. The released code chooses its checkpoint on the images it tests on;
    here the patients of ``split.val`` who are not trained on choose it.

    Args:
        split: from :func:`cxrlib.datasets.nih.load`, of all images.
        lists: ``ImageSets`` of the release.
        fold: 1 to 5.

    Raises:
        OSError: a list is absent.
        ValueError: the fold does not exist, or the split lacks an image of a list.
    """
    if fold not in range(1, 6):
        raise ValueError(f"fold is {fold}; the released folds are 1 to 5")
    everything = _joined(_joined(split.train, split.val), split.test)
    everything = with_truth(everything, split.test.boxes)

    def listed(name: str) -> np.ndarray:
        path = Path(lists).expanduser() / name
        names = stems(pd.Series(path.read_text().split(), dtype="str")).to_numpy(str)
        if len(lost := names[~np.isin(names, everything.image_ids)]):
            raise ValueError(
                f"{len(lost)} of {len(names)} images of {path} are not in the split, such as "
                f"{', '.join(lost[:3])}; load all of ChestX-ray14, without limit_train"
            )
        return names

    def part(names: np.ndarray) -> CXRDataset:
        return everything.subset(np.flatnonzero(np.isin(everything.image_ids, names)))

    train = part(listed(f"Main/fold{fold}/train_0.5_0.8.txt"))
    test = part(listed(f"bbox/fold{fold}/test.txt"))
    taught = listed(f"bbox/fold{fold}/train_0.8.txt")
    new = ~np.isin(split.val.patient_ids, train.patient_ids)
    val = split.val.subset(np.flatnonzero(new))
    lessons = train.boxes[train.boxes["image_id"].isin(taught)]
    shared = np.intersect1d(test.patient_ids, train.patient_ids)
    note = (
        f"released fold {fold}, for comparison only: {len(shared)} of "
        f"{len(np.unique(test.patient_ids))} test patients are also trained on"
    )
    train = BoxTaught(with_truth(train, train.boxes[:0]), lessons)
    return LeakySplit(train, val, test, split.data_hash, (*split.notes, note))


def swap_siblings(split: Split, seed: int = 0) -> tuple[LeakySplit, LeakySplit]:
    """Two splits with the same test images, each of which leaks half of their patients.

    Our re-creation of a division by image, to measure what it is worth; for comparison only. One
    image with a box of each test patient with several images is tested on. The other images of half
    of these patients are trained on in one split, with their boxes, those of the other half in the
    other split, and as many. So each test image has one model that has seen its patient and one, as
    well taught, that has not. The choosing part stays free of all of them.

    Args:
        split: patient-disjoint, as a dataset's ``load`` gives it.
        seed: of the halves.

    Raises:
        ValueError: fewer than two test patients have a box and another image.
    """
    test = split.test
    table = pd.DataFrame({"patient": test.patient_ids})
    table["boxed"] = np.isin(test.image_ids, test.boxes["image_id"].to_numpy(str))
    table = table.sort_values("boxed", ascending=False, kind="stable")
    of_patient = table.groupby("patient")
    table["place"] = of_patient.cumcount()  # 0: the first with a box
    table = table[
        of_patient["boxed"].transform("any") & (of_patient["place"].transform("size") > 1)
    ]
    siblings = table[table["place"] > 0]
    # Those with many images are dealt out as evenly as those with few.
    counts = siblings.groupby("patient").size().sample(frac=1, random_state=seed)
    patients = counts.sort_values(kind="stable").index
    if len(patients) < 2:
        raise ValueError(
            f"{len(patients)} test patients have a box and another image; 2 are needed"
        )
    halves = [siblings.index[siblings["patient"].isin(patients[k::2])] for k in (0, 1)]
    n = min(map(len, halves))
    tested = test.subset(np.sort(table.index[table["place"] == 0]))
    one, other = (_with_siblings(split, tested, np.sort(half[:n])) for half in halves)
    return one, other


def _with_siblings(split: Split, tested: CXRDataset, siblings: np.ndarray) -> LeakySplit:
    """Train also on these images of the test part, with their boxes; test on ``tested``."""
    new = split.test.subset(siblings)
    known = np.isin(tested.patient_ids, new.patient_ids)
    note = (
        f"our re-creation of a leak, for comparison only: {len(new)} other images of "
        f"{int(known.sum())} of {len(tested)} test patients are also trained on"
    )
    train = BoxTaught(_joined(split.train, new), new.boxes)
    return LeakySplit(train, split.val, tested, split.data_hash, (*split.notes, note))


def _joined(one: CXRDataset, other: CXRDataset) -> CXRDataset:
    """The images of two parts of one dataset, without boxes and masks."""
    return CXRDataset(
        one.name,
        np.concatenate([one.image_ids, other.image_ids]),
        np.concatenate([one.patient_ids, other.patient_ids]),
        np.concatenate([one.labels, other.labels]),
        one.boxes[:0],
        one.image_size,
        one.read_pixels,  # of all parts
        views=np.concatenate([one.views, other.views]),
        read_original=one.read_original,
    )
