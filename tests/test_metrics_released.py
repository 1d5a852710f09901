"""The scorer beside the released evaluation code of four projects, on the same maps and boxes."""

import json

import numpy as np
import pandas as pd
import pytest

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Truth
from cxrlib.findings import BOXED, finding_index
from cxrlib.metrics.conventions import CHEXLOCALIZE_THRESHOLDS, TIOBB, TIOU
from cxrlib.metrics.estimates import estimate
from cxrlib.metrics.localization import frames_of, measure


class Released:
    """160 maps, and what the released code of four projects says of them."""

    def __init__(self, folder):
        self.expected = json.loads((folder / "localization.json").read_text())
        stored = np.load(folder / "localization.npz")
        self.logits = stored["logits"].astype(np.float32)
        xy, wh = np.split(stored["boxes_xywh_1024"].astype(float), 2, axis=1)
        boxes = pd.DataFrame(np.hstack([xy, xy + wh]) / 1024, columns=BOX_COLUMNS[2:])
        ids = np.array([f"i{pair:03d}" for pair in range(len(boxes))])
        findings = [finding_index(name) for name in stored["finding"]]
        boxes = boxes.assign(image_id=ids, finding=findings)
        labels = np.zeros((len(ids), 14))
        self.truth = Truth(CXRDataset("released", ids, ids, labels, boxes, 1024, np.zeros))

    def measure(self, convention, size, maps):
        frames = frames_of(lambda image, _: maps[image], size)
        return measure({"maps": frames}, self.truth, size, [convention])["maps"]

    @property
    def probabilities(self):
        return 1 / (1 + np.exp(-self.logits))


def values(measured, name):
    """Each boxed finding's value, macro and micro."""
    rows = estimate(measured, [name], replicates=0).replicates[name][:, 0]
    return rows[: len(BOXED)], rows[-2], rows[-1]


@pytest.fixture(scope="module")
def released(shared):
    return Released(shared / "fixtures")


def test_pylon_as_released(released):
    measured, expected = released.measure("pylon", 256, released.probabilities), released.expected
    point = expected["pylon_point"]
    each, macro, micro = values(measured, "pylon_pointing")
    assert each == pytest.approx(point["per_class"], abs=1e-12)
    assert (macro, micro) == pytest.approx((point["macro"], point["micro"]), abs=1e-12)
    for T in (0.1, 0.25, 0.5):
        for name in (f"pylon_iobb_or_iou@{T}", f"pylon_iobb@{T}"):
            # Rates of at most 26 pairs, which the released code has in float32.
            assert values(measured, name)[0] == pytest.approx(expected[name]["per_class"], abs=1e-7)


def test_ham_as_released(released):
    measured = released.measure("ham", 512, np.maximum(released.logits, 0))
    each = released.expected["ham_iou_each"]
    np.testing.assert_allclose(measured.pairs["ham_iou"], each, atol=1e-4)
    for name, thresholds in (("ham_tiou", TIOU), ("ham_tior", TIOBB)):
        assert released.expected[name].keys() == set(map(str, thresholds))
        for T, expected in released.expected[name].items():
            assert values(measured, f"{name}@{T}")[0] == pytest.approx(expected, abs=1e-12)


def test_chexlocalize_as_released(released):
    measured = released.measure("chexlocalize", 1024, released.probabilities)
    expected, ours = released.expected["chexlocalize"], measured.pairs
    assert ours["chexlocalize_hit"].tolist() == expected["hit_each"]
    np.testing.assert_allclose(ours["chexlocalize_otsu"], expected["iou_otsu_each"], atol=5e-3)
    half = ours["chexlocalize_iou"][:, CHEXLOCALIZE_THRESHOLDS.index(0.5)]
    np.testing.assert_allclose(half, expected["iou_half_each"], atol=1e-4)
    finding = released.truth.finding
    means = [half[finding == index].mean() for index in range(len(BOXED))]
    assert means == pytest.approx(expected["miou_half"], abs=1e-4)
    assert values(measured, "chexlocalize_hit_rate")[0] == pytest.approx(expected["hit_rate"])
    each = values(measured, "chexlocalize_miou_otsu")[0]
    assert each == pytest.approx(expected["miou_otsu"], abs=5e-3)


def test_wsolevaluation_as_released(released):
    """In per cent, over all pairs."""
    measured, expected = released.measure("wsol", 224, released.probabilities), released.expected
    wsol = expected["wsol"]
    exact = {
        "maxboxacc": wsol["maxboxacc_v1"],
        "maxboxacc_v2": wsol["maxboxacc_v2"],
        **{f"maxboxacc_v2@{int(T) / 100}": v for T, v in wsol["all_contours"].items()},
    }
    for name, value in exact.items():
        assert 100 * values(measured, name)[2] == pytest.approx(value, abs=1e-10), name
    assert 100 * values(measured, "pxap")[2] == pytest.approx(wsol["pxap"], abs=1e-4)
    largest = measured.pairs["wsol_largest"]
    for T, value in wsol["largest_contour"].items():
        accuracy = (largest >= int(T) / 100).mean(axis=0)
        assert 100 * accuracy.max() == pytest.approx(value, abs=1e-10)


def test_pointing_of_ours_differs_from_pylons_only_where_the_peak_is_on_an_edge(released):
    """PYLON compares the *index* of the peak pixel with inclusive edges, we its centre."""
    maps = released.probabilities
    ours = released.measure("maps", 256, maps).pairs["pointing"]
    theirs = released.measure("pylon", 256, maps).pairs["pylon_point"]
    frames = frames_of(lambda image, _: maps[image], 256)
    peaks = [frames(image, 0, False).argmax() for image in range(len(maps))]
    row, column = np.divmod(peaks, 256)
    x0, y0, x1, y1 = released.truth.boxes[:, 0].T * 256
    gaps = [x0 - column - 0.5, x1 - column - 0.5, y0 - row - 0.5, y1 - row - 0.5]
    on_edge = np.min(np.abs(gaps), axis=0) <= 0.5
    assert (ours == theirs)[~on_edge].all()
    assert (ours != theirs).sum() == 4  # of 160
