from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from test_metrics_localization import (
    make_truth,
    of_images,
    random_dataset,
    random_images,
    random_rows,
    random_truth,
)

from cxrlib.datasets.base import Truth
from cxrlib.datasets.splits import box_halves, boxval
from cxrlib.findings import FINDINGS
from cxrlib.metrics.conventions import CHEXLOCALIZE_THRESHOLDS, SWEEP, TIOBB, TIOU
from cxrlib.metrics.estimates import estimate
from cxrlib.metrics.localization import Measured, measure
from cxrlib.metrics.protocols import PROTOCOLS, TUNED, WSOL_TS, pixel_average_precision
from cxrlib.metrics.tuning import tune

TUNED_NAMES = [name for name, protocol in PROTOCOLS.items() if protocol.tuned]


@pytest.fixture(scope="module")
def measured():
    """Sixty images of twenty patients, with maps that know a little."""
    truth, maps = random_truth(60), random_images(60, 8)
    masks = truth.masks(np.arange(60), 8).numpy()
    maps[truth.image, truth.finding] = 0.6 * maps[truth.image, truth.finding] + 0.4 * masks
    return measure({"maps": of_images(maps, 32)}, truth, 32)["maps"]


def value(measured, name, row="micro"):
    """A protocol's micro average."""
    scores = estimate(measured, [name], replicates=0)
    return scores.replicates[name][{"macro": -2, "micro": -1}[row], 0]


def of_values(**pairs):
    """Measurements given by hand, each of one finding's pairs."""
    arrays = {name: np.array(values, float) for name, values in pairs.items()}
    n = len(next(iter(arrays.values())))
    rows = [(image, 4, 0.1, 0.1, 0.5, 0.5) for image in range(n)]
    truth = make_truth(rows, [str(image) for image in range(n)])
    return Measured(truth, 32, arrays, None, boxval(truth))


def test_every_protocol_says_where_it_is_from_and_how_it_counts():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.origin and protocol.threshold and protocol.boxes
        assert protocol.threshold.split(":")[0].split(" ")[0] in (
            "none",
            "fixed",
            "Otsu's",
            "tuned",
            "oracle",
        )
        assert (protocol.threshold == TUNED) == (protocol.tuned is not None)
        assert (protocol.unit == "boxes per image") == name.startswith("wang_afp")
    for prefix, Ts in (("ham_tiou", TIOU), ("wang_iou", TIOU), ("clarity_iou", TIOU)):
        assert [f"{prefix}@{T}" in PROTOCOLS for T in Ts] == [True] * 7
    for prefix in ("ham_tior", "wang_iobb", "wang_iobb_or_iou", "wang_afp_iobb"):
        assert [f"{prefix}@{T}" in PROTOCOLS for T in TIOBB] == [True] * 5


def test_columns_have_a_row_for_each_pair_and_leave_out_the_same(measured):
    pairs = {name: values.copy() for name, values in measured.pairs.items()}
    for values in pairs.values():
        values[:7] = np.nan
    some = replace(measured, pairs=pairs)
    for name, protocol in PROTOCOLS.items():
        columns = protocol.columns(some)
        assert columns.ndim == 2 and len(columns) == 60, name
        left_out = np.isnan(columns)
        if protocol.every_record:
            assert columns.shape[1] == len(FINDINGS)
            continue
        assert np.array_equal(left_out.all(axis=1), left_out.any(axis=1)), name
        assert left_out[:7].all(), name
        expected = 60 - 7 if protocol.tuned is None else (~measured.boxval[7:]).sum()
        assert (~left_out[:, 0]).sum() == expected, name


@pytest.mark.parametrize(
    ("name", "pairs", "expected"),
    [
        ("ham_tiou@0.5", {"ham_iou": [0.5, 0.49, 0.51, 0.0]}, 0.5),  # at T is correct
        ("ham_tior@0.25", {"ham_ior": [0.25, 0.2, 1.0, 0.0]}, 0.5),
        ("wang_iou@0.5", {"wang_iou": [0.5, 0.49, 0.51, 0.0]}, 0.25),  # above T is
        ("wang_iobb@0.5", {"wang_iobb": [0.5, 0.49, 0.51, 0.0]}, 0.25),
        ("wang_iobb_or_iou@0.5", {"wang_iou": [0.6, 0.0], "wang_iobb": [0.0, 0.7]}, 1.0),
        ("pylon_iobb@0.5", {"pylon_iobb": [0.5, 0.49, 0.51, 0.0]}, 0.25),
        ("pylon_iobb_or_iou@0.5", {"pylon_iou": [0.0, 0.0], "pylon_iobb": [0.6, 0.5]}, 0.5),
        ("pointing", {"pointing": [1.0, 0.0, 0.25]}, 1.25 / 3),
        ("pointing", {"pointing": [1.0, np.nan, 0.0]}, 0.5),  # left out, not 0
        ("iou@0.5", {"iou_half": [0.2, 0.4]}, 0.3),
        ("chexlocalize_miou_otsu", {"chexlocalize_otsu": [0.2, 0.4]}, 0.3),
        # The best threshold of all pairs together: the second, 2 of 3.
        ("maxboxacc", {"wsol_largest": [[0.9, 0.5, 0.1], [0.1, 0.6, 0.2], [0, 0.4, 0.7]]}, 2 / 3),
        # At 0.3 the first threshold has both, at 0.5 and 0.7 one each.
        ("maxboxacc_v2", {"wsol_all": [[0.4, 0.8], [0.6, 0.2]]}, (1 + 0.5 + 0.5) / 3),
        ("maxboxacc_v2@0.5", {"wsol_all": [[0.4, 0.8], [0.6, 0.2]]}, 0.5),
    ],
)
def test_by_hand(name, pairs, expected):
    assert value(of_values(**pairs), name) == pytest.approx(expected)


def test_micro_is_over_pairs_and_macro_over_findings():
    rows = [(image, 4 if image else 5, 0.1, 0.1, 0.5, 0.5) for image in range(4)]
    truth = make_truth(rows, list("abcd"))
    pairs = {"pointing": np.array([1.0, 0.0, 0.0, 0.5])}
    by_hand = Measured(truth, 32, pairs, None, boxval(truth))
    assert value(by_hand, "pointing") == pytest.approx(1.5 / 4)
    assert value(by_hand, "pointing", "macro") == pytest.approx((1 + 0.5 / 3) / 2)


def test_the_oracle_is_no_worse_than_any_fixed_threshold(measured):
    largest, every = measured.pairs["wsol_largest"], measured.pairs["wsol_all"]
    assert (every >= largest).all()
    accuracies = (largest >= 0.5).mean(axis=0)
    assert value(measured, "maxboxacc") == accuracies.max() > accuracies.min()
    at = {T: (every >= T).mean(axis=0).max() for T in WSOL_TS}
    for T, best in at.items():
        assert value(measured, f"maxboxacc_v2@{T}") == pytest.approx(best)
    assert value(measured, "maxboxacc_v2") == pytest.approx(np.mean([*at.values()]))
    per_finding = estimate(measured, ["maxboxacc"], 0).replicates["maxboxacc"][:8, 0]
    for finding, ours in enumerate(per_finding):  # each finding has its own best
        assert ours == (largest[measured.truth.finding == finding] >= 0.5).mean(axis=0).max()


def test_stricter_is_lower(measured):
    for prefix, Ts in (
        ("ham_tiou", TIOU),
        ("ham_tior", TIOBB),
        ("clarity_iou", TIOU),
        ("wang_iou", TIOU),
        ("wang_iobb", TIOBB),
        ("wang_iobb_or_iou", TIOBB),
        ("maxboxacc_v2", WSOL_TS),
    ):
        falling = [value(measured, f"{prefix}@{T}") for T in Ts]
        assert (np.diff(falling) <= 0).all() and falling[0] > falling[-1], prefix
    for prefix, Ts in (("wang_afp_iou", TIOU), ("wang_afp_iobb", TIOBB)):
        assert (np.diff([value(measured, f"{prefix}@{T}") for T in Ts]) >= 0).all()
    for T in TIOBB:
        either = value(measured, f"wang_iobb_or_iou@{T}")
        assert either >= value(measured, f"wang_iobb@{T}")


def test_pxap_is_the_average_precision_of_pixels_in_bins(measured):
    """Each pixel is a case, its bin the score; sklearn's steps are the same bins."""
    inside, outside = measured.pairs["wsol_inside"], measured.pairs["wsol_outside"]
    bins = np.arange(101)

    def by_sklearn(pairs):
        counts = np.concatenate([inside[pairs].sum(axis=0), outside[pairs].sum(axis=0)])
        labels = np.repeat([1, 0], 101)
        return average_precision_score(labels, np.tile(bins, 2), sample_weight=counts)

    assert value(measured, "pxap") == pytest.approx(by_sklearn(np.arange(60)))
    per_finding = estimate(measured, ["pxap"], 0).replicates["pxap"][:8, 0]
    expected = [by_sklearn(measured.truth.finding == finding) for finding in range(8)]
    assert per_finding == pytest.approx(expected)


def test_pxap_without_a_true_pixel_is_not_defined():
    histograms = np.concatenate([np.zeros((1, 101, 1)), np.ones((1, 101, 1))], axis=1)
    assert np.isnan(pixel_average_precision(histograms, np.ones((1, 1, 1)), histograms)).all()


def test_false_boxes_are_per_boxed_record_whatever_its_finding():
    """Image 0 has two findings, so it is two records, as the 984 of Wang 2017."""
    rows = [(0, 4, 0.0, 0.0, 0.5, 0.5), (0, 5, 0.5, 0.5, 1.0, 1.0), (1, 4, 0.0, 0.0, 0.5, 0.5)]
    truth = make_truth(rows, ["a", "b"], 8)
    maps = np.zeros((2, 14, 8, 8), np.float32)
    maps[:, 4, 0, [0, 4, 7]] = 1  # three regions, each at both thresholds; one hits, with 1 / 16
    maps[0, 5, 6, 6] = 1
    scores = estimate(measure({"m": of_images(maps, 8)}, truth, 8)["m"], replicates=0)
    iobb, iou = scores.replicates["wang_afp_iobb@0.9"], scores.replicates["wang_afp_iou@0.1"]
    assert iobb[[4, 5], 0] == pytest.approx([4, 0])  # of a record: 2 regions at 2 thresholds
    assert iou[[4, 5], 0] == pytest.approx([6, 2 * 2 / 3])  # nodule: on two of three records
    assert iou[-2:, 0] == pytest.approx([(6 + 4 / 3) / 2] * 2)
    assert scores.n["wang_afp_iou@0.1"][[4, 5, -1, 0]].tolist() == [3, 3, 3, 0]
    assert np.isnan(iou[0, 0])
    assert scores.n["wang_iou@0.1"][[4, 5, -1]].tolist() == [2, 1, 3]


def test_tuning_by_hand():
    """The best on boxval, of equals the lowest; without a case there, the best of all."""
    rows = [(image, f, 0.1, 0.1, 0.5, 0.5) for image, f in enumerate([4, 4, 4, 5, 5, 6])]
    truth = make_truth(rows, list("abcdef"))
    half = np.array([True, True, False, True, False, False])
    objective = np.array(
        [[0, 1, 0], [1, 1, 0], [0, 0, 1], [0.5, 0.1, 0.5], [0, 1, 0], [0, 0, 1]], float
    )
    tuned = tune(objective, np.array([0.1, 0.2, 0.3]), truth, half)
    assert tuned.thresholds == {"Mass": 0.2, "Nodule": 0.1, "Pneumonia": 0.2}
    assert tuned.column.tolist() == [1, 1, 1, 0, 0, 1]
    picked = tuned.pick(objective)[:, 0]
    assert np.array_equal(picked, [np.nan, np.nan, 0, np.nan, 0, 0], equal_nan=True)
    objective[0] = np.nan  # left out of the mean
    assert tune(objective, np.array([0.1, 0.2, 0.3]), truth, half).thresholds["Mass"] == 0.1


@pytest.mark.parametrize("name", TUNED_NAMES)
def test_thresholds_are_tuned_on_boxval_and_scored_on_boxtest(measured, name):
    half = measured.boxval
    assert half.any() and not half.all()
    rng = np.random.default_rng(0)
    raw = "chexlocalize_iou" if name.startswith("chexlocalize") else "clarity"

    def with_changed(rows):
        values = measured.pairs[raw].copy()
        values[rows] = rng.random(values[rows].shape)
        changed = replace(measured, pairs=measured.pairs | {raw: values})
        return estimate(changed, [name], replicates=0)

    before = estimate(measured, [name], replicates=0)
    other_test, other_val = with_changed(~half), with_changed(half)
    assert other_test.thresholds == before.thresholds != other_val.thresholds
    assert not np.array_equal(other_test.replicates[name], before.replicates[name], equal_nan=True)
    finding = measured.truth.finding
    counts = [(~half & (finding == index)).sum() for index in range(14)]
    assert before.n[name].tolist() == [*counts, (~half).sum(), (~half).sum()]


def test_tuned_numbers_by_hand(measured):
    half, finding = measured.boxval, measured.truth.finding
    tried = {
        "clarity_iou@0.3": (measured.pairs["clarity"], SWEEP[::5]),
        "chexlocalize_miou_tuned": (measured.pairs["chexlocalize_iou"], CHEXLOCALIZE_THRESHOLDS),
    }
    for name, (iou, thresholds) in tried.items():
        scores = estimate(measured, [name], replicates=0)
        clarity = name.startswith("clarity")
        objective = np.mean([iou >= T for T in TIOU], axis=0) if clarity else iou
        for index in np.intersect1d(finding[half], finding[~half]):
            own = finding == index
            chosen = int(objective[own & half].mean(axis=0).argmax())
            assert scores.thresholds[name][FINDINGS[index]] == pytest.approx(thresholds[chosen])
            scored = iou[own & ~half, chosen]
            expected = (scored >= 0.3).mean() if clarity else scored.mean()
            assert scores.replicates[name][index, 0] == pytest.approx(expected)


def test_halves_have_different_patients_and_as_many_boxes():
    truth = random_truth(200, patients=80)
    half = boxval(truth)
    assert not set(truth.patient[half]) & set(truth.patient[~half])
    for finding in range(8):
        own = truth.finding == finding
        assert abs((own & half).sum() - (own & ~half).sum()) <= 4
    assert abs(half.sum() - (~half).sum()) <= 4
    dataset = random_dataset(200, patients=80)
    order = np.random.default_rng(0).permutation(200)
    moved = Truth(dataset.subset(order))
    assert np.array_equal(boxval(moved), boxval(Truth(dataset))[order])


def test_halves_of_chestx_ray14_are_the_frozen_ones():
    frozen = box_halves().iloc[:40]
    patients = np.random.default_rng(0).permutation(np.repeat(frozen.index.to_numpy(str), 2))
    truth = make_truth(random_rows(80), patients, name="nih")
    assert boxval(truth).tolist() == [frozen[patient] == "boxval" for patient in truth.patient]
    other = make_truth(random_rows(80), patients, name="other")
    assert not np.array_equal(boxval(other), boxval(truth))
