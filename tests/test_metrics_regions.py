import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from torch.nn.functional import interpolate

from cxrlib.metrics.regions import (
    box_mask,
    box_overlap,
    count_regions,
    histogram,
    otsu,
    overlap,
    region_boxes,
    rescale,
    sweep,
    to_bytes,
    upsample,
    whole_pixels,
)

quick = settings(deadline=None, max_examples=25)
LEVELS = arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 0, 60, 61, 180, 200, 255]))
MASKS = arrays(np.uint8, (6, 7), elements=st.integers(0, 1))
CORNERS = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 6)] * 2)
BOXES = st.lists(CORNERS, min_size=1, max_size=4).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows])
)
SHARES = np.arange(0, 1, 0.05)
EIGHT_CONNECTED = np.ones((3, 3))


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def smooth(size, seed=0):
    rng = np.random.default_rng(seed)
    return to_bytes(rescale(upsample(rng.random((7, 7)), size)))


def in_pixels(box, shape, inclusive=False):
    """A box of whole pixels as a mask of a frame that holds it."""
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, bool)
    mask[y0 : y1 + inclusive, x0 : x1 + inclusive] = True
    return mask


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (7, 7), (16, 10), (50, 50)])
def test_upsampling_is_that_of_torch(shape, aligned):
    map_ = np.random.default_rng(0).random(shape)
    for size in (50, 64, 101):  # torch has its places in float32, hence the tolerance
        ours = upsample(map_, size, align_corners=aligned)
        theirs = interpolate(
            torch.from_numpy(map_).float()[None, None],
            size=(size, size),
            mode="bilinear",
            align_corners=aligned,
        )
        assert ours.dtype == np.float32 and ours.shape == (size, size)
        np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1), (2, 2), (7, 7)])
def test_a_constant_map_stays_one_though_interpolation_rounds_it(shape):
    """OpenCV's 0.4 is 0.39999998 here and 0.40000004 there; min-max would make noise of that."""
    for size in (50, 224):
        for level in (0.1, 0.4, 0.7, 1.0):
            for aligned in (False, True):
                frame = upsample(np.full(shape, level), size, align_corners=aligned)
                assert not rescale(frame).any()
    faint = upsample(np.array([[1e-8, 2e-8]]), 50)  # small numbers, but a slope
    assert rescale(faint).max() == 1


def test_half_precision_maps_are_upsampled_in_single():
    map_ = np.random.default_rng(0).random((5, 5)).astype(np.float16)
    for aligned in (False, True):
        single = upsample(map_.astype(np.float32), 20, align_corners=aligned)
        assert np.array_equal(upsample(map_, 20, align_corners=aligned), single)


@given(arrays(np.float32, (4, 4), elements=st.floats(0, 1, width=32)))
@quick
def test_rescaling_ends_at_0_and_1_and_keeps_the_order(map_):
    rescaled = rescale(map_)
    if map_.min() == map_.max():
        assert (rescaled == 0).all()
        return
    assert (rescaled.min(), rescaled.max()) == (0, 1)
    order = np.argsort(map_, axis=None, kind="stable")
    assert (np.diff(rescaled.ravel()[order]) >= 0).all()
    assert to_bytes(rescaled).max() == 255


@given(LEVELS, arrays(np.uint8, (9, 11), elements=st.integers(0, 1)))
@quick
def test_histogram_counts(levels, mask):
    assert np.array_equal(histogram(levels), np.bincount(levels.ravel(), minlength=256))
    inside = np.bincount(levels[mask == 1], minlength=256)
    assert np.array_equal(histogram(levels, mask), inside)


def spread_between(levels, threshold):
    """Otsu's criterion: how far apart the means below and above are."""
    below, above = levels[levels <= threshold], levels[levels > threshold]
    if not len(below) or not len(above):
        return 0.0
    return len(below) * len(above) * (below.mean() - above.mean()) ** 2


@pytest.mark.parametrize("make", [smooth, noise])
def test_otsu_separates_best_and_fills_holes(make):
    levels = make(24)
    spreads = [spread_between(levels.astype(float), threshold) for threshold in range(255)]
    above = levels > np.argmax(spreads)
    assert np.array_equal(otsu(levels), ndimage.binary_fill_holes(above))


def test_otsu_of_nothing_is_nothing():
    assert not otsu(np.zeros((5, 5), np.uint8)).any()


def test_corners_on_pixels_in_each_convention():
    box = np.array([[1.2, 2.5, 4.9, 3.6]])
    assert whole_pixels(box, "round").tolist() == [[1, 2, 5, 4]]
    assert whole_pixels(box, "truncate").tolist() == [[1, 2, 4, 3]]
    # Width 3.7 and height 1.1.
    assert whole_pixels(box, "truncate size").tolist() == [[1, 2, 4, 3]]
    assert whole_pixels(box + np.array([0, 0, 0.5, 0]), "truncate size").tolist() == [[1, 2, 5, 3]]


@pytest.mark.parametrize("size", [224, 256, 320, 512, 1024])
def test_single_precision_does_not_cost_a_pixel(size):
    """Corners that are whole pixels stay so, though 0.7 in float32 is a little less."""
    x, y, w, h = np.random.default_rng(0).integers(1, size // 2, (4, 500))
    boxes = np.stack([x, y, x + w, y + h], axis=1)
    stored = (boxes / size).astype(np.float32).astype(float) * size
    part = np.stack([x + 0.3, y + 0.3, x + 0.3 + w, y + 0.3 + h], axis=1)  # whole sides
    stored_part = (part / size).astype(np.float32).astype(float) * size
    for rounding in ("round", "truncate", "truncate size"):
        assert np.array_equal(whole_pixels(stored, rounding), boxes)
        assert np.array_equal(whole_pixels(stored_part, rounding), boxes)


@given(BOXES)
@quick
def test_mask_of_boxes_is_their_union(boxes):
    expected = np.any([in_pixels(box, (12, 12)) for box in boxes], axis=0)
    for rounding in ("round", "truncate", "truncate size"):
        assert np.array_equal(box_mask(boxes.astype(float), 12, rounding), expected)


@given(MASKS, MASKS)
@quick
def test_overlap_of_masks(predicted, true):
    iou, iobb = overlap(predicted, true)
    common, union = (predicted & true).sum(), (predicted | true).sum()
    assert iou == (common / union if union else 0)
    assert iobb == (common / predicted.sum() if predicted.any() else 0)
    assert 0 <= iou <= iobb <= 1
    assert overlap(true, predicted)[0] == iou
    if predicted.any():
        assert overlap(predicted, predicted) == (1, 1)


@pytest.mark.parametrize("inclusive", [False, True])
@given(predicted=BOXES, true=BOXES)
@quick
def test_overlap_of_boxes_is_that_of_their_pixels(inclusive, predicted, true):
    iou, iobb = box_overlap(predicted, true, inclusive=inclusive)
    assert iou.shape == iobb.shape == (len(predicted), len(true))
    for i, one in enumerate(predicted):
        for k, other in enumerate(true):
            P, G = (in_pixels(box, (14, 14), inclusive) for box in (one, other))
            assert iou[i, k] == pytest.approx((P & G).sum() / (P | G).sum())
            assert iobb[i, k] == pytest.approx((P & G).sum() / P.sum())
    assert (iou >= 0).all() and (iou <= iobb).all() and (iobb <= 1).all()
    assert np.array_equal(box_overlap(true, predicted, inclusive=inclusive)[0].T, iou)


def test_boxes_without_area_overlap_nothing():
    point, square = np.array([[3, 3, 3, 3]]), np.array([[0, 0, 6, 6]])
    for measure in (*box_overlap(point, square), *box_overlap(point, point)):
        assert measure.tolist() == [[0]]
    assert [part.shape for part in box_overlap(np.zeros((0, 4)), square)] == [(0, 1), (0, 1)]


@given(LEVELS, st.sampled_from([0.0, 60 / 255, 180 / 255, 0.99]))
@quick
def test_regions_are_8_connected_and_above_the_threshold(levels, share):
    map_ = levels.astype(np.float32)
    above = map_ > map_.min() + np.float32(share) * np.ptp(map_)
    found = ndimage.find_objects(ndimage.label(above, EIGHT_CONNECTED)[0])
    expected = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    assert sorted(map(tuple, region_boxes(map_, [share]).tolist())) == sorted(expected)
    assert count_regions(map_, [share]) == len(expected)


def test_no_region():
    for level in (0.0, 0.6):
        constant = np.full((4, 4), level, np.float32)
        constant[0, 0] += 1e-8 * level  # as interpolation rounds it
        assert region_boxes(constant, [0.0]).shape == (0, 4) and count_regions(constant, [0.0]) == 0


def swept(levels, share):
    """Boxes and areas at one threshold, by OpenCV contour by contour on the whole frame."""
    above = (levels > int(share * levels.max())).astype(np.uint8)
    contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    rectangles = [cv2.boundingRect(contour) for contour in contours]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in rectangles]
    return boxes, [cv2.contourArea(contour) for contour in contours]


@pytest.mark.parametrize("make", [smooth, noise])
@pytest.mark.parametrize("seed", range(3))
def test_sweep_is_a_loop_over_thresholds(make, seed):
    levels = make(40, seed)
    boxes, starts, largest = sweep(levels, SHARES)
    for share, found, at in zip(SHARES, np.split(boxes, starts[1:]), largest, strict=True):
        expected, areas = swept(levels, share)
        assert sorted(map(tuple, found.tolist())) == sorted(expected)
        first_of_largest = expected[int(np.argmax(areas))]
        assert tuple(boxes[at].tolist()) == first_of_largest


@given(LEVELS)
@quick
def test_sweep_of_any_map(levels):
    boxes, starts, largest = sweep(levels, SHARES)
    assert len(starts) == len(largest) == len(SHARES)
    if not levels.any():
        assert boxes.tolist() == [[0, 0, 0, 0]] * len(SHARES)
        return
    for share, found in zip(SHARES, np.split(boxes, starts[1:]), strict=True):
        assert sorted(map(tuple, found.tolist())) == sorted(swept(levels, share)[0])
