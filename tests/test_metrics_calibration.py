import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import patient_weights
from cxrlib.metrics.calibration import brier, calibration_error
from cxrlib.metrics.classification import score_classification


def naive_calibration_error(p, y):
    """The definition, bin by bin."""
    error = 0.0
    for b in range(15):
        inside = (b / 15 < p) & (p <= (b + 1) / 15) | ((b == 0) & (p == 0))
        if inside.any():
            error += inside.mean() * abs(y[inside].mean() - p[inside].mean())
    return error


@st.composite
def columns(draw):
    """Probabilities, of which many lie on the edge of a bin; labels, some unknown; patients."""
    p = st.one_of(st.floats(0, 1), st.integers(0, 15).map(lambda b: b / 15))
    image = st.tuples(p, st.sampled_from([0, 1, np.nan]), st.integers(0, 7))
    score, label, patient = zip(*draw(st.lists(image, min_size=1, max_size=40)), strict=True)
    return np.array(score), np.array(label, float), np.array(patient).astype(str)


@settings(max_examples=60, deadline=None, database=None)
@given(columns())
def test_every_replicate_equals_the_definition_on_copied_images(column):
    p, y, patients = column
    drawn = patient_weights(patients, replicates=5)
    errors, scores = calibration_error(p, y, drawn), brier(p, y, drawn)
    for replicate in range(6):
        times = drawn.counts[drawn.patient, replicate] * ~np.isnan(y)
        images = np.repeat(np.arange(len(p)), times)
        if not len(images):
            assert np.isnan([errors[replicate], scores[replicate]]).all()
            continue
        expected = naive_calibration_error(p[images], y[images])
        assert errors[replicate] == pytest.approx(expected, abs=1e-12)
        expected = ((p[images] - y[images]) ** 2).mean()
        assert scores[replicate] == pytest.approx(expected, abs=1e-12)
        assert 0 <= errors[replicate] <= np.sqrt(scores[replicate]) + 1e-12  # Jensen


@pytest.fixture
def case():
    """2000 images of 700 patients; each finding is present with the probability given."""
    rng = np.random.default_rng(0)
    p = rng.beta(1, 4, (2000, 14))
    return p, (rng.random((2000, 14)) < p).astype(float), rng.integers(0, 700, 2000).astype(str)


def test_equals_scikit_learn_and_torchmetrics(case):
    p, y, patients = case
    result = score_classification(p, y, patients, replicates=2)
    for column, finding in enumerate(FINDINGS):
        expected = brier_score_loss(y[:, column], p[:, column])
        assert result["brier"]["per_finding"][finding].value == pytest.approx(expected, abs=1e-12)
        tensors = torch.tensor(p[:, column]), torch.tensor(y[:, column], dtype=torch.int)
        error = result["calibration_error"]["per_finding"][finding].value
        # torchmetrics adds up in float32.
        assert error == pytest.approx(
            binary_calibration_error(*tensors, n_bins=15).item(), abs=1e-6
        )


def test_the_right_probabilities_are_calibrated_and_sharpened_ones_are_not(case):
    p, y, patients = case
    odds = (p / (1 - p)) ** 3
    right, sharp = (
        score_classification(q, y, patients, replicates=50) for q in (p, odds / (1 + odds))
    )
    assert right["calibration_error"]["mean"].value < 0.03
    assert sharp["calibration_error"]["mean"].low > 0.1
    assert right["brier"]["mean"].value == pytest.approx((p * (1 - p)).mean(), abs=0.005)
    assert right["brier"]["mean"].high < sharp["brier"]["mean"].low
    assert sharp["auroc"]["mean"].value == right["auroc"]["mean"].value


def test_knowing_only_the_prevalence_is_calibrated_and_useless(case):
    _, y, patients = case
    result = score_classification(np.tile(y.mean(axis=0), (2000, 1)), y, patients, replicates=20)
    assert result["calibration_error"]["mean"].value == pytest.approx(0, abs=1e-12)
    prevalence = y.mean(axis=0)
    assert result["brier"]["mean"].value == pytest.approx((prevalence * (1 - prevalence)).mean())
    assert result["auroc"]["mean"].value == 0.5


@pytest.mark.parametrize("of_labels", [np.float32, int, bool])
def test_single_precision_costs_nothing_and_labels_may_be_integers(of_labels):
    drawn = patient_weights(np.array(["a", "b", "c"]), replicates=0)
    p, y = np.array([0.1, 0.6, 1.0], np.float32), np.array([0, 1, 1], of_labels)
    wanted = ((p.astype(float) - y.astype(float)) ** 2).mean()
    assert brier(p, y, drawn)[0] == pytest.approx(wanted, abs=1e-15)
    assert calibration_error(p, y, drawn)[0] == pytest.approx((0.1 + 0.4) / 3)


def test_noise_raises_the_error_so_that_replicates_lie_above_the_value(case):
    p, y, patients = case
    error = calibration_error(p[:, 0], y[:, 0], patient_weights(patients, 200))
    few = calibration_error(p[:100, 0], y[:100, 0], patient_weights(patients[:100], 0))
    assert np.median(error[1:]) > error[0]
    assert few[0] > error[0]
