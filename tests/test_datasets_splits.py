import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_datasets_nih import NAMES, TEST, TRAIN, edit, write_tables

from cxrlib.datasets import nih, splits
from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset
from cxrlib.findings import BOXED

TOTALS = (180, 146, 153, 123, 85, 79, 120, 98)
"""Official boxes of each of the eight findings: 984."""


@pytest.fixture
def folder(tmp_path):
    write_tables(tmp_path)
    (tmp_path / "images").mkdir()
    for name in NAMES:
        Image.new("L", (40, 40)).save(tmp_path / "images" / name)
    return tmp_path


@pytest.fixture(scope="module")
def official(shared):
    return nih.read_tables(shared / "nih-metadata")


def patient_of(tables):
    return tables.images.set_index("image_id")["patient_id"]


def boxed_dataset(tables):
    """The official images with labels and boxes; nothing here reads pixels."""
    ids, patients = tables.images["image_id"], tables.images["patient_id"]
    return CXRDataset("nih", ids, patients, tables.labels, tables.boxes, 64, nih.Reader({}, 64, ""))


@pytest.mark.parametrize("k", [2, 3, 5, 10, 100])
def test_folds_keep_patients_whole_and_are_even(k):
    patients = np.repeat(np.arange(100).astype(str), np.arange(100) % 7 + 1)
    fold = splits.folds(patients, k, seed=1)
    assert fold.dtype == np.int64
    assert fold.shape == patients.shape
    table = pd.DataFrame({"patient": patients, "fold": fold}).drop_duplicates()
    assert len(table) == 100
    sizes = table["fold"].value_counts()
    assert sorted(sizes.index) == list(range(k))
    assert sizes.max() - sizes.min() <= 1


def test_folds_are_decided_by_the_seed_not_the_order():
    patients = np.repeat(np.arange(60).astype(str), 2)
    fold = splits.folds(patients, 5, seed=1)
    order = np.random.default_rng(0).permutation(len(patients))
    assert (fold[order] == splits.folds(patients[order], 5, seed=1)).all()
    assert (fold != splits.folds(patients, 5, seed=2)).any()


@pytest.mark.parametrize("k", [-1, 0, 1, 4])
def test_a_wrong_number_of_folds_is_refused(k):
    with pytest.raises(ValueError, match=f"{k} folds of 3 patients; give 2 to 3 folds"):
        splits.folds(np.array(["a", "b", "b", "c"]), k, seed=0)


def test_halving_by_hand():
    """The most boxes first; then each patient goes where its findings are fewer."""
    rows = [("90", 0), ("90", 0), ("90", 1), ("7", 0), ("7", 1), ("8", 2), ("10", 2), ("9", 1)]
    boxes = pd.DataFrame([(f"i{p}", f, 0, 0, 1, 1) for p, f in rows], columns=BOX_COLUMNS)
    patients = pd.Series({f"i{patient}": patient for patient, _ in rows})
    # 90: no lead -> boxval. 7: meets 90 -> boxtest; boxval now leads by one box of finding 0.
    # 8: no lead in finding 2, images or patients -> boxval. 9: boxval leads by that image and
    # patient -> boxtest. 10: so it does in finding 2 -> boxtest. (As text, 10 is before 9.)
    expected = {"7": "boxtest", "8": "boxval", "9": "boxtest", "10": "boxtest", "90": "boxval"}
    assert splits.halve(boxes, patients).to_dict() == expected
    assert splits.halve(boxes.iloc[::-1], patients).to_dict() == expected
    assert list(splits.halve(boxes, patients).index) == ["7", "8", "9", "10", "90"]


def test_the_frozen_halves_are_those_of_the_official_boxes(official):
    pd.testing.assert_series_equal(
        splits.box_halves(),
        splits.halve(official.boxes, patient_of(official)).rename_axis("patient"),
    )


def test_the_frozen_halves_are_disjoint_and_even(official):
    data = boxed_dataset(official)
    val, test = (splits.box_half(data, half) for half in splits.HALVES)
    assert not set(val.patient_ids) & set(test.patient_ids)
    assert set(val.image_ids) | set(test.image_ids) == set(official.boxes["image_id"])
    for part in (val, test):
        assert len(part) == 440
        assert len(set(part.patient_ids)) == 363
    counts = np.array(
        [np.bincount(part.boxes["finding"], minlength=len(BOXED)) for part in (val, test)]
    )
    assert counts.sum(axis=0).tolist() == list(TOTALS)
    assert counts[0].tolist() == [89, 73, 76, 62, 43, 39, 60, 49]
    assert np.abs(counts[0] - counts[1]).max() <= 2
    assert set(test.image_ids) <= set(data.image_ids[official.images["split"] == "test"])


def test_the_halves_are_alike_in_the_size_of_boxes(official):
    """They were balanced in numbers only; sizes must not differ by more than chance allows."""
    boxes = official.boxes
    area = (boxes["x1"] - boxes["x0"]) * (boxes["y1"] - boxes["y0"])
    half = boxes["image_id"].map(patient_of(official)).map(splits.box_halves())
    medians = area.groupby([boxes["finding"], half]).median().unstack()
    assert (np.log(medians["boxval"] / medians["boxtest"]).abs() < 0.25).all()


def test_box_half_of_a_part_of_the_images(shared):
    data = nih.load(shared / "nih-mini", 32).test
    halves = [splits.box_half(data, half) for half in splits.HALVES]
    assert sum(map(len, halves)) == 529
    assert sum(len(half.boxes) for half in halves) == 601
    assert all(len(half[0].boxes) for half in halves)


def test_box_half_refuses_strangers_and_other_names(folder):
    test = nih.load(folder, 32).test
    with pytest.raises(
        ValueError, match=r"no half 'boxvalid'; did you mean 'boxval'\? Valid: boxv"
    ):
        splits.box_half(test, "boxvalid")
    with pytest.raises(
        ValueError, match=r"2 patients of 'nih' have boxes .* such as 11, 12; .*load"
    ):
        splits.box_half(test, "boxval")
    assert len(splits.box_half(test.subset(np.array([1])), "boxtest")) == 0  # has no box


def test_leaked_names_the_patients(folder):
    edit(folder, TEST, NAMES[-4] + "\n", "")
    edit(folder, TRAIN, NAMES[0], f"{NAMES[0]}\n{NAMES[-4]}")  # a boxed patient on both sides
    tables = nih.read_tables(folder)
    found = splits.leaked([NAMES[0], NAMES[-4], NAMES[-3], "00000012_000", NAMES[-3]], tables)
    assert found.to_dict("list") == {
        "patient": ["11", "12"],
        "train": [2, 1],
        "test": [1, 2],
        "boxed": [1, 1],
        "boxed in train": [1, 0],
    }
    assert splits.leaked(NAMES[:4], tables).empty
    assert splits.leaked([], tables).empty


def test_leaked_refuses_images_that_do_not_exist(folder):
    message = (
        r"2 of 3 images are not in .*2017_v2020\.csv, such as x, y; give names like 0+1_000.png"
    )
    with pytest.raises(ValueError, match=message):
        splits.leaked(["x.png", NAMES[0], "y"], nih.read_tables(folder))


def test_the_official_lists_leak_nothing_and_a_random_one_much(official):
    ids = official.images["image_id"]
    assert splits.leaked(ids[official.images["split"] == "train_val"], official).empty
    some = np.random.default_rng(0).random(len(ids)) < 0.7
    found = splits.leaked(ids[some], official)
    images = official.images[some]
    test_patients = set(official.images.loc[official.images["split"] == "test", "patient_id"])
    assert set(found["patient"]) == test_patients & set(images["patient_id"])
    assert found["train"].sum() == images["patient_id"].isin(test_patients).sum()
    boxed = set(official.boxes["image_id"])
    assert found["boxed in train"].sum() == len(boxed & set(images["image_id"]))
    assert found["boxed in train"].is_monotonic_decreasing


def test_every_fold_of_nih_validates_once(folder):
    edit(folder, TEST, NAMES[-4] + "\n", "")
    edit(folder, TRAIN, NAMES[0], f"{NAMES[0]}\n{NAMES[-4]}")
    edit(folder, TEST, NAMES[-3] + "\n", "")
    edit(folder, TRAIN, NAMES[0], f"{NAMES[0]}\n{NAMES[-3]}")  # patient 11 has a box: left out
    parts = [nih.load(folder, 32, fold=(fold, 3)) for fold in range(3)]
    assert sorted(name for split in parts for name in split.val.image_ids) == [
        name.removesuffix(".png") for name in NAMES[:20]
    ]
    for fold, split in enumerate(parts):
        assert len(split.train) + len(split.val) == 20
        assert not set(split.train.patient_ids) & set(split.val.patient_ids)
        assert split.test.image_ids.tolist() == parts[0].test.image_ids.tolist()
        assert split.notes == (
            f"official lists; val is fold {fold} of 3 of the train_val patients, seed 0",
            "2 train_val images left out because their patients have boxes",
        )


def test_the_hash_of_a_fold_is_stable(folder):
    hashes = [nih.load(folder, 32, fold=(fold, 5)).split_hash for fold in range(5)]
    assert len({*hashes, nih.load(folder, 32).split_hash}) == 6
    assert nih.load(folder, 32, fold=(3, 5)).split_hash == hashes[3]
    assert nih.load(folder, 32, fold=(3, 5), seed=1).split_hash != hashes[3]
    assert hashes[0] == "2fc9dbefb722"  # the same on every machine and in every run


@pytest.mark.parametrize("fold", [(-1, 5), (5, 5), (0, 0)])
def test_a_fold_out_of_range_is_refused(folder, fold):
    message = (
        rf"fold is \({fold[0]}, {fold[1]}\); give \(i, k\), fold i of k, with i from 0 to k - 1"
    )
    with pytest.raises(ValueError, match=message):
        nih.load(folder, 32, fold=fold)


@pytest.mark.parametrize("fold", [(0, 1), (3, 11)])
def test_an_impossible_number_of_folds_is_refused(folder, fold):
    with pytest.raises(ValueError, match=f"{fold[1]} folds of 10 patients; give 2 to 10 folds"):
        nih.load(folder, 32, fold=fold)


def test_limit_train_goes_with_a_fold(folder):
    split = nih.load(folder, 32, fold=(1, 5), limit_train=6)
    assert (len(split.train), len(split.val)) == (6, 1)
