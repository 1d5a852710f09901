"""Metrics beside their definitions in plain float64, over extreme values and ties."""

import math

import numpy as np
import pytest

from cxrlib.metrics import conventions, regions
from cxrlib.metrics.bootstrap import interval, patient_weights
from cxrlib.metrics.classification import CLASSIFICATION_METRICS


def slow_auroc(score, label):
    pairs = [(p, n) for p in score[label == 1] for n in score[label == 0]]
    return np.mean([(p > n) + (p == n) / 2 for p, n in pairs]) if pairs else math.nan


def slow_average_precision(score, label):
    positives = (label == 1).sum()
    if not positives or not (label == 0).any():
        return math.nan
    called = [(label[score >= t] == 1) for t in np.sort(np.unique(score))[::-1]]
    known = [(label[score >= t] >= 0).sum() for t in np.sort(np.unique(score))[::-1]]
    recall = [0, *(c.sum() / positives for c in called)]
    parts = zip(called, known, recall, recall[1:], strict=False)
    return sum((after - before) * c.sum() / n for c, n, before, after in parts if n)


def slow_calibration_error(score, label):
    known = ~np.isnan(label)
    p, y, total = score[known].astype(float), label[known], 0.0
    for b in range(15):
        inside = (p > b / 15) & (p <= (b + 1) / 15) | ((b == 0) & (p == 0))
        total += abs((y[inside] - p[inside]).sum())
    return total / known.sum() if known.any() else math.nan


def score_columns():
    rng = np.random.default_rng(0)
    label = (rng.random(60) < 0.3).astype(float)
    label[:8] = np.nan
    return {
        "tied": (np.full(60, 0.5), label),
        "two values": ((rng.random(60) < 0.5).astype(float), label),
        "rounded": (rng.random(60).round(1), label),
        "zero and one": (np.nan_to_num(label), label),
        "upside down": (1 - np.nan_to_num(label), label),
        "tiny": (rng.random(60) * 1e-30, label),
        "near one": (1 - rng.integers(0, 4, 60) * 1e-7, label),
        "one positive": (rng.random(60), np.eye(1, 60, 9)[0]),
        "no positives": (rng.random(60), np.zeros(60)),
        "no negatives": (rng.random(60), np.ones(60)),
        "nothing known": (rng.random(60), np.full(60, np.nan)),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("name", score_columns())
def test_classification_by_definition(name, dtype):
    score, label = score_columns()[name]
    score = score.astype(dtype)
    drawn = patient_weights(np.arange(60).astype(str), replicates=2)
    brier = (score.astype(float) - label) ** 2
    known = ~np.isnan(label)
    expected = {
        "auroc": slow_auroc(score, label),
        "average_precision": slow_average_precision(score, label),
        "brier": brier[known].mean() if known.any() else math.nan,
        "calibration_error": slow_calibration_error(score, label),
    }
    for metric, value in expected.items():
        result = CLASSIFICATION_METRICS[metric](score, label, drawn)[0]
        assert result == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), metric


def map_cases():
    rng = np.random.default_rng(0)
    return {
        "zero": np.zeros((20, 20)),
        "constant": np.full((20, 20), 0.3),
        "one": np.ones((20, 20)),
        "tiny": 1e-30 * rng.random((20, 20)),
        "near one": 1 - 1e-7 * rng.random((20, 20)),
        "single": np.eye(1, 400, 87).reshape(20, 20),
        "random": rng.random((20, 20)),
    }


@pytest.mark.parametrize("name", map_cases())
def test_localization_by_definition(name):
    S = map_cases()[name].astype(np.float32)
    box = np.array([[4, 3, 9, 12.0]])
    G = np.zeros((20, 20), np.float32)
    G[3:12, 4:9] = 1
    exact = S.astype(float)
    dice = 2 * (exact * G).sum() / (exact.sum() + G.sum())
    assert conventions.continuous_dice(S, G) == pytest.approx(dice, rel=1e-5)
    squared = 2 * (exact * G).sum() / ((exact**2).sum() + G.sum())
    assert conventions.continuous_dice(S, G, squared=True) == pytest.approx(squared, rel=1e-5)
    assert conventions.continuous_dice(S, 0 * G) == 0
    highest = exact >= exact.max() * (1 - 1e-6)
    assert conventions.pointing(S, box) == pytest.approx(G[highest].mean())
    region = (exact >= exact.max() / 2) & (exact > 0)
    union = (region | (G > 0)).sum()
    iou, over = regions.overlap(region.astype(np.uint8), G.astype(np.uint8))
    assert iou == pytest.approx((region & (G > 0)).sum() / union)
    assert over == pytest.approx((region & (G > 0)).sum() / max(region.sum(), 1))
    spread = np.ptp(exact)
    flat = spread <= 1e-6 * exact.max()
    expected = np.zeros((20, 20)) if flat else (exact - exact.min()) / spread
    np.testing.assert_allclose(regions.rescale(S), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dice_of_a_large_map_of_any_precision(dtype):
    """The sum of a million pixels is beyond float16, and needs care in float32."""
    S = np.full((1024, 1024), 0.3, dtype)
    G = np.zeros((1024, 1024), dtype)
    G[:512] = 1
    level, n = float(S[0, 0]), 512 * 1024
    expected = 2 * level * n / (level * 2 * n + n)
    assert conventions.continuous_dice(S, G) == pytest.approx(expected, rel=1e-5)
    squared = 2 * level * n / (level**2 * 2 * n + n)
    assert conventions.continuous_dice(S, G, squared=True) == pytest.approx(squared, rel=1e-5)


def test_replicates_are_patients_drawn_with_replacement():
    """Each replicate is the metric of the images of the patients that were drawn, copied out."""
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 12, 50).astype(str)
    score, label = rng.random(50).round(1), (rng.random(50) < 0.4).astype(float)
    drawn = patient_weights(patient, replicates=20, seed=3)
    assert (drawn.counts.sum(axis=0) == len(np.unique(patient))).all()
    result = CLASSIFICATION_METRICS["auroc"](score, label, drawn)
    for column, value in zip(drawn.counts.T, result, strict=True):
        copies = np.repeat(np.arange(50), column[drawn.patient])
        assert value == pytest.approx(slow_auroc(score[copies], label[copies]), nan_ok=True)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([], (math.nan, math.nan)),
        ([math.nan] * 4, (math.nan, math.nan)),
        ([0.3], (0.3, 0.3)),
        ([math.nan, 0.0, 1.0], (0.025, 0.975)),
        ([1e-300, 1e-300], (1e-300, 1e-300)),
        ([-1e300, 1e300], (-0.95e300, 0.95e300)),
    ],
)
def test_intervals_of_few_replicates(values, ends):
    assert interval(np.array(values)) == pytest.approx(ends, nan_ok=True)
