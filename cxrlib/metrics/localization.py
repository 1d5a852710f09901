"""Measure maps against the truth, pair by pair: every convention, for several sources at once.

A pair is an (image, finding) that has a box. A map of any grid is interpolated to the frame, S × S
pixels, and compared with the truth there. Only pairs that are present are measured, but for false
boxes, which Wang 2017 counts on every boxed image, whatever it has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from cxrlib.datasets.base import Truth
from cxrlib.datasets.splits import boxval
from cxrlib.findings import FINDINGS
from cxrlib.metrics.conventions import (
    CONVENTIONS,
    WANG_SHARES,
    Case,
    Measurements,
    of_wang,
)
from cxrlib.metrics.regions import count_regions, upsample
from cxrlib.progress import track

T = TypeVar("T")

Frames = Callable[[int, int, bool], np.ndarray]
"""A source of maps: (index of the image, of the finding, whether corners are aligned) -> float32
(S, S), 0 to 1; all NaN where it has no map of this finding."""


@dataclass(frozen=True)
class Measured:
    """Raw measurements of one source of maps.

    Attributes:
        truth: the P pairs.
        size: S, side of the frame in pixels.
        pairs: measurement -> float64 (P,) or (P, k), NaN where the source has no map.
        false_boxes: float32 (P, 14, 12): boxes predicted for each finding on the image of each pair
            that match no true box, at the seven thresholds of IoU, then the five of IoBB. NaN for
            findings of which the truth has no box anywhere. None unless Wang's convention is asked.
        boxval: bool (P,), pairs of the patients on whom a threshold may be tuned.
    """

    truth: Truth
    size: int
    pairs: dict[str, np.ndarray]
    false_boxes: np.ndarray | None
    boxval: np.ndarray


def frames_of(maps: Callable[[int, int], np.ndarray], size: int) -> Frames:
    """A source from maps on a grid.

    Args:
        maps: (index of the image, of the finding) -> float (h, w), 0 to 1.
        size: S.

    >>> frames_of(lambda image, finding: np.ones((2, 2)), 4)(0, 0, False).shape
    (4, 4)
    """
    return lambda image, finding, aligned: upsample(
        maps(image, finding), size, align_corners=aligned
    )


def of_pairs(maps: np.ndarray, truth: Truth, size: int) -> Frames:
    """A source from one map for each pair of the truth; zeros for what is not there.

    Args:
        maps: float (P, h, w), 0 to 1.
        truth: the P pairs.
        size: S.

    Raises:
        ValueError: the number of maps is not the number of pairs, a value is not in 0 to 1, or the
            frame is smaller than the maps.
    """
    check_maps(maps, size)
    if len(maps) != len(truth):
        raise ValueError(f"{len(maps)} maps for {len(truth)} (image, finding) pairs of the truth")
    pair = {place: index for index, place in enumerate(_places(truth))}
    nothing = np.zeros(maps.shape[1:], np.float32)

    def read(image: int, finding: int) -> np.ndarray:
        index = pair.get((image, finding))
        return nothing if index is None else maps[index]

    return frames_of(read, size)


def check_maps(maps: np.ndarray, size: int) -> None:
    """Refuse maps that cannot be scored.

    Args:
        maps: float (n, h, w).
        size: S, the frame.

    Raises:
        ValueError: another shape, a value is NaN or not in 0 to 1, a frame smaller than the maps.
    """
    if maps.ndim != 3:
        raise ValueError(f"maps have shape {tuple(maps.shape)}, expected (n, h, w)")
    if outside := int((~((maps >= 0) & (maps <= 1))).sum()):  # NaN is neither
        raise ValueError(f"{outside} of {maps.size} map values are NaN or not in 0 to 1")
    if max(maps.shape[1:]) > size:
        raise ValueError(
            f"a frame of {size} px is smaller than maps of {maps.shape[1]} × {maps.shape[2]}; "
            "give the side of the images that the maps cover"
        )


def measure(
    sources: Mapping[str, Frames],
    truth: Truth,
    size: int,
    conventions: Iterable[str] = tuple(CONVENTIONS),
) -> dict[str, Measured]:
    """Every convention's measurements of every pair, for each source.

    Args:
        sources: name -> maps.
        truth: the P pairs.
        size: S, side of the frame in pixels.
        conventions: keys of :data:`~cxrlib.metrics.conventions.CONVENTIONS`.

    >>> from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset
    >>> import pandas as pd
    >>> boxes = pd.DataFrame([("a", 4, 0.0, 0.0, 0.5, 1.0)], columns=BOX_COLUMNS)
    >>> truth = Truth(CXRDataset("toy", ["a"], ["1"], np.zeros((1, 14)), boxes, 8, np.load))
    >>> left = of_pairs(np.array([[[0.9, 0.1]]]), truth, 8)
    >>> measure({"left": left}, truth, 8)["left"].pairs["pointing"]
    array([1.])
    """
    chosen = [CONVENTIONS[name] for name in conventions]

    def of_pair(pair: int) -> list[Measurements]:
        image, finding = int(truth.image[pair]), int(truth.finding[pair])
        coverage = truth.masks(np.array([pair]), size)[0].numpy()
        boxes = truth.boxes[pair].astype(float) * size
        boxes = boxes[~np.isnan(boxes[:, 0])]

        def of_source(frames: Frames) -> Measurements:
            frame = frames(image, finding, False)
            aligned = partial(frames, image, finding, True)
            if np.isnan(frame[0, 0]):
                return _missing(chosen)
            return _apply(chosen, Case(frame, aligned, coverage, boxes, truth.outlined))

        return [of_source(frames) for frames in sources.values()]

    # Threads: OpenCV and NumPy let each other run, and a map stays in the cache from step to step.
    rows = _in_threads(of_pair, range(len(truth)), "scoring maps")
    pairs = [
        _stack([row[source] for row in rows] or [_missing(chosen)], len(truth))
        for source in range(len(sources))
    ]
    false = (
        _false_boxes(list(sources.values()), truth, pairs)
        if of_wang in chosen
        else [None] * len(sources)
    )
    half = boxval(truth)
    return {
        name: Measured(truth, size, *found, half)
        for name, found in zip(sources, zip(pairs, false, strict=True), strict=True)
    }


def _apply(conventions: Sequence[Callable[[Case], Measurements]], case: Case) -> Measurements:
    return {name: v for convention in conventions for name, v in convention(case).items()}


def _missing(conventions: Sequence[Callable[[Case], Measurements]]) -> Measurements:
    """NaN in the shape of every measurement."""
    nothing = np.zeros((2, 2), np.float32)
    case = Case(nothing, lambda: nothing, nothing, np.zeros((1, 4)))
    return {name: np.asarray(v) * np.nan for name, v in _apply(conventions, case).items()}


def _stack(rows: Sequence[Measurements], n: int) -> dict[str, np.ndarray]:
    """Measurements of n pairs by name; one row gives the shapes where n is 0."""
    return {name: np.array([row[name] for row in rows], float)[:n] for name in rows[0]}


def _false_boxes(
    sources: Sequence[Frames], truth: Truth, pairs: Sequence[dict[str, np.ndarray]]
) -> list[np.ndarray]:
    """``Measured.false_boxes`` of every source."""
    images, record = np.unique(truth.image, return_inverse=True)
    boxed = np.unique(truth.finding)
    present = np.zeros((len(images), len(FINDINGS)), bool)
    present[record, truth.finding] = True
    absent = [(image, finding) for image, finding in np.argwhere(~present) if finding in boxed]

    def count(place: tuple[int, int]) -> list[float]:
        image, finding = int(images[place[0]]), int(place[1])
        return [_count_boxes(frames(image, finding, False)) for frames in sources]

    counts = np.array(_in_threads(count, absent, "counting false boxes"))
    tables = []
    for source, of_pairs in enumerate(pairs):
        own = np.hstack([of_pairs["wang_false_iou"], of_pairs["wang_false_iobb"]])
        table = np.full((len(images), len(FINDINGS), own.shape[1]), np.nan, np.float32)
        table[record, truth.finding] = own
        if absent:
            table[tuple(np.transpose(absent))] = counts[:, source, None]
        tables.append(table[record])
    return tables


def _count_boxes(frame: np.ndarray) -> float:
    """How many boxes Wang 2017 predicts from a map; NaN where there is none."""
    return np.nan if np.isnan(frame[0, 0]) else count_regions(frame, WANG_SHARES)


def _in_threads(work: Callable[[Any], T], items: Sequence[Any], description: str) -> list[T]:
    """OpenCV's own threads would only be in the way of those that each do one item."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(track(pool.map(work, items), description, len(items)))
    finally:
        cv2.setNumThreads(threads)


def _places(truth: Truth) -> list[tuple[int, int]]:
    return list(zip(truth.image.tolist(), truth.finding.tolist(), strict=True))
