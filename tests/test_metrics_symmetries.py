"""What must not change a number, and what may, in each convention."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from test_metrics_conventions import BOXES, CORNERS, FRAMES, SIZE, case, quick

from cxrlib.metrics.conventions import CONVENTIONS, of_pylon, of_wsol


def everything(map_, boxes):
    of = case(map_, boxes)
    return {name: v for convention in CONVENTIONS.values() for name, v in convention(of).items()}


def assert_same(ours, theirs, names):
    for name in names:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)


@given(CORNERS)
@quick
def test_a_perfect_map_scores_one(corner):
    x, y, w, h = corner
    boxes = np.array([[x, y, x + w, y + h]])
    measured = everything(case(np.zeros((SIZE, SIZE)), boxes).coverage, boxes)
    false = ["wang_false_iou", "wang_false_iobb"]
    assert not np.hstack([measured.pop(name) for name in false]).any()
    assert measured.pop("wsol_inside").tolist() == [0] * 100 + [w * h]
    assert measured.pop("wsol_outside").tolist() == [SIZE**2 - w * h] + [0] * 100
    for name, value in measured.items():
        np.testing.assert_allclose(value, 1, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_constant_map_has_no_region_and_points_by_area(level):
    measured = everything(np.full((SIZE, SIZE), level), [[2, 1, 8, 5]])
    area = 24 / SIZE**2
    assert measured["pointing"] == pytest.approx(area)
    zero = ["ham_iou", "ham_ior", "chexlocalize_otsu", "chexlocalize_iou", "wang_iou", "wang_iobb"]
    zero += ["wang_false_iou", "wang_false_iobb", "clarity"]
    assert not np.hstack([measured[name] for name in zero]).any()
    assert measured["iou_half"] == pytest.approx(area if level else 0)  # all is above max / 2
    dice = 2 * level * area / (level + area)
    assert measured["continuous_dice"] == pytest.approx(dice)
    # wsolevaluation then has the box (0, 0, 0, 0): the pixel in the corner, which is not in this.
    assert not np.hstack([measured["wsol_largest"], measured["wsol_all"]]).any()


MINMAX = ["ham_iou", "ham_ior", "chexlocalize_hit", "chexlocalize_otsu", "chexlocalize_iou"]
MINMAX += ["wsol_largest", "wsol_all", "wsol_inside", "wsol_outside", "clarity"]
MINMAX += ["wang_iou", "wang_iobb", "wang_false_iou", "wang_false_iobb"]
RELATIVE = ["iou_half", "pylon_iou", "pylon_iobb", "continuous_dice_squared"]
POINTS = ["pointing", "pylon_point", "chexlocalize_hit"]


@given(FRAMES, BOXES, st.sampled_from([(0.5, 0.0), (0.25, 0.5), (0.125, 0.25)]))
@quick
def test_min_max_takes_away_scale_and_offset(map_, boxes, affine):
    scale, offset = affine
    moved = everything(map_ * scale + offset, boxes)
    assert_same(everything(map_, boxes), moved, MINMAX + POINTS)


@given(FRAMES, BOXES, st.sampled_from([0.5, 0.25, 0.0625]))
@quick
def test_half_of_the_maximum_takes_away_scale(map_, boxes, scale):
    assert_same(everything(map_, boxes), everything(map_ * scale, boxes), RELATIVE[:3] + POINTS)


def test_an_offset_is_seen_by_the_half_of_the_maximum_and_a_scale_by_dice():
    map_, boxes = np.zeros((SIZE, SIZE)), [[2, 2, 6, 6]]
    map_[2:6, 2:6] = 0.25
    plain = everything(map_, boxes)
    raised, louder = everything(map_ + 0.5, boxes), everything(map_ * 4, boxes)
    assert raised["iou_half"] < plain["iou_half"] == 1
    assert raised["pylon_iou"] < plain["pylon_iou"] == 1
    for name in ("continuous_dice", "continuous_dice_squared"):
        assert plain[name] < louder[name] == pytest.approx(1)


@given(FRAMES, BOXES, st.sampled_from([np.sqrt, np.square, np.log1p, np.exp]))
@quick
def test_pointing_sees_only_the_order(map_, boxes, monotone):
    assert_same(everything(map_, boxes), everything(monotone(map_), boxes), POINTS)


@given(FRAMES, BOXES)
@quick
def test_a_mirrored_image_scores_the_same_in_pixels_with_whole_corners(map_, boxes):
    """Half-open boxes and masks; first-of-equals (PYLON, argmax) needs a single peak."""
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = SIZE - boxes[:, [2, 0]]
    ours, theirs = everything(map_, boxes), everything(map_[:, ::-1], mirrored)
    names = ["pointing", "continuous_dice", "continuous_dice_squared", *RELATIVE[:3]]
    names += [n for n in MINMAX if n not in ("chexlocalize_hit", "wsol_largest", "wsol_all")]
    names.remove("clarity")  # of several largest contours the first is taken
    assert_same(ours, theirs, names)
    assume((map_ == map_.max()).sum() == 1)
    assert_same(ours, theirs, ["chexlocalize_hit"])


def test_a_mirrored_image_scores_otherwise_where_edges_are_inclusive():
    """The pixel right of a box is in it for PYLON, the pixel left of it is not."""
    map_ = np.zeros((SIZE, SIZE))
    map_[3, 6] = 1
    right, left = of_pylon(case(map_, [[2, 2, 6, 6]])), of_pylon(case(map_, [[7, 2, 11, 6]]))
    assert (right["pylon_point"], left["pylon_point"]) == (1, 0)
    # Corners that are truncated move to the left: this box loses its right end, mirrored its left.
    map_[:] = 0
    map_[2:6, 2:6] = 1
    fractional = of_wsol(case(map_, [[2.0, 2, 5.5, 6]]))["wsol_largest"]
    flipped = of_wsol(case(map_[:, ::-1], [[6.5, 2, 10.0, 6]]))["wsol_largest"]
    assert fractional[0] != flipped[0]


@given(FRAMES, BOXES, BOXES)
@quick
def test_order_of_boxes_changes_nothing_and_another_box_hits_no_less(map_, boxes, more):
    both = np.vstack([boxes, more])
    first, turned = everything(map_, both), everything(map_, both[::-1])
    assert_same(first, turned, first)
    alone = everything(map_, boxes)
    for name in ("pointing", "pylon_point", "chexlocalize_hit", "wang_iou", "wang_iobb", "clarity"):
        assert np.all(first[name] >= alone[name]), name
