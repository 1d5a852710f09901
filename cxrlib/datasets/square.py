"""Oblong radiographs as squares: what every reader of images does with them."""

import numpy as np
from PIL import Image


def square(grey: np.ndarray, size: int) -> np.ndarray:
    """Pad to a square with black, centred, and resize, bilinear with antialiasing.

    :func:`cxrlib.datasets.boxes.square_boxes` does the same with boxes.

    Args:
        grey: uint8 (H, W).
        size: side of the result, pixels.

    Returns:
        uint8 (size, size).

    >>> square(np.full((2, 4), 255, np.uint8), 4)[:, 0].tolist()
    [0, 255, 255, 0]
    """
    height, width = grey.shape
    padded = Image.new("L", (max(grey.shape),) * 2)
    padded.paste(Image.fromarray(grey), ((padded.width - width) // 2, (padded.width - height) // 2))
    return np.asarray(padded.resize((size, size), Image.Resampling.BILINEAR))
