"""What each convention of the field measures of one map: numbers for one (image, finding) pair.

A function for each origin. It gets a :class:`Case`, one map beside its truth on one frame, and
returns raw measurements by name: a number, or one for each threshold of a sweep. What follows from
them (share of pairs above 0.5, best threshold, ...) is said in :mod:`cxrlib.metrics.protocols`.

Min-max of a constant map is all zeros here, so that it has no region: its IoU is 0, no box is
counted, and only the conventions of pointing still see where its pixels are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cxrlib.metrics import regions
from cxrlib.metrics.regions import (
    ROUNDING,
    Rounding,
    box_mask,
    box_overlap,
    otsu,
    overlap,
    region_boxes,
    rescale,
    sweep,
    to_bytes,
    whole_pixels,
)

Measurements = dict[str, float | np.ndarray]

SWEEP = np.arange(0, 1, 0.01)
"""Thresholds of wsolevaluation, as shares of the map's maximum."""
CLARITY_EVERY = 5
"""CLARiTy tunes on every fifth of :data:`SWEEP`: 0, 0.05, ..., 0.95 (our reading)."""
CHEXLOCALIZE_THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
HAM_THRESHOLD = 0.4 + math.log(999) / 100
"""sigmoid(100 (x - 0.4)) >= 0.999 of the min-max map x, some 0.469."""
WANG_THRESHOLDS = (60, 180)
"""Of 255; the boxes of both are pooled (our reading of "individually")."""
WANG_SHARES = [threshold / 255 for threshold in WANG_THRESHOLDS]
TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
TIOBB = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Case:
    """One map beside its truth on a frame of S × S pixels.

    Attributes:
        map: float32 (S, S), finite; 0 and above.
        aligned: () -> the map interpolated with aligned corners, float32 (S, S), for HAM.
        coverage: float32 (S, S), 0 to 1, the share of each pixel that the truth covers.
        boxes: float (K, 4), xyxy in pixels of the frame.
        outlined: whether the coverage is an outline, finer than the boxes.
    """

    map: np.ndarray
    aligned: Callable[[], np.ndarray]
    coverage: np.ndarray
    boxes: np.ndarray
    outlined: bool = False

    @property
    def size(self) -> int:
        """S."""
        return len(self.map)

    @cached_property
    def rescaled(self) -> np.ndarray:
        """The map, min-max to [0, 1]."""
        return rescale(self.map)

    @cached_property
    def levels(self) -> np.ndarray:
        """The rescaled map as uint8."""
        return to_bytes(self.rescaled)

    @cached_property
    def covered(self) -> np.ndarray:
        """uint8: pixels covered by half; of a truth too small for that, all that it touches."""
        half = self.coverage >= 0.5
        return (half if half.any() else self.coverage > 0).astype(np.uint8)

    def mask(self, rounding: Rounding) -> np.ndarray:
        """The truth as whole pixels, uint8: the outline, else the boxes rounded as said."""
        return self.covered if self.outlined else box_mask(self.boxes, self.size, rounding)


def pointing(map_: np.ndarray, boxes: np.ndarray) -> float:
    """Pointing game without tolerance: is the centre of the highest pixel inside a box?

    Where several pixels share the maximum (a constant map, a saturated plateau) the value is the
    fraction of them that is inside, the expectation of a random choice; taking the first would
    always point at the upper left. Zhang et al., "Top-down neural attention by excitation
    backprop", IJCV 2018, with zero tolerance as in PYLON.

    Args:
        map_: float (S, S).
        boxes: (K, 4), xyxy in pixels, half-open.

    >>> pointing(np.zeros((4, 4)), np.array([[0, 0, 2, 2]]))  # all are highest, a quarter is inside
    0.25
    """
    highest = np.flatnonzero(map_ >= map_.max() * (1 - ROUNDING))
    rows, columns = np.divmod(highest, map_.shape[1])
    inside = np.zeros(len(rows), bool)
    for x0, y0, x1, y1 in boxes - 0.5:
        inside |= (x0 <= columns) & (columns < x1) & (y0 <= rows) & (rows < y1)
    return float(inside.mean())


def continuous_dice(map_: np.ndarray, coverage: np.ndarray, *, squared: bool = False) -> float:
    """2 Σ S G / (Σ S + Σ G) of the unthresholded map S and the truth's coverage G.

    Yao et al., "Weakly supervised medical diagnosis and localization from multiple resolutions",
    2018. With ``squared`` the denominator is Σ S² + Σ G² (Milletari et al., "V-Net", 2016), which
    punishes a faint map less.

    >>> half = np.full((4, 4), 0.5)
    >>> continuous_dice(half, np.ones((4, 4))), continuous_dice(half, np.ones((4, 4)), squared=True)
    (0.6666666666666666, 0.8)
    """
    # Half precision overflows, and one product over a whole frame rounds a million times.
    S, G = (x.astype(np.result_type(x, np.float32), copy=False) for x in (map_, coverage))
    total = _dot(S, S) + _dot(G, G) if squared else float(S.sum()) + float(G.sum())
    return 2 * _dot(S, G) / max(total, float(np.finfo(np.float32).tiny))


def _dot(S: np.ndarray, G: np.ndarray) -> float:
    """Σ S G, row by row."""
    return float(np.vecdot(S, G).sum(dtype=float))


def of_maps(case: Case) -> Measurements:
    """Ours: pointing, both continuous Dice, IoU of {S >= max(S) / 2} and the truth."""
    highest = case.map.max()
    region = ((case.map >= highest / 2) & (highest > 0)).view(np.uint8)
    return {
        "pointing": pointing(case.map, case.boxes),
        "continuous_dice": continuous_dice(case.map, case.coverage),
        "continuous_dice_squared": continuous_dice(case.map, case.coverage, squared=True),
        "iou_half": overlap(region, case.covered)[0],
    }


def of_pylon(case: Case) -> Measurements:
    """PYLON: first highest pixel in a box, edges inclusive; mask {S > max(S) / 2}."""
    row, column = divmod(int(case.map.argmax()), case.size)
    x0, y0, x1, y1 = case.boxes.T
    region = (case.map > case.map.max() / 2).view(np.uint8)
    iou, iobb = overlap(region, case.mask("truncate size"))
    return {
        "pylon_point": float(((x0 <= column) & (column <= x1) & (y0 <= row) & (row <= y1)).any()),
        "pylon_iou": iou,
        "pylon_iobb": iobb,
    }


def of_ham(case: Case) -> Measurements:
    """HAM: mask IoU and IoR of the min-max map, corners aligned, at a fixed threshold."""
    region = (rescale(case.aligned()) >= np.float32(HAM_THRESHOLD)).view(np.uint8)
    iou, ior = overlap(region, case.mask("round"))
    return {"ham_iou": iou, "ham_ior": ior}


def of_chexlocalize(case: Case) -> Measurements:
    """CheXlocalize: IoU of Otsu's region and at fixed thresholds; highest pixel in the mask."""
    true = case.mask("round")
    at = [
        overlap((case.rescaled > np.float32(threshold)).view(np.uint8), true)[0]
        for threshold in CHEXLOCALIZE_THRESHOLDS
    ]
    return {
        "chexlocalize_hit": float(true.ravel()[case.map.argmax()]),
        "chexlocalize_otsu": overlap(otsu(case.levels), true)[0],
        "chexlocalize_iou": np.array(at),
    }


def of_wsol(case: Case) -> Measurements:
    """wsolevaluation and CLARiTy: IoU of boxes at each threshold; histograms of the pixels.

    ``wsol_largest`` and ``wsol_all``: IoU ("+1", corners truncated) of the box around the largest
    contour, and the best of all contours. ``clarity``: half-open IoU of the box around the largest.
    """
    boxes, starts, largest = sweep(case.levels, SWEEP)
    # A right or lower edge at the frame's end is moved in by one pixel, as the origin does.
    clipped = np.minimum(boxes, [case.size, case.size, case.size - 1, case.size - 1])
    truncated = whole_pixels(case.boxes, "truncate")
    iou = box_overlap(clipped, truncated, inclusive=True)[0].max(axis=1)  # (n,)
    inside, everywhere = (_histogram(case.rescaled, mask) for mask in (case.mask("truncate"), None))
    return {
        "wsol_largest": iou[largest],
        "wsol_all": np.maximum.reduceat(iou, starts),
        "wsol_inside": inside,
        "wsol_outside": everywhere - inside,
        "clarity": box_overlap(boxes[largest[::CLARITY_EVERY]], case.boxes)[0].max(axis=1),
    }


def _histogram(rescaled: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Pixels by hundredths of the map, float (101,); the last bin holds what is exactly 1."""
    hundredths = (rescaled * 100).astype(np.uint8)
    return regions.histogram(hundredths, mask)[: len(SWEEP) + 1]


def of_wang(case: Case) -> Measurements:
    """Wang 2017: best IoU and IoBB of boxes around regions, and the boxes below each threshold."""
    boxes = region_boxes(case.map, WANG_SHARES)
    iou, iobb = (
        measure.max(axis=1) for measure in box_overlap(boxes, case.boxes)
    )  # (n,) of the best true box
    return {
        "wang_iou": iou.max(initial=0),
        "wang_iobb": iobb.max(initial=0),
        "wang_false_iou": (iou[:, None] <= TIOU).sum(axis=0),
        "wang_false_iobb": (iobb[:, None] <= TIOBB).sum(axis=0),
    }


CONVENTIONS: dict[str, Callable[[Case], Measurements]] = {
    "maps": of_maps,
    "pylon": of_pylon,
    "ham": of_ham,
    "chexlocalize": of_chexlocalize,
    "wsol": of_wsol,
    "wang": of_wang,
}
"""Every convention by its origin."""
