import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxrlib.datasets.coverage import rasterize
from cxrlib.metrics.conventions import (
    CHEXLOCALIZE_THRESHOLDS,
    SWEEP,
    Case,
    continuous_dice,
    of_chexlocalize,
    of_ham,
    of_maps,
    of_pylon,
    of_wang,
    of_wsol,
    pointing,
)

quick = settings(deadline=None, max_examples=20)
SIZE = 12
# 64ths, so that shifts and scales by powers of two are exact in float32.
DYADIC = st.integers(0, 64).map(lambda k: k / 64)
FRAMES = arrays(np.float32, (SIZE, SIZE), elements=DYADIC, fill=st.nothing())
CORNERS = st.tuples(*[st.integers(1, 7)] * 2, *[st.integers(1, 4)] * 2)
BOXES = st.lists(CORNERS, min_size=1, max_size=3).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], float)
)


def case(map_, boxes, coverage=None):
    """A map that is already as large as the frame; outlined where a coverage is given."""
    map_, boxes = np.asarray(map_, np.float32), np.asarray(boxes, float)
    if coverage is not None:
        return Case(map_, lambda: map_, np.asarray(coverage, np.float32), boxes, outlined=True)
    fractions = boxes / len(map_)
    return Case(map_, lambda: map_, rasterize(fractions[None], len(map_))[0], boxes)


def naive_pointing(map_, boxes):
    """Pixel by pixel: how many of the highest have their centre in a box."""
    peaks = np.argwhere(map_ == map_.max()) + 0.5
    return np.mean(
        [any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes) for y, x in peaks]
    )


def naive_iou(region, mask):
    return (region & mask).sum() / (region | mask).sum()


@given(FRAMES, BOXES)
@quick
def test_our_conventions_are_their_formulas(map_, boxes):
    of = case(map_, boxes)
    S, G = map_.astype(float), of.coverage.astype(float)
    at_half = np.greater_equal(S, S.max() / 2)
    expected = {
        "pointing": naive_pointing(map_, boxes),
        "continuous_dice": 2 * (S * G).sum() / (S.sum() + G.sum()),
        "continuous_dice_squared": 2 * (S * G).sum() / ((S**2).sum() + (G**2).sum()),
        "iou_half": naive_iou(at_half & (S > 0), G >= 0.5),
    }
    assert of_maps(of) == pytest.approx(expected, abs=1e-6)


@given(FRAMES, BOXES)
@quick
def test_masks_of_others_are_their_formulas(map_, boxes):
    """Of boxes with whole corners, where all roundings agree."""
    of = case(map_, boxes)
    G, n = of.coverage == 1, of.rescaled
    row, column = np.divmod(map_.argmax(), SIZE)
    ham = 1 / (1 + np.exp(-100 * (n.astype(float) - 0.4))) >= 0.999
    hit = any(x0 <= column <= x1 and y0 <= row <= y1 for x0, y0, x1, y1 in boxes)
    above = map_ > map_.max() / 2
    assert of_pylon(of) == pytest.approx(
        {
            "pylon_point": float(hit),
            "pylon_iou": naive_iou(above, G),
            "pylon_iobb": (above & G).sum() / max(above.sum(), 1),
        }
    )
    assert of_ham(of) == pytest.approx(
        {
            "ham_iou": naive_iou(ham, G),  # a constant map is all 0 in n
            "ham_ior": (ham & G).sum() / max(ham.sum(), 1),
        }
    )
    chexlocalize = of_chexlocalize(of)
    assert chexlocalize["chexlocalize_hit"] == G[row, column]
    for T, iou in zip(CHEXLOCALIZE_THRESHOLDS, chexlocalize["chexlocalize_iou"], strict=True):
        assert iou == pytest.approx(naive_iou(n > np.float32(T), G))


def test_histograms_are_those_of_wsolevaluation():
    rng = np.random.default_rng(0)
    map_ = (rng.integers(0, 100, (SIZE, SIZE)) + 0.5) / 100  # away from the ends of bins
    map_[0, :2] = 0, 1
    of = case(map_, [[1, 2, 8, 9], [7, 0, 11, 5]])
    measured, inside = of_wsol(of), of.coverage == 1
    for name, part in (("wsol_inside", inside), ("wsol_outside", ~inside)):
        expected = np.histogram(map_[part], np.append(SWEEP, [1, 2, 3]))[0]
        assert measured[name].tolist() == expected[:101].tolist()


def test_boxes_of_wsolevaluation_end_a_pixel_before_the_frame():
    """A region of 4 px to the right edge: its box is 8 to 11, both included; the truth 8 to 12."""
    map_ = np.zeros((SIZE, SIZE))
    map_[2:6, 8:12] = 1
    measured = of_wsol(case(map_, [[8, 2, 12, 6]]))
    np.testing.assert_allclose(measured["wsol_largest"], (4 * 5) / (5 * 5))
    assert (measured["clarity"] == 1).all()
    inner = of_wsol(case(np.roll(map_, -1, axis=1), [[7, 2, 11, 6]]))
    assert (inner["wsol_largest"] == 1).all()


def test_thresholds_of_wang_are_shares_of_255():
    for levels, boxes in (((59.9, 179.9), 1), ((60.1, 179.9), 2), ((60.1, 180.1), 3)):
        map_ = np.zeros((SIZE, SIZE))
        map_[[1, 5], [1, 5]] = np.array(levels) / 255
        map_[11, 11] = 1  # counts at both
        assert of_wang(case(map_, [[8, 0, 9, 1]]))["wang_false_iou"][0] == 2 + boxes


def test_boxes_at_both_thresholds_are_pooled():
    """Wang 2017: the brightest spot has a box at 60 and one at 180, the other one only at 60."""
    map_ = np.zeros((SIZE, SIZE))
    map_[1:4, 1:4] = 1
    map_[7:11, 7:9] = 0.5
    measured = of_wang(case(map_, [[1, 1, 4, 4], [7, 7, 11, 11]]))
    assert (measured["wang_iou"], measured["wang_iobb"]) == (1, 1)
    # The second spot is the left half of its box: IoU 0.5, IoBB 1.
    assert measured["wang_false_iou"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert measured["wang_false_iobb"].tolist() == [0] * 5
    away = of_wang(case(map_, [[4, 4, 6, 6]]))
    assert (away["wang_iou"], away["wang_iobb"]) == (0, 0)
    assert away["wang_false_iou"].tolist() == [3] * 7
    assert away["wang_false_iobb"].tolist() == [3] * 5


def test_a_box_on_the_threshold_is_false():
    """Correct is above T and not at T: "IoU > T(IoU)"."""
    map_ = np.zeros((SIZE, SIZE))
    map_[:2, :2] = 1
    measured = of_wang(case(map_, [[0, 0, 2, 4]]))
    assert measured["wang_iou"] == 0.5
    assert measured["wang_false_iou"].tolist() == [0, 0, 0, 0, 2, 2, 2]


def test_half_open_boxes_hold_the_pixels_whose_centre_is_in_them():
    map_ = np.zeros((4, 4))
    map_[1, 1] = 1  # centre at 1.5
    for x0, x1, hit in ((1.5, 4.0, 1.0), (0.0, 1.5, 0.0), (0.0, 1.501, 1.0)):
        assert pointing(map_, np.array([[x0, 0.0, x1, 4.0]])) == hit


def test_a_plateau_is_shared_though_interpolation_rounds_it():
    map_ = np.zeros((4, 4), np.float32)
    map_[0] = 0.7
    map_[0, 0] += 1e-7
    assert map_[0, 0] > map_[0, 1]
    assert pointing(map_, np.array([[2.0, 0.0, 4.0, 4.0]])) == 0.5


def test_dice_and_iou_of_binary_maps_agree():
    """Dice = 2 IoU / (1 + IoU)."""
    S, G = (np.random.default_rng(seed).random((2, 16, 16)) > 0.5 for seed in (1, 2))
    for predicted, true in zip(S.astype(float), G.astype(float), strict=True):
        iou = naive_iou(predicted == 1, true == 1)
        for squared in (False, True):
            dice = continuous_dice(predicted, true, squared=squared)
            assert dice == pytest.approx(2 * iou / (1 + iou))


def test_a_truth_too_small_to_cover_half_a_pixel_still_counts():
    of = case(np.eye(4)[2:3].T @ np.eye(4)[2:3], [[2.04, 2.04, 2.12, 2.12]])
    assert of.coverage.max() < 0.5
    assert of_maps(of)["iou_half"] == 1


def test_outlines_replace_boxes_where_pixels_are_compared():
    outline = np.zeros((8, 8))
    outline[2, 2:6] = outline[2:6, 2] = 1  # a corner of its box
    of = case(outline, [[2, 2, 6, 6]], outline)
    assert of_maps(of)["iou_half"] == of_ham(of)["ham_iou"] == of_pylon(of)["pylon_iou"] == 1
    assert of_chexlocalize(of)["chexlocalize_otsu"] == 1
    assert of_wsol(of)["wsol_inside"].sum() == 7
    boxed = case(outline, [[2, 2, 6, 6]])
    assert of_ham(boxed)["ham_iou"] == of_pylon(boxed)["pylon_iou"] == 7 / 16


def test_the_threshold_of_ham_is_where_its_sigmoid_is_0_999():
    at = 0.4 + math.log(999) / 100
    assert 1 / (1 + math.exp(-100 * (at - 0.4))) == pytest.approx(0.999, abs=1e-12)
    map_ = np.zeros((4, 4))
    map_[0] = [1, at + 0.001, at - 0.001, 0]
    assert of_ham(case(map_, [[0, 0, 2, 1]]))["ham_iou"] == 1
