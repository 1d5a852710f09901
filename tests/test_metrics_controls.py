import json

import numpy as np
import pytest
import torch
from test_metrics_localization import make_truth, random_truth

from cxrlib.findings import FINDINGS
from cxrlib.metrics import METRICS, evaluate, table
from cxrlib.metrics.controls import (
    grid_ceiling_maps,
    location_prior_maps,
    random_maps,
    score_controls,
)
from cxrlib.metrics.localization import score_pairs


def test_prior_is_the_mean_mask_of_the_same_finding_in_other_patients():
    truth = random_truth(60, patients=15)
    masks = truth.masks(np.arange(60), 16)
    priors = location_prior_maps(truth, 16)
    for pair in range(60):
        same = truth.finding == truth.finding[pair]
        others = np.flatnonzero(same & (truth.patient != truth.patient[pair]))
        torch.testing.assert_close(priors[pair], masks[others].mean(dim=0))


def test_prior_of_a_patient_does_not_depend_on_the_patients_own_boxes():
    """Image 3 is a second image of the patient whose boxes move."""
    patients = ["p", "q", "r", "p"]

    def prior(own):
        rest = [(1, 4, 0.2, 0.2, 0.5, 0.5), (2, 4, 0.3, 0.1, 0.6, 0.9)]
        return location_prior_maps(make_truth([(0, 4, *own), *rest, (3, 4, *own)], patients), 16)

    here, there = prior((0.0, 0.0, 0.1, 0.1)), prior((0.71, 0.73, 0.97, 0.99))
    torch.testing.assert_close(here[[0, 3]], there[[0, 3]], rtol=0, atol=1e-7)
    assert (here[1] - there[1]).abs().max() > 0.5
    assert here[0].max() <= 1


def test_a_finding_of_one_patient_has_no_prior_and_is_left_out():
    rows = [(0, 5, 0.1, 0.1, 0.3, 0.3), (1, 5, 0.2, 0.1, 0.3, 0.3), (2, 4, 0.1, 0.1, 0.3, 0.3)]
    rows.append((3, 4, 0.1, 0.1, 0.3, 0.3))
    truth = make_truth(rows, ["p", "p", "q", "r"])
    assert location_prior_maps(truth, 8).isnan().all(dim=2).all(dim=1).tolist() == [
        True,
        True,
        False,
        False,
    ]
    controls = score_controls(truth, 8, 32)
    assert np.isnan(controls["location_prior"]["pointing"]).tolist() == [True, True, False, False]
    assert not np.isnan(controls["random"]["pointing"]).any()


@pytest.mark.parametrize("grid", [7, 16])
def test_noise_points_by_area_whatever_the_grid(grid):
    truth = random_truth(1000)
    area = truth.masks(np.arange(1000), 32).mean().item()
    noise = score_controls(truth, grid, 32)["random"]["pointing"]
    assert noise.mean() == pytest.approx(area, abs=0.02)
    # Why it has a margin: noise that ends at the frame points at its edge, where no box is.
    bare = torch.rand(1000, 16, 16, generator=torch.Generator().manual_seed(0))
    assert score_pairs(bare, truth, 32)["pointing"].mean() < 0.5 * area


def test_noise_is_seeded():
    truth = random_truth(3)
    assert torch.equal(random_maps(truth, 16, seed=3), random_maps(truth, 16, seed=3))
    assert not torch.equal(random_maps(truth, 16, seed=3), random_maps(truth, 16, seed=4))


def test_ceiling_rises_with_the_grid_and_ends_at_the_truth():
    truth = random_truth(80)
    means = [
        [score_pairs(grid_ceiling_maps(truth, grid), truth, 64)[name].mean() for name in METRICS]
        for grid in (2, 4, 16, 64)
    ]
    assert (np.diff(means, axis=0) >= 0).all()
    scores = dict(zip(METRICS, means[-1], strict=True))
    assert scores["pointing"] == 1 and scores["iou@0.5"] > 0.97


def case(pairs, images=40):
    rng = np.random.default_rng(0)
    labels = (rng.random((images, 14)) < 0.3).astype(np.float32)
    patients = rng.integers(0, 25, images).astype(str)
    maps = rng.random((pairs, 8, 8)).astype(np.float16)
    truth = random_truth(pairs) if pairs else make_truth([], patients)
    return rng.random((images, 14)), labels, patients, maps, truth


def test_evaluate_has_the_shape_of_metrics_json_and_is_reproducible():
    first, second = (evaluate(*case(30), 32, replicates=20, seed=1) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert set(first) == {"classification", "localization", "controls"}
    assert set(first["classification"]) == {"auroc", "average_precision"}
    assert set(first["localization"]) == {"pointing", "continuous_dice", "iou@0.5"}
    assert set(first["controls"]) == {"random", "location_prior", "grid_ceiling"}
    for of_metrics in (first["localization"], *first["controls"].values()):
        for summary in of_metrics.values():
            assert set(summary) == {"macro", "micro", "per_finding"}
            assert list(summary["per_finding"]) == list(FINDINGS)
            assert set(summary["macro"]) == {"value", "low", "high", "n"}
    missing = {"value": None, "low": None, "high": None, "n": 0}
    assert first["localization"]["pointing"]["per_finding"]["Hernia"] == missing
    other = evaluate(*case(30), 32, replicates=20, seed=2)
    assert other["localization"]["pointing"] != first["localization"]["pointing"]


def test_evaluate_without_any_box_is_null_with_n_zero():
    metrics = evaluate(*case(0), 32, replicates=20)
    missing = {"value": None, "low": None, "high": None, "n": 0}
    for of_metrics in (metrics["localization"], *metrics["controls"].values()):
        assert all(summary["macro"] == missing for summary in of_metrics.values())
    assert metrics["classification"]["auroc"]["mean"]["value"] is not None
    assert table(metrics)["pointing"].tolist() == ["–"] * 16


def test_table_shows_each_number_with_its_interval():
    metrics = evaluate(*case(30), 32, replicates=20)
    shown = table(metrics)
    assert list(shown.index) == [*FINDINGS, "macro", "micro"]
    number = metrics["localization"]["pointing"]["micro"]
    assert shown.loc["micro", "pointing"] == (
        f"{number['value']:.2f} [{number['low']:.2f}, {number['high']:.2f}]"
    )
    assert shown.loc["micro", "AUROC"] == "–" and shown.loc["macro", "images"] == 40
    assert shown.loc["Hernia", "pairs"] == 0 and shown.loc["micro", "pairs"] == 30
    assert "iou@0.5" in table(metrics, "iou@0.5")
    assert "[" not in table(evaluate(*case(30), 32, replicates=0)).loc["micro", "pointing"]
