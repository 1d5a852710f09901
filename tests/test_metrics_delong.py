import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from cxrlib.metrics.bootstrap import interval, patient_weights
from cxrlib.metrics.classification import CLASSIFICATION_METRICS
from cxrlib.metrics.delong import delong

few = settings(max_examples=60, deadline=None, database=None)


def kernel(score, label):
    """psi(X_i, Y_j) of all pairs: (m, n)."""
    gap = score[label == 1][:, None] - score[label == 0][None]
    return (gap > 0) + 0.5 * (gap == 0)


def naive_delong(scores, label):
    """The covariance of two AUROCs from the kernel, as DeLong et al. write it; one image each."""
    V = [kernel(score, label) for score in scores]
    S_10, S_01 = (np.cov([v.mean(axis=axis) for v in V]) for axis in (1, 0))
    m, n = V[0].shape
    return [v.mean() for v in V], S_10 / m + S_01 / n


def naive_obuchowski(scores, label, patients):
    """The same for clusters, as Obuchowski writes it."""
    V = [kernel(score, label) for score in scores]
    theta = [v.mean() for v in V]
    m, n = V[0].shape
    names, of_present, of_absent = np.unique(patients), patients[label == 1], patients[label == 0]
    X = [
        [(v.mean(axis=1) - t)[of_present == name].sum() for name in names]
        for v, t in zip(V, theta, strict=True)
    ]
    Y = [
        [(v.mean(axis=0) - t)[of_absent == name].sum() for name in names]
        for v, t in zip(V, theta, strict=True)
    ]
    X, Y = np.array(X), np.array(Y)  # (2, I)
    clusters, I_10, I_01 = len(names), len(set(of_present)), len(set(of_absent))
    S_10 = I_10 / ((I_10 - 1) * m) * X @ X.T
    S_01 = I_01 / ((I_01 - 1) * n) * Y @ Y.T
    S_11 = clusters / (clusters - 1) * X @ Y.T
    return theta, S_10 / m + S_01 / n + (S_11 + S_11.T) / (m * n)


def assert_equals(result, theta, S):
    difference = theta[0] - theta[1]
    error = math.sqrt(max(S[0, 0] + S[1, 1] - 2 * S[0, 1], 0))
    assert (result.auroc_a, result.auroc_b) == pytest.approx(theta, abs=1e-12)
    assert result.difference == pytest.approx(difference, abs=1e-12)
    if error > 1e-6:
        assert result.z == pytest.approx(difference / error, rel=1e-6)
        assert result.p == pytest.approx(2 * norm.cdf(-abs(difference / error)), abs=1e-9)
        ends = difference - 1.959964 * error, difference + 1.959964 * error
        assert (result.low, result.high) == pytest.approx(ends, abs=1e-6)
    else:
        assert (result.z, result.p) == (0, 1) or math.isnan(result.z)


@st.composite
def cases(draw, patients):
    """Two scores with ties, labels with some unknown, and at most ``patients`` patients."""
    image = st.tuples(
        st.integers(0, 5),
        st.integers(0, 5),
        st.sampled_from([0, 0, 1, 1, np.nan]),
        st.integers(0, patients),
    )
    first = [(0, 1, 1, 0), (1, 0, 1, 1), (2, 2, 0, 0), (3, 1, 0, 1)]  # two patients have both
    images = first + draw(st.lists(image, max_size=30))
    a, b, label, patient = (np.array(x, float) for x in zip(*images, strict=True))
    return a, b, label, patient.astype(str)


@few
@given(cases(8))
def test_equals_the_kernel_formula_for_clusters(case):
    a, b, label, patients = case
    known = ~np.isnan(label)
    expected = naive_obuchowski([a[known], b[known]], label[known], patients[known])
    assert_equals(delong(*case), *expected)


@few
@given(cases(8))
def test_with_one_image_for_each_patient_it_is_delong(case):
    a, b, label, _ = case
    known = ~np.isnan(label)
    result = delong(a, b, label, np.arange(len(a)).astype(str))
    assert_equals(result, *naive_delong([a[known], b[known]], label[known]))
    assert result.auroc_a == pytest.approx(roc_auc_score(label[known], a[known]))
    assert (result.n_positive, result.n_negative) == ((label == 1).sum(), (label == 0).sum())


@few
@given(cases(8))
def test_order_and_monotone_maps_change_nothing_and_swapping_turns_the_sign(case):
    a, b, label, patients = case
    result = dataclasses.asdict(delong(*case))
    other = delong(np.exp(a)[::-1], 7 * b[::-1] - 3, label[::-1], patients[::-1])
    assert dataclasses.asdict(other) == pytest.approx(result, abs=1e-9, nan_ok=True)
    swapped = delong(b, a, label, patients)
    turned = (-swapped.difference, -swapped.high, -swapped.low, -swapped.z, swapped.p)
    names = ("difference", "low", "high", "z", "p")
    assert turned == pytest.approx([result[name] for name in names], abs=1e-9, nan_ok=True)


def clustered(rng, patients, worth=0.0):
    """Two scores whose errors a patient's images share; ``worth`` is what a has more of signal."""
    patient = np.repeat(np.arange(patients), rng.integers(1, 7, patients))
    label = (rng.random(patients) < 0.4).astype(float)[patient]
    both, a, b = rng.normal(size=(3, patients))[:, patient]
    noise = rng.normal(size=(2, len(patient)))
    ids = patient.astype(str)
    return (1 + worth) * label + both + a + noise[0], label + both + b + noise[1], label, ids


def test_the_interval_is_about_that_of_the_bootstrap():
    a, b, label, patients = clustered(np.random.default_rng(0), 300, worth=0.5)
    drawn = patient_weights(patients, replicates=1000)
    of_a, of_b = (CLASSIFICATION_METRICS["auroc"](score, label, drawn) for score in (a, b))
    result = delong(a, b, label, patients)
    assert result.difference == pytest.approx(of_a[0] - of_b[0], abs=1e-12)
    low, high = interval((of_a - of_b)[1:])
    width = high - low
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.1 * width)
    assert result.p < 0.05 and result.low > 0


def test_equal_scores_differ_significantly_one_time_in_twenty_and_only_if_clusters_count():
    rng = np.random.default_rng(1)
    trials = [clustered(rng, 80) for _ in range(400)]
    rejected = np.mean([delong(*trial).p < 0.05 for trial in trials])
    as_if_independent = np.mean(
        [delong(a, b, y, np.arange(len(y)).astype(str)).p < 0.05 for a, b, y, _ in trials]
    )
    assert 0.02 <= rejected <= 0.085
    assert as_if_independent > 0.15


def test_duplicating_every_image_of_a_patient_adds_no_certainty():
    a, b, label, _ = clustered(np.random.default_rng(2), 60)
    patients = np.arange(len(label)).astype(str)
    once = delong(a, b, label, patients)
    ten = delong(*(np.tile(x, 10) for x in (a, b, label, patients)))
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high), abs=1e-3)


def test_scores_in_the_same_order_do_not_differ():
    a, _, label, patients = clustered(np.random.default_rng(3), 60)
    same = delong(a, np.exp(a), label, patients)
    assert same.auroc_a == same.auroc_b == pytest.approx(roc_auc_score(label, a))
    assert (same.difference, same.low, same.high, same.z, same.p) == (0, 0, 0, 0, 1)
    constant = delong(np.zeros(len(label)), np.ones(len(label)), label, patients)
    assert (constant.auroc_a, constant.difference, constant.p) == (0.5, 0, 1)


def assert_without_error(result):
    assert np.isnan([result.low, result.high, result.z, result.p]).all()


def test_a_difference_to_which_every_patient_adds_the_same_has_no_interval():
    label = np.array([0.0, 0, 0, 1, 1, 1])
    result = delong(label, -label, label, np.array([*"abcdef"]))
    assert (result.auroc_a, result.auroc_b, result.difference) == (1, 0, 1)
    assert_without_error(result)
    # The same six images in each of seven patients: ninths, so that sums are 0 but for rounding.
    a, b, patients = np.array([3, 1, 5, 4, 2, 0]), np.arange(6), np.repeat([*"abcdefg"], 6)
    seven = delong(np.tile(a, 7), np.tile(b, 7), np.tile(label, 7), patients)
    assert seven.difference == pytest.approx(-2 / 3)
    assert_without_error(seven)


@pytest.mark.parametrize("label_of_one", [0, 1])
def test_positives_or_negatives_of_one_patient_have_no_standard_error(label_of_one):
    label = np.array([0.0, 1, 0, 1, 0, 1])
    a, b = np.arange(6), np.array([3, 1, 2, 5, 4, 0])
    patients = np.where(label == label_of_one, "one", [*"abcdef"])
    result = delong(a, b, label, patients)
    assert_without_error(result)
    assert result.difference == pytest.approx(roc_auc_score(label, a) - roc_auc_score(label, b))


@pytest.mark.parametrize(
    ("labels", "counts"),
    [([0, 0, 0], (0, 3)), ([1, 1, 1], (3, 0)), ([np.nan] * 3, (0, 0)), ([1], (1, 0)), ([], (0, 0))],
)
def test_without_positives_or_negatives_all_is_nan_but_the_counts(labels, counts):
    scores = np.arange(len(labels)) / 10
    result = delong(scores, scores[::-1], np.array(labels, float), np.array(["p"] * len(labels)))
    assert (result.n_positive, result.n_negative) == counts
    assert np.isnan([result.auroc_a, result.auroc_b, result.difference]).all()
    assert_without_error(result)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, y, p: (a[:3], b, y, p), r"scores_a \(3,\).* must all be \(6,\)"),
        (lambda a, b, y, p: (a, b[:, None], y, p), r"scores_b \(6, 1\)"),
        (lambda a, b, y, p: (a, b, y[:1], p), r"labels \(1,\)"),
        (lambda a, b, y, p: (a, b, y, p[:2]), r"must all be \(2,\)"),
        (lambda a, b, y, p: (a * np.inf, b, y, p), "6 of 12 scores are NaN or infinite"),
        (lambda a, b, y, p: (a, b * np.nan, y, p), "6 of 12 scores are NaN or infinite"),
        (lambda a, b, y, p: (a, b, y - 1, p), "some are -1"),
        (lambda a, b, y, p: (a, b, y * 2, p), "some are 2"),
    ],
)
def test_bad_input_is_refused(change, message):
    rng = np.random.default_rng(4)
    case = 1 + rng.random(6), rng.random(6), np.array([0.0, 1, 0, 1, 0, 1]), np.array([*"aabbcc"])
    with pytest.raises(ValueError, match=message):
        delong(*change(*case))
