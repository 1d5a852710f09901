"""The tables about labels, re-splits and boxes: worked out by hand, and as committed."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import runs
from cxrlib.datasets import facts, nih
from cxrlib.datasets.agreement import compare, label_agreement
from cxrlib.datasets.agreement import main as write_agreement
from cxrlib.datasets.base import BOX_COLUMNS
from cxrlib.findings import FINDINGS


def tables(tmp_path, labels, patients, is_test, boxes=()):
    images = pd.DataFrame(
        {
            "image_id": [f"{index:08d}_000" for index in range(len(labels))],
            "patient_id": patients,
            "split": np.where(is_test, "test", "train_val"),
        }
    )
    rows = [(images["image_id"][image], finding, *corners) for image, finding, corners in boxes]
    return nih.Tables(images, labels, pd.DataFrame(rows, columns=BOX_COLUMNS), tmp_path / "t.csv")


@pytest.fixture
def four(tmp_path):
    """Mass and Nodule on image 0, Mass on 1, nothing on 2 and 3; patients a, a, b, c."""
    labels = np.zeros((4, 14), np.float32)
    labels[:2, 4] = labels[0, 5] = 1
    boxes = [(3, 5, (0.5, 0.5, 0.55, 0.55))]
    return tables(tmp_path, labels, ["a", "a", "b", "c"], [False, False, True, True], boxes)


def test_counts_by_hand(four):
    table = facts.label_counts(four).set_index(["split", "label"])
    assert len(table) == 2 * 15
    mass = {"images": 2, "patients": 1, "positive": 2, "share": 1.0}
    assert table.loc["train_val", "Mass"].to_dict() == mass
    assert table.loc[("train_val", "No Finding"), "positive"] == 0
    assert table.loc[("test", "No Finding"), "share"] == 1
    assert table.loc[("test", "Mass"), "share"] == 0


def test_cooccurrence_by_hand(four):
    table = facts.cooccurrence(four).set_index(["given", "finding"])
    assert len(table) == 14 * 13
    # Half of the images with a mass have a nodule, where a quarter of all have one.
    assert table.loc["Mass", "Nodule"].to_dict() == {"n": 2, "both": 1, "lift": 2.0}
    assert table.loc["Nodule", "Mass"].to_dict() == {"n": 1, "both": 1, "lift": 2.0}
    assert table.loc[("Mass", "Edema"), "both"] == 0


def test_resplits_by_patient_leak_nobody_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    patients = rng.integers(40, size=200).astype(str)
    is_test = np.isin(patients, [str(number) for number in range(10)])
    boxed = np.flatnonzero(is_test)[:9]
    boxes = [(int(image), 5, (0.1, 0.1, 0.3, 0.3)) for image in boxed]
    given = tables(tmp_path, np.zeros((200, 14), np.float32), patients, is_test, boxes)
    table = facts.resplits(given, seeds=range(3))
    assert table.groupby("by").size().to_dict() == {"image": 3, "patient": 3}
    assert (table["held out"] + table["train"] == 200).all()
    by_image, by_patient = table[table["by"] == "image"], table[table["by"] == "patient"]
    assert (by_patient["held out seen"] == 0).all()
    assert (by_image["held out seen"] > 0.9 * by_image["held out"]).all()
    assert (by_image["train"] == 140).all()
    assert (table["boxed"] == 9).all() and table["boxed seen"].between(1, 9).all()
    assert (table["test patients"] == len(set(patients[is_test]))).all()
    assert by_image["test patients seen"].min() >= by_patient["test patients seen"].max()


def test_a_perfect_map_is_perfect_on_a_fine_grid_and_misses_on_a_coarse_one(four):
    table = facts.grid_ceiling(four, grids=(2, 512)).set_index(["grid", "metric", "finding"])
    assert set(table.index.get_level_values("finding")) == {"Nodule", "macro"}
    assert table.loc[(512, "pointing", "Nodule"), "value"] == 1
    assert table.loc[(512, "continuous_dice", "macro"), "value"] > 0.97
    # The quarter that holds the nodule is a plateau of 256 px beside the centre of the image.
    assert table.loc[(2, "pointing", "Nodule"), "value"] < 0.1
    assert table.loc[(2, "continuous_dice", "Nodule"), "value"] < 0.1


def test_the_committed_tables_are_those_of_the_release(shared):
    official = nih.read_tables(shared / "nih-metadata")
    for name in ("label_counts.csv", "label_cooccurrence.csv"):
        pd.testing.assert_frame_equal(
            facts.TABLES[name](official), runs.committed(name), rtol=1e-5, check_dtype=False
        )
    leaks = runs.committed("resplit_leaks.csv")
    again = facts.resplits(official, seeds=[0])
    kept = leaks[leaks["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, kept)
    ceiling = runs.committed("grid_ceiling.csv")
    coarse = facts.grid_ceiling(official, grids=[7])
    kept = ceiling[ceiling["grid"] == 7].reset_index(drop=True)
    pd.testing.assert_frame_equal(coarse, kept, rtol=1e-4, check_dtype=False)


def test_every_table_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "read_tables", lambda folder: folder)
    table = pd.DataFrame({"value": [0.25]})
    monkeypatch.setattr(facts, "TABLES", {"one.csv": lambda tables: table})
    facts.main(["somewhere", str(tmp_path / "out")])
    assert (tmp_path / "out" / "one.csv").read_text() == "value\n0.25\n"


def test_shares_and_intervals_by_hand():
    labelled = np.array([True] * 4 + [False] * 6)
    seen = np.array([True] * 3 + [False] * 6 + [True])
    table = compare(labelled, seen).set_index("measure")
    assert table["k"].to_dict() == {"ppv": 3, "missed": 1, "sensitivity": 3}
    assert table["n"].to_dict() == {"ppv": 4, "missed": 6, "sensitivity": 4}
    z, p, n = 1.959964, 0.75, 4
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    ends = table.loc["ppv", ["low", "high"]].astype(float)
    assert ends.to_numpy() == pytest.approx([centre - half, centre + half], abs=1e-6)


def test_no_case_is_nan():
    table = compare(np.array([False, False]), np.array([True, False])).set_index("measure")
    assert table.loc["ppv", "n"] == 0 and np.isnan(table.loc["ppv", "value"])
    assert table.loc["sensitivity", "value"] == 0


def test_agreement_is_as_committed(tmp_path, shared):
    write_agreement([str(shared / "nih-mini"), str(tmp_path / "out.csv")])
    table = pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_frame_equal(table, runs.committed("label_agreement.csv"))
    assert set(table["seen"]) - set(FINDINGS) == {"Lung Opacity", "Normal"}
    rsna = table[(table["reference"] == "RSNA") & (table["label"] == "Pneumonia")]
    assert rsna.set_index("measure")["k"].to_dict() == {"ppv": 62, "missed": 64, "sensitivity": 62}


def test_strangers_are_refused(tmp_path, shared):
    for path in (shared / "nih-mini").glob("*.*"):
        (tmp_path / path.name).symlink_to(path)
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "rsna_class.csv").write_text("image_id,rsna_class\n99999999_000.png,Normal\n")
    (extra / "rsna_boxes.csv").write_text("image_id,label,x1024,y1024,w1024,h1024\n")
    for name in ("chestxdet_boxes.csv", "chestxdet_polygons.json"):
        (extra / name).symlink_to(shared / "nih-mini" / "extra" / name)
    with pytest.raises(ValueError, match=r"1 images that are not in .*99999999_000; delete"):
        label_agreement(tmp_path)
