import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import patient_weights
from cxrlib.metrics.classification import (
    CLASSIFICATION_METRICS,
    OF_PROBABILITIES,
    binary_auroc,
    replicate_classification,
    score_classification,
)

SENSITIVITY = "sensitivity@specificity=0.9"
NAMES = ("auroc", "average_precision", "brier", "calibration_error", SENSITIVITY)
few = settings(max_examples=60, deadline=None, database=None)


def sensitivity(labels, scores, sample_weight=None):
    """Highest on the ROC curve, one point per threshold, where specificity is at least 0.9."""
    fpr, tpr, _ = roc_curve(labels, scores, sample_weight=sample_weight, drop_intermediate=False)
    return tpr[1 - fpr >= 0.9 - 1e-9].max()


REFERENCES = {
    "auroc": roc_auc_score,
    "average_precision": average_precision_score,
    SENSITIVITY: sensitivity,
}
MAPS = {
    "exp": np.exp,
    "logistic": lambda s: 1 / (1 + np.exp(-s)),
    "cube": lambda s: s**3,
    "line": lambda s: 3 * s - 1000,
    "float32": lambda s: s.astype(np.float32),
}


@st.composite
def columns(draw):
    """One finding: scores with many ties, labels of which some are unknown, patients of images."""
    image = st.tuples(st.integers(-6, 6), st.sampled_from([0, 0, 1, 1, np.nan]), st.integers(0, 7))
    score, label, patient = zip(*draw(st.lists(image, min_size=1, max_size=40)), strict=True)
    return np.array(score) / 4, np.array(label, float), np.array(patient).astype(str)


@pytest.fixture
def case():
    """120 images of 50 patients; scores in steps of 1/12, so that most are tied; some unknown."""
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 14)) < 0.3).astype(np.float32)
    scores = np.clip(np.round(3 * (rng.normal(size=(120, 14)) + labels) + 4), 0, 12) / 12
    labels[rng.random((120, 14)) < 0.1] = np.nan
    return scores, labels, rng.integers(0, 50, 120).astype(str)


@few
@given(columns())
def test_every_replicate_equals_scikit_learn_with_sample_weight(column):
    score, label, patients = column
    resamples = patient_weights(patients, replicates=5)
    known = np.flatnonzero(~np.isnan(label))
    for name, reference in REFERENCES.items():
        fast = CLASSIFICATION_METRICS[name](score, label, resamples)
        for replicate, value in enumerate(fast):
            weight = resamples.counts[resamples.patient[known], replicate].astype(float)
            if len(set(label[known][weight > 0])) < 2:
                assert np.isnan(value)
            else:
                expected = reference(label[known], score[known], sample_weight=weight)
                assert value == pytest.approx(expected, abs=1e-12)


def test_replicates_of_more_than_one_chunk_equal_scikit_learn_on_copied_images(case):
    scores, labels, patients = case
    fast = replicate_classification(scores, labels, patients, 140, names=tuple(REFERENCES))
    drawn = patient_weights(patients, replicates=140)
    known = ~np.isnan(labels[:, 3])
    for replicate in (0, 1, 127, 128, 140):
        images = np.repeat(np.arange(120), drawn.counts[drawn.patient, replicate] * known)
        for name, value in zip(REFERENCES, fast[:, 3, replicate], strict=True):
            expected = REFERENCES[name](labels[images, 3], scores[images, 3])
            assert value == pytest.approx(expected, abs=1e-12)


@few
@given(columns(), st.sampled_from(sorted(MAPS)), st.randoms(use_true_random=False))
def test_order_of_images_and_monotone_maps_of_scores_change_nothing(column, name, random):
    score, label, patients = column
    order = np.array(random.sample(range(len(score)), len(score)))
    first, second = patient_weights(patients, 20), patient_weights(patients[order], 20)
    for metric in REFERENCES:
        of = CLASSIFICATION_METRICS[metric]
        np.testing.assert_allclose(
            of(MAPS[name](score)[order], label[order], second),
            of(score, label, first),
            rtol=0,
            atol=1e-12,
        )


@few
@given(columns())
def test_negating_scores_turns_the_auroc_around(column):
    score, label, patients = column
    resamples = patient_weights(patients, 10)
    there, back = (CLASSIFICATION_METRICS["auroc"](s, label, resamples) for s in (score, -score))
    np.testing.assert_allclose(there + back, np.where(np.isnan(there), np.nan, 1), atol=1e-12)


def test_the_table_of_a_case_equals_scikit_learn(case):
    scores, labels, patients = case
    result = score_classification(scores, labels, patients, replicates=5)
    assert tuple(result) == NAMES
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


def test_continuous_scores_equal_the_naive_pair_count():
    rng = np.random.default_rng(1)
    label, score = (rng.random(60) < 0.4).astype(float), rng.normal(size=60)
    wins = [
        (high > low) + 0.5 * (high == low)
        for high in score[label == 1]
        for low in score[label == 0]
    ]
    estimate = binary_auroc(score, label, np.arange(60).astype(str), replicates=0)
    assert estimate.value == pytest.approx(np.mean(wins)) and estimate.n == 60


def test_sensitivity_where_it_can_be_read_off():
    """Ten negatives at 0.0 to 0.9, of which one may be called: positives above 0.8 are found."""
    scores = np.array([*np.arange(10) / 10, 0.95, 0.85, 0.81, 0.8, 0.1])
    labels = np.repeat([0.0, 1.0], [10, 5])
    resamples = patient_weights(np.arange(15).astype(str), replicates=0)

    def found(scores):
        return CLASSIFICATION_METRICS[SENSITIVITY](scores, labels, resamples)[0]

    assert found(scores) == pytest.approx(3 / 5)
    assert found(np.zeros(15)) == 0  # only the threshold that calls nobody is specific enough
    assert found(labels) == 1
    assert found(1 - labels) == 0


def test_the_threshold_is_chosen_again_in_each_replicate(case):
    """With the threshold of the data, a replicate could be less specific than 0.9."""
    scores, labels, patients = case
    labels = np.nan_to_num(labels)
    of = replicate_classification(scores, labels, patients, 50, names=(SENSITIVITY,))[0, 0]
    drawn = patient_weights(patients, 50)
    for replicate in range(51):
        images = np.repeat(np.arange(120), drawn.counts[drawn.patient, replicate])
        score, positive = scores[images, 0], labels[images, 0] == 1
        options = [
            (score[positive] >= threshold).mean()
            for threshold in [*scores[:, 0], np.inf]
            if 10 * (score[~positive] < threshold).sum() >= 9 * (~positive).sum()
        ]
        assert of[replicate] == pytest.approx(max(options))


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


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_for_any_number(images):
    shape = (images, 14)
    result = score_classification(np.zeros(shape), np.ones(shape), np.array(["a"] * images), 10)
    for of_metric in result.values():
        mean, mass = of_metric["mean"], of_metric["per_finding"]["Mass"]
        assert np.isnan([mean.value, mean.low, mass.value, mass.high]).all()
        assert (mean.n, mass.n) == (images, images)


def test_no_label_known_is_nan_with_n_zero(case):
    scores, _, patients = case
    result = score_classification(scores, np.full(scores.shape, np.nan), patients, 10)
    for of_metric in result.values():
        assert {estimate.n for estimate in of_metric["per_finding"].values()} == {0}
        assert np.isnan(of_metric["mean"].value)


def test_a_replicate_without_the_only_positive_is_left_out():
    labels = np.zeros((10, 14))
    labels[0] = 1
    result = score_classification(labels.copy(), labels, np.arange(10).astype(str))
    hernia = result["auroc"]["per_finding"]["Hernia"]
    assert (hernia.value, hernia.low, hernia.high, hernia.n) == (1, 1, 1, 1)


def test_chance_is_one_half_prevalence_and_one_tenth():
    rng = np.random.default_rng(3)
    labels = (rng.random((2000, 14)) < 0.2).astype(float)
    patients = np.arange(2000).astype(str)
    result = score_classification(rng.random((2000, 14)), labels, patients, replicates=100)
    assert result["auroc"]["mean"].value == pytest.approx(0.5, abs=0.02)
    assert result["average_precision"]["mean"].value == pytest.approx(0.2, abs=0.02)
    assert result[SENSITIVITY]["mean"].value == pytest.approx(0.1, abs=0.02)
    assert result["auroc"]["mean"].low < 0.5 < result["auroc"]["mean"].high
    constant = score_classification(np.zeros((2000, 14)), labels, patients, replicates=10)
    assert constant["auroc"]["mean"].value == 0.5


def test_logits_have_an_order_but_are_no_probabilities(case):
    scores, labels, patients = case
    logits = 8 * scores - 4
    assert (
        replicate_classification(logits, labels, patients, 10)
        == replicate_classification(scores, labels, patients, 10)
    ).all()
    with pytest.raises(ValueError, match=r"go from -4 to 4\. .* apply a sigmoid to logits"):
        score_classification(logits, labels, patients, replicates=10)
    for name in OF_PROBABILITIES:
        with pytest.raises(ValueError, match=f"of {scores.size} scores are not in 0 to 1"):
            replicate_classification(logits, labels, patients, 10, names=(name,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y, p: (s[:, :8], y, p), r"scores \(120, 8\)"),
        (lambda s, y, p: (s, y[:5], p), r"labels \(5, 14\)"),
        (lambda s, y, p: (s, y, p[:7]), "7 patient ids"),
        (lambda s, y, p: (np.where(s > 0.9, np.nan, s), y, p), "of 1680 scores are NaN or inf"),
        (lambda s, y, p: (np.where(s > 0.9, np.inf, s), y, p), "of 1680 scores are NaN or inf"),
        (lambda s, y, p: (s, np.where(y == 1, -1, y), p), "labels must be 0.* and some are -1$"),
        (lambda s, y, p: (s, y / 2, p), "some are 0.5"),
        (lambda s, y, p: (np.where(s > 0.9, 1.001, s), y, p), "go from 0 to 1.001"),
    ],
)
def test_bad_input_is_refused(case, change, message):
    with pytest.raises(ValueError, match=message):
        score_classification(*change(*case), replicates=1)


def test_an_unknown_metric_is_refused_with_the_known_ones(case):
    with pytest.raises(ValueError, match="no such metric: auc; there are auroc, average_precision"):
        replicate_classification(*case, 1, names=("auc",))
