"""Maps, masks and boxes on one frame of S × S pixels: what every convention of scoring is made of.

A *frame* is the square of S × S pixels in which a map is compared with the truth. The pixel in
column j spans j to j + 1. A *half-open* box [x0, x1) holds the pixels whose centre is in it; in the
*inclusive* convention of older detection code x0 and x1 are pixels that both belong to the box,
which makes every side one pixel longer.

Contours and resizing are OpenCV's, as in the released evaluation code of the field.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal

import cv2
import numpy as np
from scipy.sparse import csr_array

# A sweep looks for the part of the frame that is left after so many thresholds.
_SHRINK = 10
ROUNDING = 1e-6
"""Interpolating a plateau rounds it, by some 1e-7 of its value; below this share of the maximum a
difference is none. A slope differs by more from pixel to pixel."""
# Corners are float32 fractions of the side: a whole number of pixels may come out a little below.
_SLACK = 2e-4

Rounding = Literal["round", "truncate", "truncate size"]


def upsample(maps: np.ndarray, size: int, *, align_corners: bool = False) -> np.ndarray:
    """Bilinear interpolation of one map to a frame.

    Args:
        maps: float (h, w).
        size: S, at least 2.
        align_corners: whether the outer *centres* of the map's cells fall on the outer pixels (as
            HAM does it), instead of the outer edges of the cells on the frame's.

    Returns:
        float32 (S, S); equals ``torch.nn.functional.interpolate(mode="bilinear")``.

    >>> upsample(np.array([[0.0, 1.0]]), 4)[0]
    array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    >>> upsample(np.array([[0.0, 1.0]]), 4, align_corners=True)[0].round(2)
    array([0.  , 0.33, 0.67, 1.  ], dtype=float32)
    """
    maps = np.asarray(maps, np.float32)
    if not align_corners:
        return cv2.resize(maps, (size, size), interpolation=cv2.INTER_LINEAR)
    down, across = (_interpolation(side, size) for side in maps.shape)
    return down @ np.ascontiguousarray((across @ maps.T).T)


@cache
def _interpolation(cells: int, size: int) -> csr_array:
    """What each cell adds to each pixel of a line, first and last kept: float32 (size, cells).

    Sparse, and not for its two numbers a row alone: dense products would use all cores in each
    thread, and the threads would wait for each other.
    """
    at = np.linspace(0, cells - 1, size)[:, None]
    return csr_array((1 - np.abs(at - np.arange(cells))).clip(0).astype(np.float32))


def rescale(map_: np.ndarray) -> np.ndarray:
    """Min-max to [0, 1]; a constant map holds nothing and becomes zeros.

    Args:
        map_: float32 (S, S), 0 and above; constant also where it differs by :data:`ROUNDING` only.

    >>> rescale(np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)).tolist()
    [[0.0, 0.25], [0.5, 1.0]]
    >>> rescale(np.ones((2, 2), np.float32)).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    low, spread = _range(map_)
    if not spread:
        return np.zeros_like(map_)
    above = map_ - low
    above /= spread
    return above


def _range(map_: np.ndarray) -> tuple[np.float32, np.float32]:
    """The minimum, and how far above it the maximum is: 0 for a constant map."""
    low, high = map_.min(), map_.max()
    return low, high - low if high - low > ROUNDING * high else np.float32(0)


def to_bytes(rescaled: np.ndarray) -> np.ndarray:
    """[0, 1] as uint8, rounded down as the released evaluation codes do it: (S, S)."""
    return (rescaled * 255).astype(np.uint8)


def histogram(levels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """How many pixels have each level, all or those of a mask: float64 (256,).

    >>> histogram(np.array([[0, 2], [2, 2]], np.uint8))[:3]
    array([1., 0., 3.])
    """
    return cv2.calcHist([levels], [0], mask, [256], [0, 256]).ravel().astype(float)


def otsu(levels: np.ndarray) -> np.ndarray:
    """The region above Otsu's threshold with its holes filled, as CheXlocalize segments a map.

    Args:
        levels: uint8 (S, S).

    Returns:
        uint8 (S, S), 0 or 1; all 0 for a map of zeros.

    >>> ring = np.full((5, 5), 255, np.uint8); ring[2, 2] = 0; ring[:, 4] = 0
    >>> otsu(ring)[2]
    array([1, 1, 1, 1, 0], dtype=uint8)
    """
    _, above = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(np.zeros_like(above), contours, -1, 1, cv2.FILLED)


def box_mask(boxes: np.ndarray, size: int, rounding: Rounding) -> np.ndarray:
    """The union of boxes as whole pixels.

    Args:
        boxes: float (K, 4), xyxy in pixels of the frame.
        size: S.
        rounding: of fractional corners: ``"round"`` to the nearest pixel edge (HAM, CheXlocalize),
            ``"truncate"`` (wsolevaluation), or ``"truncate size"``: left, top, width and height are
            truncated (PYLON).

    Returns:
        uint8 (S, S), 0 or 1.

    >>> box_mask(np.array([[0.4, 1.0, 2.6, 2.0]]), 3, "round")
    array([[0, 0, 0],
           [1, 1, 1],
           [0, 0, 0]], dtype=uint8)
    """
    mask = np.zeros((size, size), np.uint8)
    for x0, y0, x1, y1 in whole_pixels(boxes, rounding):
        mask[y0:y1, x0:x1] = 1
    return mask


def whole_pixels(boxes: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Boxes (K, 4) with corners on pixel edges, int."""
    if rounding == "round":
        return np.rint(boxes).astype(int)
    if rounding == "truncate":
        return (boxes + _SLACK).astype(int)
    corner = (boxes[:, :2] + _SLACK).astype(int)
    return np.hstack([corner, corner + (boxes[:, 2:] - boxes[:, :2] + _SLACK).astype(int)])


def overlap(predicted: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Intersection over union, and over the predicted region ("IoBB", "IoR"); 0 for no region.

    Args:
        predicted: uint8, 0 or 1 (S, S).
        true: the same.

    >>> overlap(np.array([[1, 1], [0, 0]], np.uint8), np.array([[1, 0], [1, 0]], np.uint8))
    (0.3333333333333333, 0.5)
    """
    area, common = cv2.countNonZero(predicted), cv2.countNonZero(predicted & true)
    union = area + cv2.countNonZero(true) - common
    return common / max(union, 1), common / max(area, 1)


def region_boxes(map_: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """A box around each isolated region (8-connected) of what is above a share of the range.

    Args:
        map_: float32 (S, S).
        shares: thresholds, 0 to below 1, of the way from the minimum to the maximum.

    Returns:
        int (n, 4), half-open xyxy, of all thresholds together; n is 0 for a constant map.

    >>> dots = np.array([[9, 0, 0, 0], [0, 0, 9, 9], [0, 0, 9, 9]], np.float32)
    >>> sorted(region_boxes(dots, [0.5]).tolist())
    [[0, 0, 1, 1], [2, 1, 4, 3]]
    """
    return _enclosed([contour for contours in _regions(map_, shares) for contour in contours])[0]


def count_regions(map_: np.ndarray, shares: Sequence[float]) -> int:
    """How many boxes :func:`region_boxes` returns.

    >>> count_regions(np.array([[9, 0, 9]], np.float32), [0.5])
    2
    """
    return sum(map(len, _regions(map_, shares)))


def _regions(map_: np.ndarray, shares: Sequence[float]) -> Iterator[list[np.ndarray]]:
    """The outer contours of what is above each share of the range, none of a constant map."""
    low, spread = _range(map_)
    for share in shares if spread else ():
        above = (map_ > low + share * spread).view(np.uint8)
        contours, hierarchy = cv2.findContours(above, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        outer = hierarchy[0, :, 3] < 0
        yield [contour for contour, is_outer in zip(contours, outer, strict=True) if is_outer]


def sweep(levels: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes around all contours, those of holes included, at each of many thresholds.

    Args:
        levels: uint8 (S, S).
        shares: (t,) thresholds as shares of the largest level, ascending, 0 to below 1.

    Returns:
        int (n, 4) half-open boxes of all thresholds one after the other, int (t,) where those of
        each threshold start, and int (t,) the box around the contour that encloses the largest
        area. A map of zeros has one box (0, 0, 0, 0) at each threshold, as in wsolevaluation.

    >>> levels = np.array([[9, 0, 0, 0], [0, 0, 5, 9], [0, 0, 5, 5]], np.uint8)
    >>> boxes, starts, largest = sweep(levels, np.array([0.0, 0.8]))
    >>> len(boxes), starts.tolist(), boxes[largest].tolist()
    (4, [0, 2], [[2, 1, 4, 3], [3, 1, 4, 2]])
    """
    top = int(levels.max())
    if not top:
        each = np.arange(len(shares))
        return np.zeros((len(shares), 4), int), each, each
    contours: list[np.ndarray] = []
    starts = []
    x, y, width, height = 0, 0, levels.shape[1], levels.shape[0]
    for step, share in enumerate(shares):
        window = levels[y : y + height, x : x + width]
        _, above = cv2.threshold(window, int(share * top), 1, cv2.THRESH_BINARY)
        starts.append(len(contours))
        contours += cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))[
            0
        ]
        if step % _SHRINK == 0:  # what is above a higher threshold lies within
            left, down, width, height = cv2.boundingRect(above)
            x, y = x + left, y + down
    boxes, areas = _enclosed(contours)
    spans = zip(starts, [*starts[1:], len(contours)], strict=True)
    largest = [start + int(areas[start:end].argmax()) for start, end in spans]
    return boxes, np.array(starts), np.array(largest)


def _enclosed(contours: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What ``cv2.boundingRect`` and ``cv2.contourArea`` say of each contour, of all at once.

    Noise has tens of thousands, and a call for each would take most of the time.

    Args:
        contours: n int (points, 1, 2) each.

    Returns:
        half-open boxes (n, 4) and areas (n,).
    """
    if not contours:
        return np.zeros((0, 4), int), np.zeros(0)
    points = np.concatenate(contours)[:, 0].astype(int)
    lengths = np.fromiter(map(len, contours), int, len(contours))
    starts = lengths.cumsum() - lengths
    following = np.arange(1, len(points) + 1)
    following[starts + lengths - 1] = starts
    x, y = points.T
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    twice = np.add.reduceat(x * y[following] - x[following] * y, starts)
    return np.hstack([low, high + 1]), np.abs(twice) / 2


def box_overlap(
    predicted: np.ndarray, true: np.ndarray, *, inclusive: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """IoU and IoBB (over the predicted box) of every pair of boxes.

    Args:
        predicted: (n, 4), xyxy.
        true: (K, 4), xyxy.
        inclusive: whether both corners are pixels of the box ("+1"), instead of half-open.

    Returns:
        float (n, K) each; 0 where the union or the predicted box is empty.

    >>> half, whole = np.array([[0, 0, 2, 1]]), np.array([[0, 0, 2, 2]])
    >>> box_overlap(half, whole), box_overlap(half, whole, inclusive=True)[0].round(3)
    ((array([[0.5]]), array([[1.]])), array([[0.667]]))
    """
    plus = int(inclusive)
    low = np.maximum(predicted[:, None, :2], true[None, :, :2])
    high = np.minimum(predicted[:, None, 2:], true[None, :, 2:])
    common = (high - low + plus).clip(0).prod(axis=2)  # (n, K)
    area = (predicted[:, 2:] - predicted[:, :2] + plus).prod(axis=1)[:, None]
    union = area + (true[:, 2:] - true[:, :2] + plus).prod(axis=1)[None] - common
    area = np.broadcast_to(area, common.shape)
    empty = np.zeros(common.shape)
    return (
        np.divide(common, union, out=empty.copy(), where=union > 0),
        np.divide(common, area, out=empty, where=area > 0),
    )
