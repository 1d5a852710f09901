import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics_localization import make_truth, random_dataset, random_truth

from cxrlib.datasets.base import Truth
from cxrlib.metrics.controls import (
    CENTRE_SIGMA,
    centre_prior,
    controls,
    grid_ceiling_maps,
    location_prior,
    random_maps,
)
from cxrlib.metrics.localization import frames_of, measure, of_pairs


def frames_of_pairs(frames, truth):
    """One frame for each pair: (P, S, S)."""
    return np.stack([frames(i, f, False) for i, f in zip(truth.image, truth.finding, strict=True)])


def pointing_of(frames, truth, size):
    return measure({"maps": frames}, truth, size, ["maps"])["maps"].pairs["pointing"]


def test_prior_is_the_mean_mask_of_the_same_finding_in_other_patients():
    truth = random_truth(60, patients=15)
    masks = truth.masks(np.arange(60), 16).numpy()
    priors = frames_of_pairs(location_prior(truth, 16, grid=16), truth)
    for pair in range(60):
        same = truth.finding == truth.finding[pair]
        others = np.flatnonzero(same & (truth.patient != truth.patient[pair]))
        np.testing.assert_allclose(priors[pair], masks[others].mean(axis=0), atol=1e-6)


def test_prior_of_an_image_without_the_finding_is_the_mean_of_all():
    truth = make_truth([(0, 4, 0.0, 0.0, 0.5, 0.5), (1, 4, 0.0, 0.0, 1.0, 0.5)], ["p", "q", "r"])
    expected = [[1, 0.5], [0, 0]]
    assert location_prior(truth, 2, grid=2)(2, 4, False).tolist() == expected
    assert np.isnan(location_prior(truth, 2, grid=2)(2, 5, False)).all()


def test_prior_of_a_patient_does_not_depend_on_the_patients_own_boxes():
    """Image 3 is a second image of the patient whose boxes move."""
    patients = ["p", "q", "r", "p"]

    def prior(own):
        rest = [(1, 4, 0.2, 0.2, 0.5, 0.5), (2, 4, 0.3, 0.1, 0.6, 0.9)]
        truth = make_truth([(0, 4, *own), *rest, (3, 4, *own)], patients)
        return frames_of_pairs(location_prior(truth, 16), truth)

    here, there = prior((0.0, 0.0, 0.1, 0.1)), prior((0.71, 0.73, 0.97, 0.99))
    np.testing.assert_allclose(here[[0, 3]], there[[0, 3]], atol=1e-7)
    assert np.abs(here[1] - there[1]).max() > 0.5
    assert here.min() >= 0 and here.max() <= 1


def test_a_finding_of_one_patient_has_no_prior_and_is_left_out():
    rows = [(0, 5, 0.1, 0.1, 0.3, 0.3), (1, 5, 0.2, 0.1, 0.3, 0.3), (2, 4, 0.1, 0.1, 0.3, 0.3)]
    rows.append((3, 4, 0.1, 0.1, 0.3, 0.3))
    truth = make_truth(rows, ["p", "p", "q", "r"])
    measured = measure(controls(truth, 8, 32), truth, 32)
    for name, values in measured["location_prior"].pairs.items():
        absent = np.isnan(values.reshape(4, -1)).all(axis=1)
        assert absent.tolist() == [True, True, False, False], name
    for source in ("random", "centre_prior", "grid_ceiling"):
        assert not np.isnan(measured[source].pairs["pointing"]).any()


@pytest.mark.parametrize("grid", [7, 16])
def test_noise_points_by_area_whatever_the_grid(grid):
    truth = random_truth(1000)
    area = truth.masks(np.arange(1000), 32).mean().item()
    noise = pointing_of(random_maps(truth, grid, 32), truth, 32)
    assert noise.mean() == pytest.approx(area, abs=0.025)
    # Why it has a margin: noise that ends at the frame points at its edge, where no box is.
    bare = np.random.default_rng(0).random((1000, grid, grid))
    assert pointing_of(of_pairs(bare, truth, 32), truth, 32).mean() < 0.75 * area


def test_noise_is_that_of_the_seed_the_image_and_the_finding():
    truth = random_truth(3)
    noise = random_maps(truth, 16, 32, seed=3)
    first = noise(0, 4, False)
    assert first.shape == (32, 32) and first.min() >= 0 and first.max() <= 1
    assert np.array_equal(first, random_maps(truth, 16, 32, seed=3)(0, 4, False))
    for other in (noise(1, 4, False), noise(0, 5, False), random_maps(truth, 16, 32, 4)(0, 4, 0)):
        assert not np.array_equal(first, other)


def test_centre_prior_is_a_gaussian_in_the_middle():
    spot = centre_prior(64)(0, 0, False)
    assert np.array_equal(spot, spot.T) and np.array_equal(spot, spot[::-1])
    across = (np.arange(64) + 0.5) / 64 - 0.5
    distance = np.hypot(across[:, None], across)
    np.testing.assert_allclose(spot, np.exp(-(distance**2) / (2 * CENTRE_SIGMA**2)), atol=1e-6)
    assert np.array_equal(centre_prior(64)(5, 3, True), spot)
    truth = make_truth([(0, 4, 0.4, 0.4, 0.6, 0.6), (1, 4, 0.6, 0.6, 0.9, 0.9)], ["p", "q"])
    assert pointing_of(centre_prior(32), truth, 32).tolist() == [1, 0]


def test_ceiling_rises_with_the_grid_and_ends_at_the_truth():
    truth, names = random_truth(80), ("pointing", "continuous_dice", "iou_half")
    means = []
    for grid in (2, 4, 16, 64):
        perfect = of_pairs(grid_ceiling_maps(truth, grid), truth, 64)
        pairs = measure({"maps": perfect}, truth, 64, ["maps"])["maps"].pairs
        means.append([pairs[name].mean() for name in names])
    assert (np.diff(means, axis=0) >= 0).all()
    assert means[-1][0] == 1 and means[-1][2] > 0.97
    assert means[-1][1] > 0.95  # half covered pixels at the edges keep it from 1
    assert means[0][2] < 0.6


def test_there_are_four_controls_each_with_a_frame_for_every_place():
    truth = random_truth(10)
    sources = controls(truth, 5, 32)
    assert list(sources) == ["random", "centre_prior", "location_prior", "grid_ceiling"]
    for frames in sources.values():
        for aligned in (False, True):
            assert frames(3, int(truth.finding[3]), aligned).shape == (32, 32)


@given(st.permutations(range(15)))
@settings(deadline=None, max_examples=10)
def test_order_of_the_images_changes_no_control(order):
    dataset, order = random_dataset(15, patients=6), np.array(order)
    truth, moved = Truth(dataset), Truth(dataset.subset(order))
    before, after = controls(truth, 4, 16), controls(moved, 4, 16)
    for name in before:
        ours = frames_of_pairs(before[name], truth)[order]
        np.testing.assert_allclose(frames_of_pairs(after[name], moved), ours, atol=1e-6)


def test_controls_of_nothing():
    truth = make_truth([], ["p", "q"])
    assert grid_ceiling_maps(truth, 4).shape == (0, 4, 4)
    measured = measure(controls(truth, 4, 16), truth, 16)
    assert all(of.pairs["pointing"].shape == (0,) for of in measured.values())


def test_a_source_of_the_truth_itself_is_the_ceiling():
    truth = random_truth(6)
    masks = truth.masks(np.arange(6), 8).numpy()
    own = frames_of(lambda image, finding: masks[image], 32)
    ceiling = controls(truth, 8, 32)["grid_ceiling"]
    assert np.array_equal(frames_of_pairs(own, truth), frames_of_pairs(ceiling, truth))
