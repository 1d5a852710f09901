import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import patient_weights
from cxrlib.metrics.classification import _replicate, score_classification

REFERENCES = {"auroc": roc_auc_score, "average_precision": average_precision_score}


@pytest.fixture
def case():
    """120 images of 50 patients; scores in steps of 0.25, so that most are tied; some unknown."""
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 14)) < 0.3).astype(np.float32)
    scores = np.round(4 * (rng.normal(size=(120, 14)) + labels)) / 4
    labels[rng.random((120, 14)) < 0.1] = np.nan
    return scores, labels, rng.integers(0, 50, 120).astype(str)


def test_equals_scikit_learn_with_ties_and_unknown_labels(case):
    scores, labels, patients = case
    result = score_classification(scores, labels, patients, replicates=5)
    for name, reference in REFERENCES.items():
        each = []
        for column, finding in enumerate(FINDINGS):
            known = ~np.isnan(labels[:, column])
            each.append(reference(labels[known, column], scores[known, column]))
            estimate = result[name]["per_finding"][finding]
            assert estimate.value == pytest.approx(each[-1], abs=1e-12)
            assert estimate.n == np.nansum(labels[:, column])
        assert result[name]["mean"].value == pytest.approx(np.mean(each))
        assert result[name]["mean"].n == 120


def test_every_replicate_equals_scikit_learn_with_sample_weight(case):
    scores, labels, patients = case
    resamples = patient_weights(patients, replicates=140)
    known = np.flatnonzero(~np.isnan(labels[:, 3]))
    fast = _replicate(scores[:, 3], labels[:, 3], resamples)
    for replicate in (0, 1, 2, 127, 128, 140):
        weight = resamples.counts[resamples.patient[known], replicate]
        for row, reference in enumerate(REFERENCES.values()):
            expected = reference(labels[known, 3], scores[known, 3], sample_weight=weight)
            assert fast[row, replicate] == pytest.approx(expected, abs=1e-12)


def test_continuous_scores_equal_the_naive_pair_count():
    rng = np.random.default_rng(1)
    label, score = (rng.random(60) < 0.4).astype(float), rng.normal(size=60)
    wins = [
        (high > low) + 0.5 * (high == low)
        for high in score[label == 1]
        for low in score[label == 0]
    ]
    fast = _replicate(score, label, patient_weights(np.arange(60).astype(str), replicates=0))
    assert fast[0, 0] == pytest.approx(np.mean(wins))


def test_findings_without_positives_or_negatives_are_nan_and_not_in_the_mean(case):
    scores, labels, patients = case
    labels[:, 0], labels[:, 1], labels[:, 2] = 0, 1, np.nan
    result = score_classification(scores, labels, patients, replicates=20)
    for of_metric in result.values():
        each = of_metric["per_finding"]
        assert [each[name].n for name in FINDINGS[:3]] == [0, 120, 0]
        assert np.isnan([[each[name].value, each[name].low] for name in FINDINGS[:3]]).all()
        assert of_metric["mean"].value == pytest.approx(
            np.mean([each[name].value for name in FINDINGS[3:]])
        )


def test_a_replicate_without_the_only_positive_is_left_out():
    labels = np.zeros((10, 14))
    labels[0] = 1
    result = score_classification(labels.copy(), labels, np.arange(10).astype(str))
    hernia = result["auroc"]["per_finding"]["Hernia"]
    assert (hernia.value, hernia.low, hernia.high, hernia.n) == (1, 1, 1, 1)


def test_order_and_monotone_rescaling_change_nothing(case):
    scores, labels, patients = case
    order = np.random.default_rng(2).permutation(120)
    first = score_classification(scores, labels, patients, replicates=50)
    second = score_classification(np.exp(scores[order]), labels[order], patients[order], 50)
    for name in REFERENCES:
        assert second[name]["mean"].to_json() == pytest.approx(first[name]["mean"].to_json())


def test_chance_is_one_half_and_prevalence():
    rng = np.random.default_rng(3)
    labels = (rng.random((2000, 14)) < 0.2).astype(float)
    patients = np.arange(2000).astype(str)
    result = score_classification(rng.random((2000, 14)), labels, patients, replicates=100)
    assert result["auroc"]["mean"].value == pytest.approx(0.5, abs=0.02)
    assert result["average_precision"]["mean"].value == pytest.approx(0.2, abs=0.02)
    assert result["auroc"]["mean"].low < 0.5 < result["auroc"]["mean"].high
    constant = score_classification(np.zeros((2000, 14)), labels, patients, replicates=10)
    assert constant["auroc"]["mean"].value == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y, p: (s[:, :8], y, p), r"scores \(120, 8\)"),
        (lambda s, y, p: (s, y[:5], p), r"labels \(5, 14\)"),
        (lambda s, y, p: (s, y, p[:7]), "7 patient ids"),
        (lambda s, y, p: (np.where(s > 2, np.nan, s), y, p), "NaN or infinite"),
        (lambda s, y, p: (s, np.where(y == 1, -1, y), p), "labels must be 0"),
    ],
)
def test_bad_input_is_refused(case, change, message):
    with pytest.raises(ValueError, match=message):
        score_classification(*change(*case), replicates=1)
