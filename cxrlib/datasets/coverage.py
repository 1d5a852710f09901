"""Exact coverage of pixels by boxes."""

import torch
from torch import Tensor


def rasterize(boxes: Tensor, size: int) -> Tensor:
    """Union of boxes as exact pixel coverage.

    Args:
        boxes: float (P, K, 4), xyxy as fractions of the image side; NaN rows are no box.
        size: side of the result, pixels.

    Returns:
        float32 (P, size, size), 0 to 1: the covered fraction of each pixel (for overlapping
        boxes, of the box that covers most of it).

    >>> rasterize(torch.tensor([[[0.0, 0.0, 0.5, 0.25]]]), 2)
    tensor([[[0.5000, 0.0000],
             [0.0000, 0.0000]]])
    """
    pixels = boxes.nan_to_num(0.0).float() * size  # (P, K, 4)
    across = coverage(pixels[..., 0], pixels[..., 2], size)  # (P, K, size)
    down = coverage(pixels[..., 1], pixels[..., 3], size)
    return (down[..., :, None] * across[..., None, :]).amax(dim=1)


def coverage(start: Tensor, end: Tensor, size: int) -> Tensor:
    """How much of each of ``size`` unit pixels lies in [start, end): (...) each -> (..., size).

    >>> coverage(torch.tensor(0.5), torch.tensor(2.0), 3)
    tensor([0.5000, 1.0000, 0.0000])
    """
    low = torch.arange(size, dtype=torch.float32)
    return (torch.minimum(end[..., None], low + 1) - torch.maximum(start[..., None], low)).clamp(
        0, 1
    )
