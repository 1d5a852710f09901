"""Exact coverage of pixels by boxes.

In NumPy: maps are scored in several threads, and PyTorch would start threads in each of them.
"""

import numpy as np


def rasterize(boxes: np.ndarray, size: int) -> np.ndarray:
    """Union of boxes as exact pixel coverage.

    Args:
        boxes: float (P, K, 4), xyxy as fractions of the image side; NaN rows are no box.
        size: side of the result, pixels.

    Returns:
        float32 (P, size, size), 0 to 1: the covered fraction of each pixel (for overlapping
        boxes, of the box that covers most of it).

    >>> rasterize(np.array([[[0.0, 0.0, 0.5, 0.25]]]), 2)
    array([[[0.5, 0. ],
            [0. , 0. ]]], dtype=float32)
    """
    pixels = np.nan_to_num(boxes).astype(np.float32) * size  # (P, K, 4)
    across = coverage(pixels[..., 0], pixels[..., 2], size)  # (P, K, size)
    down = coverage(pixels[..., 1], pixels[..., 3], size)
    covered = np.zeros((len(boxes), size, size), np.float32)
    for k in range(boxes.shape[1]):
        np.maximum(covered, down[:, k, :, None] * across[:, k, None, :], out=covered)
    return covered


def coverage(start: np.ndarray, end: np.ndarray, size: int) -> np.ndarray:
    """How much of each of ``size`` unit pixels lies in [start, end): (...) each -> (..., size).

    >>> coverage(np.array(0.5), np.array(2.0), 3).tolist()
    [0.5, 1.0, 0.0]
    """
    low = np.arange(size, dtype=np.float32)
    covered = np.minimum(end[..., None], low + 1) - np.maximum(start[..., None], low)
    return covered.clip(0, 1)
