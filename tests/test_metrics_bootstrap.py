import math

import numpy as np
import pytest

from cxrlib.metrics.bootstrap import (
    Estimate,
    interval,
    mean_over_findings,
    patient_weights,
    ratio,
)


def mean_estimate(values, patients, replicates=400, seed=0):
    """Mean of the cases: the simplest statistic there is."""
    resamples = patient_weights(patients, replicates, seed)
    rows, cases = np.zeros(len(values), int), np.arange(len(values))
    sums = resamples.gather(rows, 1, cases, values)
    n = resamples.gather(rows, 1, cases)
    return Estimate.of(resamples.apply(lambda c: ratio(sums @ c, n @ c))[0], len(values))


def test_each_replicate_draws_as_many_patients_as_there_are():
    patients = np.array(["a", "b", "b", "c", "d"])
    resamples = patient_weights(patients, replicates=50)
    assert resamples.counts.shape == (4, 51)
    assert (resamples.counts.sum(axis=0) == 4).all()
    assert (resamples.counts[:, 0] == 1).all()
    assert resamples.counts[:, 1:].std() > 0.5


def test_weighted_statistic_equals_copying_the_drawn_patients():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 6, 20).astype(str)
    values = rng.normal(size=20)
    resamples = patient_weights(patients, replicates=200)
    rows, cases = np.zeros(20, int), np.arange(20)
    sums = resamples.apply(lambda c: resamples.gather(rows, 1, cases, values) @ c)[0]
    names = np.unique(patients)
    for replicate in (0, 1, 130, 200):  # more than one chunk
        drawn = np.repeat(names, resamples.counts[:, replicate])
        copied = np.concatenate([values[patients == name] for name in drawn])
        assert sums[replicate] == pytest.approx(copied.sum())


def test_order_of_the_cases_changes_nothing_and_the_seed_does():
    rng = np.random.default_rng(1)
    patients, values = rng.integers(0, 30, 80).astype(str), rng.normal(size=80)
    order = rng.permutation(80)
    first = mean_estimate(values, patients)
    shuffled = mean_estimate(values[order], patients[order])
    assert shuffled.to_json() == pytest.approx(first.to_json())
    assert mean_estimate(values, patients) == first
    assert mean_estimate(values, patients, seed=1).low != first.low


def test_duplicating_every_image_of_a_patient_adds_no_certainty():
    rng = np.random.default_rng(2)
    values, patients = rng.normal(size=60), np.arange(60).astype(str)
    once = mean_estimate(values, patients)
    ten = mean_estimate(np.tile(values, 10), np.tile(patients, 10))
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high))
    as_if_independent = mean_estimate(np.tile(values, 10), np.arange(600).astype(str))
    assert as_if_independent.high - as_if_independent.low < 0.5 * (once.high - once.low)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):  # 40 patients with 1 to 4 images that share the patient's effect
        patients = np.repeat(np.arange(40), rng.integers(1, 5, 40))
        values = rng.normal(size=40)[patients] + 0.3 * rng.normal(size=len(patients))
        estimate = mean_estimate(values, patients.astype(str), replicates=200, seed=trial)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.89 <= covered / 200 <= 0.99


def test_width_shrinks_with_the_square_root_of_n():
    rng = np.random.default_rng(4)
    values = rng.normal(size=1600)
    few, many = (mean_estimate(values[:n], np.arange(n).astype(str)) for n in (100, 1600))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.25)


def test_undefined_replicates_are_left_out():
    assert interval(np.array([np.nan, 1.0, np.nan, 1.0])) == (1.0, 1.0)
    assert all(math.isnan(end) for end in interval(np.array([np.nan, np.nan])))
    assert all(math.isnan(end) for end in interval(np.array([])))
    assert Estimate.of(np.array([np.nan, np.nan]), np.int64(0)).to_json() == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
    }


def test_mean_over_findings_leaves_nan_out_without_a_warning():
    values = np.array([[0.5, np.nan], [np.nan, np.nan], [1.0, np.nan]])
    np.testing.assert_array_equal(mean_over_findings(values), [0.75, np.nan])


def test_no_cases_and_no_replicates_are_possible():
    assert patient_weights(np.array([], str), replicates=3).counts.shape == (0, 4)
    assert math.isnan(mean_estimate(np.array([]), np.array([], str)).value)
    alone = mean_estimate(np.array([2.0, 4.0]), np.array(["a", "b"]), replicates=0)
    assert alone.value == 3 and math.isnan(alone.low)
