from dataclasses import replace

import numpy as np
import pytest
from test_metrics_localization import (
    make_truth,
    of_images,
    random_dataset,
    random_images,
    random_truth,
)

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import patient_weights
from cxrlib.metrics.estimates import ROWS, estimate
from cxrlib.metrics.localization import Measured, measure
from cxrlib.metrics.protocols import PROTOCOLS, WSOL_TS

NAMES = ("pointing", "ham_tiou@0.1", "maxboxacc", "maxboxacc_v2", "pxap", "wang_afp_iou@0.3")
R = 140  # more than one chunk


def measured_maps(truth, maps, size=16):
    return measure({"maps": of_images(maps, size)}, truth, size)["maps"]


@pytest.fixture(scope="module")
def measured():
    """50 images of 15 patients; the maps leave out one finding."""
    truth, maps = random_truth(50, patients=15), random_images(50)
    maps[:, 2] = np.nan
    return measured_maps(truth, maps)


def copied(measured, rows):
    """Measurements of some pairs, which may be there several times."""
    truth = measured.truth
    drawn = make_truth([], ["nobody"])
    drawn.image, drawn.finding, drawn.patient = (
        part[rows] for part in (truth.image, truth.finding, truth.patient)
    )
    drawn.boxes = truth.boxes[rows]
    pairs = {name: values[rows] for name, values in measured.pairs.items()}
    return Measured(drawn, measured.size, pairs, measured.false_boxes[rows], measured.boxval[rows])


def at_best(name, T, of, data):
    """The share that reaches T, at the threshold that is best on the data."""
    best = (data.pairs[name] >= T).mean(axis=0).argmax()
    return (of.pairs[name][:, best] >= T).mean()


def naive(name, of, data):
    """A protocol's number for pairs that are all there, and those of the data themselves."""
    if name == "pointing":
        return of.pairs["pointing"].mean()
    if name == "ham_tiou@0.1":
        return (of.pairs["ham_iou"] >= 0.1).mean()
    if name == "maxboxacc":
        return at_best("wsol_largest", 0.5, of, data)
    if name == "maxboxacc_v2":
        return np.mean([at_best("wsol_all", T, of, data) for T in WSOL_TS])
    inside, outside = (of.pairs[f"wsol_{part}"].sum(axis=0) for part in ("inside", "outside"))
    area = recall = 0.0
    for level in range(100, -1, -1):
        true, false = inside[level:].sum(), outside[level:].sum()
        step = true / inside.sum() - recall
        area += step * true / (true + false) if true else 0
        recall += step
    return area


def by_hand(name, measured, rows):
    """(16,): each finding, macro and micro."""
    if name.startswith("wang_afp"):
        at_T = copied(measured, rows).false_boxes[:, :, 2]  # T = 0.3
        known = ~np.isnan(at_T[0])
        means = np.where(known, at_T.mean(axis=0), np.nan)
        return np.array([*means, means[known].mean(), at_T[:, known].mean()])
    once = np.arange(len(measured.truth))
    drawn, data = (part[~np.isnan(measured.pairs["pointing"][part])] for part in (rows, once))

    def of(*findings):
        parts = [part[np.isin(measured.truth.finding[part], findings)] for part in (drawn, data)]
        return naive(name, *(copied(measured, part) for part in parts)) if len(parts[0]) else np.nan

    means = [of(index) for index in range(14)]
    return np.array([*means, np.nanmean(means), of(*range(14))])


@pytest.mark.parametrize("name", NAMES)
def test_replicates_equal_copying_the_drawn_patients(measured, name):
    scores = estimate(measured, [name], R, seed=3)
    assert scores.replicates[name].shape == (16, 1 + R)
    patients = np.unique(measured.truth.patient)
    counts = patient_weights(measured.truth.patient, R, seed=3).counts
    for replicate in (0, 1, 129, R):
        drawn = np.repeat(patients, counts[:, replicate])
        rows = np.concatenate([np.flatnonzero(measured.truth.patient == p) for p in drawn])
        np.testing.assert_allclose(
            scores.replicates[name][:, replicate], by_hand(name, measured, rows), atol=1e-12
        )


def test_summary_has_every_finding_its_interval_and_number(measured):
    scores = estimate(measured, ["pointing"], R)
    summary, finding = scores.summary("pointing"), measured.truth.finding
    each = summary["per_finding"]
    assert list(each) == list(FINDINGS) and list(ROWS) == [*FINDINGS, "macro", "micro"]
    for index in range(8):
        number = each[FINDINGS[index]]
        assert number.n == (0 if index == 2 else (finding == index).sum())
        assert np.isnan(number.value) == (index == 2)
    assert np.isnan(each["Hernia"].low) and each["Hernia"].n == 0
    for row in ("macro", "micro"):
        number = summary[row]
        low, high = np.percentile(scores.replicates["pointing"][ROWS.index(row), 1:], [2.5, 97.5])
        assert (number.low, number.high) == pytest.approx((low, high))
        assert number.low < number.value < number.high
        assert number.n == (finding != 2).sum()


def test_no_replicates_no_interval(measured):
    number = estimate(measured, ["pointing"], replicates=0).summary("pointing")["micro"]
    assert np.isfinite(number.value) and np.isnan([number.low, number.high]).all()


def test_order_of_the_images_changes_no_number():
    dataset, maps = random_dataset(40, patients=12), random_images(40)
    order = np.random.default_rng(5).permutation(40)
    first = estimate(measured_maps(Truth(dataset), maps), replicates=30)
    second = estimate(measured_maps(Truth(dataset.subset(order)), maps[order]), replicates=30)
    assert first.thresholds == second.thresholds
    for name in PROTOCOLS:
        np.testing.assert_allclose(
            second.replicates[name], first.replicates[name], atol=1e-9, err_msg=name
        )
        assert np.array_equal(first.n[name], second.n[name])


def test_more_images_of_the_same_patients_add_no_certainty():
    """Each image four times over: four times the pairs, the same patients and the same interval."""
    rows = [(image, 4, 0.1, 0.1, 0.5, 0.5) for image in range(120)]
    hits = {"pointing": np.tile(np.random.default_rng(0).integers(0, 2, 30).astype(float), 4)}
    all_in = np.zeros(120, bool)
    owners = np.tile(np.arange(30), 4).astype(str)
    once = Measured(
        make_truth(rows[:30], owners[:30]),
        32,
        {"pointing": hits["pointing"][:30]},
        None,
        all_in[:30],
    )
    same, apart = (
        Measured(make_truth(rows, patients), 32, hits, None, all_in)
        for patients in (owners, np.arange(120).astype(str))
    )
    width = {}
    for name, of in (("once", once), ("same", same), ("apart", apart)):
        number = estimate(of, ["pointing"], 400).summary("pointing")["micro"]
        width[name] = number.high - number.low
    assert width["same"] == pytest.approx(width["once"])
    assert width["apart"] == pytest.approx(width["once"] / 2, rel=0.3)


def test_a_stratum_is_the_number_of_its_images_alone():
    dataset, maps = random_dataset(60, patients=20), random_images(60)
    whole = measured_maps(Truth(dataset), maps)
    kept = np.arange(60) % 3 > 0
    names = [n for n, p in PROTOCOLS.items() if p.tuned is None and not p.every_record]
    among = estimate(whole, names, 25, seed=2, among=kept)
    part = measured_maps(Truth(dataset.subset(np.flatnonzero(kept))), maps[kept])
    alone = estimate(part, names, 25, seed=2)
    for name in names:
        np.testing.assert_allclose(among.replicates[name], alone.replicates[name], atol=1e-12)
        assert np.array_equal(among.n[name], alone.n[name])
    assert among.drawn == alone.drawn
    tuned = estimate(whole, ["clarity_iou@0.1"], 0, among=kept)
    every = estimate(whole, ["clarity_iou@0.1"], 0)
    assert tuned.thresholds == every.thresholds  # tuned on all
    assert tuned.n["clarity_iou@0.1"][-1] == (kept & ~whole.boxval).sum()


def test_an_empty_stratum_is_nan_with_n_zero(measured):
    scores = estimate(measured, replicates=5, among=np.zeros(50, bool))
    for name in PROTOCOLS:
        assert np.isnan(scores.replicates[name]).all() and not scores.n[name].any()


def alike(truth, seed):
    """Maps that know the truth, with a little noise of their own: they err alike."""
    maps, rng = random_images(len(truth), 8, seed=0), np.random.default_rng(seed)
    maps[truth.image, truth.finding] += truth.masks(np.arange(len(truth)), 8).numpy()
    return (maps + 0.1 * rng.random(maps.shape, np.float32)) / 3


def test_paired_interval_is_narrower_than_that_of_two_models():
    truth = random_truth(120, patients=60)
    one, other = (estimate(measured_maps(truth, alike(truth, s)), replicates=300) for s in (1, 2))
    difference = one.minus(other)
    micro = difference.summary("continuous_dice")["micro"]
    each = [scores.summary("continuous_dice")["micro"] for scores in (one, other)]
    assert micro.value == pytest.approx(each[0].value - each[1].value)
    unpaired = np.hypot(*(number.high - number.low for number in each))
    assert micro.high - micro.low < 0.5 * unpaired
    assert micro.n == 120 and difference.drawn == one.drawn
    nothing = one.minus(one).replicates["pointing"]
    assert not nothing[:8, 0].any() and not nothing[-1].any() and np.isnan(nothing[8:14]).all()


def test_differences_are_of_the_same_pairs_or_none():
    truth, maps = random_truth(40), random_images(40)
    part = maps.copy()
    part[:, 3] = np.nan
    whole, partly = (estimate(measured_maps(truth, of), replicates=10) for of in (maps, part))
    for difference in (whole.minus(partly), partly.minus(whole)):
        values, n = difference.replicates["pointing"], difference.n["pointing"]
        assert not values[[0, 1, 2, 4], 0].any() and (n[[0, 1, 2, 4]] > 0).all()
        assert np.isnan(values[[3, -1]]).all() and not n[[3, -1]].any()
        np.testing.assert_allclose(values[-2], np.nanmean(values[:14], axis=0))
        assert n[-2] == n[:14].sum()


def test_differences_of_other_pairs_draws_or_protocols_are_refused(measured):
    scores = estimate(measured, ["pointing"], 20)
    others = [
        estimate(measured, ["pointing"], 21),
        estimate(measured, ["pointing"], 20, seed=1),
        estimate(measured, ["pxap"], 20),
        estimate(measured, ["pointing"], 20, among=np.arange(50) > 0),
        estimate(replace(measured, truth=random_truth(50, seed=1)), ["pointing"], 20),
    ]
    for other in others:
        with pytest.raises(ValueError, match="not of the same pairs, protocols, replicates and s"):
            scores.minus(other)
