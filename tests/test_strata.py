"""Scores by size of the finding, of the runs of a study."""

import json

import pandas as pd
import pytest

from cxrlib import datasets, metrics
from cxrlib.files import write_json
from cxrlib.predictions import Predictions
from cxrlib.strata import METRICS, by_stratum, main

PHANTOM = {"n_train": 40, "n_val": 10, "n_test": 40, "prevalence": 0.3, "lesion_contrast": 4.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs whose maps are the truth of another finding's place: any map will do."""
    root = tmp_path_factory.mktemp("runs")
    test = datasets.load("phantom", None, 64, seed=0, **PHANTOM).test
    scores = test.labels * 0.5
    for r0 in (0.0, 5.0):
        folder = root / f"r0-{r0:g}"
        folder.mkdir()
        maps = (r0 + 1) / 10 * (1 + test.labels[:, :, None, None].repeat(4, 2).repeat(4, 3)) / 2
        made = Predictions.from_arrays(
            test.image_ids, scores, map_ids=test.image_ids, maps=maps, frame=64
        )
        with open(folder / "predictions.npz", "wb") as file:
            made.write(file)
        write_json(folder / "metrics.json", metrics.evaluate(made, test, replicates=50))
        params = {"r0": r0, "seed": 0, "dataset": "phantom", "image_size": 64, "phantom": PHANTOM}
        write_json(folder / "params.json", params)
        decides = {"source": "x", "data_hash": "d"}
        write_json(folder / "environment.json", {"decides": decides, "git_commit": "abc"})
    return root


def test_every_stratum_has_the_model_and_its_controls(runs, tmp_path):
    main([str(runs), str(tmp_path / "sizes.csv"), "--by", "r0", "seed"])
    table = pd.read_csv(tmp_path / "sizes.csv")
    parts = {"localization", "random", "location_prior", "centre_prior", "grid_ceiling"}
    for _, rows in table.groupby(["r0", "stratum"]):
        assert set(rows["part"]) == parts and set(rows["metric"]) == set(METRICS)
    ours = table[table["part"] == "localization"]
    assert ours.groupby(["r0", "metric"])["n"].sum().nunique() == 1  # strata are a partition
    kept = json.loads((runs / "r0-5" / "metrics.json").read_text())["strata"]["size"]
    row = ours.query("r0 == 5 and stratum == 'large' and metric == 'pointing'")
    assert row["value"].item() == pytest.approx(kept["large"]["pointing"]["value"], rel=1e-5)


def test_controls_of_strata_add_up_to_those_of_all(runs):
    table = by_stratum(runs, ["r0"]).query("r0 == 5")
    document = json.loads((runs / "r0-5" / "metrics.json").read_text())["controls"]
    for control in ("random", "location_prior", "grid_ceiling"):
        rows = table.query("part == @control and metric == 'continuous_dice'")
        mean = (rows["value"] * rows["n"]).sum() / rows["n"].sum()
        assert mean == pytest.approx(document[control]["continuous_dice"]["micro"]["value"])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished run below"):
        by_stratum(tmp_path, ["r0"])
