import numpy as np
import pandas as pd
import pytest

from cxrlib.datasets.facts import boxed_truth
from cxrlib.datasets.nih import FRAME, read_tables
from cxrlib.metrics import PROTOCOLS, estimate, experiments
from cxrlib.metrics.controls import location_prior
from cxrlib.metrics.localization import measure, of_pairs
from cxrlib.phantom import dataset as phantom
from cxrlib.runs import committed


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        split = phantom.load(64, n_train=8, n_val=8, n_test=40)
        return experiments.single_boxes(split.test)


def test_boxes_are_single_and_off_the_pixel_edges(truth):
    assert len(truth) > 20 and truth.boxes.shape == (len(truth), 1, 4)
    inside = truth.boxes[:, 0][(truth.boxes[:, 0] > 0).all(axis=1)]
    from_edge = abs(inside * 64 - np.rint(inside * 64))
    assert (from_edge > 0.01).mean() > 0.9 and not truth.outlined
    assert ((truth.boxes >= 0) & (truth.boxes <= 1)).all()


def test_each_map_has_the_flaw_of_its_name(truth):
    maps = experiments.lineup(truth)
    assert len(maps) == 9
    for map_ in maps.values():
        assert map_.shape == (len(truth), 64, 64) and map_.dtype == np.float32
        assert map_.min() >= 0 and map_.max() <= 1
    sources = {name: of_pairs(map_, truth, 128) for name, map_ in maps.items()}
    found = measure(sources, truth, 128, ["maps", "pylon", "chexlocalize"])
    values = {name: of_map.pairs for name, of_map in found.items()}
    assert (values["perfect"]["pointing"] == 1).all()
    assert values["beside"]["pointing"].mean() < 0.8 < values["blob"]["pointing"].mean()
    # Faint and hazy maps differ from the blob in height alone: min-max does not see it.
    for name in ("faint", "hazy"):
        gap = values[name]["chexlocalize_otsu"] - values["blob"]["chexlocalize_otsu"]
        assert abs(gap).max() < 0.02
    assert values["hazy"]["pylon_iou"].max() < values["blob"]["pylon_iou"].mean()
    assert (
        values["faint"]["continuous_dice"].mean() < 0.5 * values["blob"]["continuous_dice"].mean()
    )
    assert maps["wide"].mean() > 4 * maps["blob"].mean() > 4 * maps["spot"].mean()


def test_numbers_of_sources_are_tidy(truth):
    maps = {"blob": experiments.lineup(truth)["blob"]}
    scores = experiments.score_lineup(truth, maps, 128, replicates=20)
    table = experiments.tidy(scores)
    assert len(table) == 5 * len(PROTOCOLS) * 2
    row = table.query("source == 'blob' and protocol == 'pointing' and finding == 'micro'").iloc[0]
    assert row["value"] == scores["blob"].replicates["pointing"][-1, 0] and row["n"] == len(truth)
    assert row["low"] <= row["value"] <= row["high"]


def test_a_perfect_box_suffers_from_a_coarse_frame(truth):
    table = experiments.frames(truth, (64, 128)).query("finding == 'macro'")
    value = table.set_index(["protocol", "size"])["value"]
    assert value["chexlocalize_miou_otsu", 64] < value["chexlocalize_miou_otsu", 128] < 1


def release(folder):
    """The tables of a tiny release: ten patients, one image and one box each."""
    names = [f"{patient:08}_000.png" for patient in range(1, 11)]
    images = pd.DataFrame(
        {"Image Index": names, "Finding Labels": "Mass", "Patient ID": range(1, 11)}
    )
    images.to_csv(folder / "Data_Entry_2017_v2020.csv", index=False)
    (folder / "test_list.txt").write_text("\n".join(names))
    (folder / "train_val_list.txt").write_text("")
    boxes = [(name, "Mass", 90.0 * k, 300.0, 200.0, 150.0) for k, name in enumerate(names)]
    columns = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]
    pd.DataFrame(boxes, columns=columns).to_csv(folder / "BBox_List_2017.csv", index=False)


def test_controls_of_real_boxes_need_tables_alone(tmp_path):
    release(tmp_path)
    experiments.main([str(tmp_path), str(tmp_path / "controls.csv")])
    table = pd.read_csv(tmp_path / "controls.csv")
    assert set(table["source"]) == {"random", "centre_prior", "location_prior", "grid_ceiling"}
    assert set(table["protocol"]) == set(PROTOCOLS) and (table["boxes"] == 10).all()
    ceiling = table.query("source == 'grid_ceiling' and protocol == 'pointing'")
    assert (ceiling["value"] == 1).all() and (ceiling["n"] == 10).all()


def test_committed_controls_are_those_of_the_official_boxes(shared):
    """The location prior of all 984 boxes is computed again; the table is complete."""
    table = committed("protocol_controls.csv")
    for _, of_set in table.groupby(["boxes", "source"]):
        assert sorted(of_set["protocol"].unique()) == sorted(PROTOCOLS)
    truth = boxed_truth(read_tables(shared / "nih-metadata"))
    prior = {"location_prior": location_prior(truth, FRAME)}
    measured = measure(prior, truth, FRAME, ["maps"])["location_prior"]
    names = ("pointing", "continuous_dice", "iou@0.5")
    again = experiments.tidy({"location_prior": estimate(measured, names)})
    rows = table[(table["boxes"] == 984) & (table["source"] == "location_prior")]
    rows = rows[rows["protocol"].isin(names)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows[again.columns], again, rtol=1e-4)
    counts = table[table["finding"].eq("micro") & table["protocol"].eq("pointing")]
    assert set(zip(counts["boxes"], counts["n"], strict=True)) == {(601, 601), (984, 984)}
