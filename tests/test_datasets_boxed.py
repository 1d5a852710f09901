import numpy as np
import pandas as pd
import pytest

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split
from cxrlib.datasets.boxed import (
    BoxTaught,
    LeakySplit,
    released_fold_with_leaks,
    swap_siblings,
    teach_boxes,
)


def read_pixels(image_id: str) -> np.ndarray:
    return np.full((8, 8), int(image_id.split("_")[0]), np.uint8)


def part(patients: range, boxed: range = range(0)) -> CXRDataset:
    """Two images of each patient; the first image of some has a box of finding 4."""
    ids = np.array([f"{patient:03d}_{image}" for patient in patients for image in range(2)])
    rows = [(f"{patient:03d}_0", 4, 0.25, 0.0, 0.75, 0.5) for patient in boxed]
    boxes = pd.DataFrame(rows, columns=BOX_COLUMNS)
    labels = np.zeros((len(ids), 14))
    return CXRDataset("nih", ids, ids.astype("<U3"), labels, boxes, 8, read_pixels)


@pytest.fixture
def split() -> Split:
    return Split(part(range(20)), part(range(20, 25)), part(range(30, 60), range(30, 45)), "data")


def test_every_boxed_patient_is_tested_on_once(split):
    tested = []
    for i in range(5):
        fold = teach_boxes(split, fold=(i, 5))
        fold.refuse_leaks()
        tested += sorted(set(fold.test.boxes["image_id"]))
        assert len(fold.train) == len(split.train) + 12 and len(fold.train.lessons) == 12
        assert len(fold.test) == len(split.test) - 2 * 12
        assert not set(fold.train.patient_ids) & set(fold.test.patient_ids)
        assert fold.val is split.val and fold.split_hash != split.split_hash
        assert f"fold {i} of 5" in fold.notes[-1] and "12 of them with boxes" in fold.notes[-1]
    assert sorted(tested) == [f"{patient:03d}_0" for patient in range(30, 45)]


def test_the_share_changes_the_boxes_only(split):
    counts = []
    for share in (0, 0.5, 1):
        fold = teach_boxes(split, share=share)
        counts.append(len(fold.train.lessons))
        assert fold.split_hash == teach_boxes(split).split_hash
    assert counts == [0, 6, 12]


def test_masks_are_of_the_boxes_and_follow_a_subset(split):
    train = teach_boxes(split).train
    index = int(np.flatnonzero(train.image_ids == train.lessons["image_id"].iloc[0])[0])
    batch = train.__getitems__([0, index])
    expected = np.zeros((14, 8, 8), bool)
    expected[4, :4, 2:6] = True
    assert not batch.masks[0].any() and np.array_equal(batch.masks[1].numpy(), expected)
    assert batch.images[1].unique().item() == int(train.patient_ids[index])
    one = train.subset(np.array([index]))
    assert isinstance(one, BoxTaught) and len(one.lessons) == 1
    assert np.array_equal(one.__getitems__([0]).masks[0].numpy(), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": (5, 5)}, r"fold is \(5, 5\)"),
        ({"fold": (0, 16)}, "16 folds of 15 patients"),
        ({"share": 1.1}, "share is 1.1"),
    ],
)
def test_what_cannot_be_is_refused(split, arguments, message):
    with pytest.raises(ValueError, match=message):
        teach_boxes(split, **arguments)


def test_a_released_fold_leaks_and_says_so(split, tmp_path):
    lists = {
        "Main/fold1/train_0.5_0.8.txt": ["000_0", "020_0", "030_0", "031_0", "032_1"],
        "bbox/fold1/train_0.8.txt": ["030_0", "031_0"],
        "bbox/fold1/test.txt": ["032_0", "033_0"],
    }
    for name, images in lists.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(f"{image}.png\n" for image in images))
    fold = released_fold_with_leaks(split, tmp_path, 1)
    assert isinstance(fold, LeakySplit)
    fold.refuse_leaks()
    with pytest.raises(ValueError, match="1 patients are in both 'train' and 'test', such as 032"):
        Split.refuse_leaks(fold)
    assert "1 of 2 test patients are also trained on" in fold.notes[-1]
    parts = {name: sorted(part.image_ids) for name, part in fold.parts.items()}
    assert parts["train"] == lists["Main/fold1/train_0.5_0.8.txt"]
    assert parts["test"] == lists["bbox/fold1/test.txt"] == sorted(fold.test.boxes["image_id"])
    assert not {"020_0", "020_1"} & set(parts["val"]) and len(parts["val"]) == 8
    assert sorted(fold.train.lessons["image_id"]) == lists["bbox/fold1/train_0.8.txt"]
    with pytest.raises(ValueError, match="the released folds are 1 to 5"):
        released_fold_with_leaks(split, tmp_path, 0)
    (tmp_path / "bbox/fold1/test.txt").write_text("999_0.png\n")
    with pytest.raises(ValueError, match=r"1 of 1 images of .*test.txt are not in the split"):
        released_fold_with_leaks(split, tmp_path, 1)


def test_each_test_image_has_a_model_that_knows_its_patient_and_one_that_does_not(split):
    swapped = swap_siblings(split)
    one, other = swapped
    assert one.test.image_ids.tolist() == other.test.image_ids.tolist()
    assert one.test.image_ids.tolist() == [f"{patient:03d}_0" for patient in range(30, 45)]
    known = [np.isin(part.test.patient_ids, part.train.patient_ids) for part in swapped]
    assert not (known[0] & known[1]).any() and known[0].sum() == known[1].sum() == 7
    for part in swapped:
        assert len(part.train) == len(split.train) + 7
        assert not set(part.train.image_ids) & set(part.test.image_ids)
        assert part.val is split.val and "7 of 15 test patients" in part.notes[-1]
        assert not set(part.val.patient_ids) & set(part.train.patient_ids)
        with pytest.raises(ValueError, match="7 patients are in both 'train' and 'test'"):
            Split.refuse_leaks(part)
    again, moved = swap_siblings(split)[0], swap_siblings(split, seed=1)[0]
    assert again.split_hash == one.split_hash != moved.split_hash


def test_what_a_sibling_shows_is_taught_with_its_boxes(split):
    boxes = pd.concat([split.test.boxes, split.test.boxes.assign(image_id="030_1")[:1]])
    test = part(range(30, 60), range(30, 45))
    test = CXRDataset(
        "nih", test.image_ids, test.patient_ids, test.labels, boxes, 8, test.read_pixels
    )
    lessons = [
        part.train.lessons for part in swap_siblings(Split(split.train, split.val, test, ""))
    ]
    assert sorted(map(len, lessons)) == [0, 1]
    assert pd.concat(lessons)["image_id"].tolist() == ["030_1"]


def test_a_swap_needs_two_patients(split):
    few = Split(split.train, split.val, part(range(30, 60), range(30, 31)), "")
    with pytest.raises(ValueError, match="1 test patients have a box and another image"):
        swap_siblings(few)
