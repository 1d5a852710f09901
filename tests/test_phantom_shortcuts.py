"""Devices that give findings away."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.findings import FINDINGS
from cxrlib.phantom.devices import CONFOUNDERS
from cxrlib.phantom.population import render
from cxrlib.phantom.shortcuts import (
    CONFOUNDED,
    TESTS,
    ShortcutParameters,
    answers,
    load,
    main,
)
from cxrlib.predictions import Predictions
from cxrlib.studies import by_seed

SMALL = {"image_size": 64, "phantom": {"n_train": 64, "n_val": 16, "n_test": 48, "prevalence": 0.3}}


def parameters(**given):
    names = ("data_dir", "run_dir", "image_size", "epochs", "batch_size", "learning_rate")
    choices = {"preset": "smoke", "dataset": "phantom", "seed": 0, "r0": 5.0, "strength": 1.0}
    choices |= {"accelerator": "cpu", "num_workers": 0}
    return ShortcutParameters(**{**dict.fromkeys(names), **choices, **given})


def test_both_tests_have_the_same_patients_and_findings():
    split, free = load(parameters(), SMALL)
    assert split.test.image_ids.tolist() == free.image_ids.tolist()
    assert np.array_equal(split.test.labels, free.labels)
    pd.testing.assert_frame_equal(split.test.boxes, free.boxes)
    name = str(free.image_ids[0])
    pixels = [np.stack([of.read_pixels(str(i)) for i in of.image_ids]) for of in (split.test, free)]
    differ = (pixels[0] != pixels[1]).any(axis=(1, 2))
    assert 0.2 < differ.mean() < 1, name  # devices came and went
    same, other = load(parameters(strength=0.0), SMALL)
    assert same.test.image_ids.tolist() == other.image_ids.tolist()
    assert np.array_equal(same.test.read_pixels(name), other.read_pixels(name))


def test_at_full_strength_a_device_is_there_exactly_if_its_finding_is():
    dials = dict.fromkeys(CONFOUNDERS, 1.0)
    for index in range(40):
        image = render(index, 64, prevalence=0.4, **dials)
        for device, finding in CONFOUNDERS.items():
            assert (device in image.equipment) == bool(image.labels[FINDINGS.index(finding)])


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"strength = 1.5; a share from 0 to 1 was expected"):
        parameters(strength=1.5)


def test_runs_are_scored_on_both_tests_and_gathered(tmp_path):
    for strength in ("0", "1"):
        folder = str(tmp_path / "runs" / strength)
        main(["run", "--strength", strength, "--preset", "smoke", "--run-dir", folder])
    main(["collect", *(str(tmp_path / name) for name in ("runs", "table.csv", "maps.csv"))])
    table = pd.read_csv(tmp_path / "table.csv")
    assert set(table["test"]) == set(TESTS) and set(table["strength"]) == {0, 1}
    assert set(CONFOUNDED) < set(table["finding"]) and "macro" in set(table["finding"])
    at = {test: by_seed(table[table["test"] == test], "strength", "pointing") for test in TESTS}
    assert at["tied"].loc[0, 0] == at["free"].loc[0, 0]  # nothing was tied
    auroc = {
        test: by_seed(rows, "strength", "auroc", ["mean"], "classification")
        for test, rows in table.groupby("test")
    }
    assert auroc["tied"].loc[0, 0] == auroc["free"].loc[0, 0]
    assert auroc["tied"].loc[0, 1] != auroc["free"].loc[0, 1]
    maps = pd.read_csv(tmp_path / "maps.csv").set_index(["strength", "finding"])
    one = Predictions.read(tmp_path / "runs" / "1" / "predictions.npz")
    dials = {"prevalence": 0.12, "pacemaker": 1.0}
    enlarged = [
        bool(render(int(i), 64, **dials).labels[FINDINGS.index("Cardiomegaly")])
        for i in one.map_ids
    ]
    expected = one.maps[enlarged, FINDINGS.index("Cardiomegaly")].astype(float).mean(0).ravel()
    found = maps.loc[(1, "Cardiomegaly"), "value"].to_numpy()
    assert np.allclose(found, expected, atol=2e-4)


def test_a_shortcut_shows_in_the_signs():
    """A made-up study: with devices pointing falls, and the AUROC only when they stop telling."""
    draws = np.random.default_rng(0)
    rows = [
        (share, seed, test, part, metric, finding, seed + 0.001 * draws.normal() - lost * share)
        for share in (0.0, 0.5, 1.0)
        for seed in range(3)
        for finding in (*CONFOUNDED, "Mass")
        for test in TESTS
        for metric, part, lost in (
            ("auroc", "classification", 0.2 * (test == "free" and finding != "Mass")),
            ("pointing", "localization", 0.3 * (finding != "Mass")),
            ("continuous_dice", "localization", -0.1 * (finding != "Mass")),
        )
    ]
    columns = ["strength", "seed", "test", "part", "metric", "finding", "value"]
    groups = {"with a device": CONFOUNDED, "without a device": ["Mass"]}
    table = answers(pd.DataFrame(rows, columns=columns), groups)
    table = table.sort_values(["findings", "score", "test", "share"])
    signs = table.set_index(["findings", "score", "test", "share"])["sign"]
    assert (signs["with a device", "AUROC", "free"] == -1).all()
    assert (signs["with a device", "pointing"] == -1).all()
    assert (signs["with a device", "continuous Dice"] == 1).all()
    change = table.set_index(["findings", "score", "test", "share"])["change"]
    assert change["with a device", "AUROC", "free", 1.0].startswith("-0.20 [-0.2")
    assert change["without a device", "pointing", "tied", 1.0][1:5] == "0.00"
