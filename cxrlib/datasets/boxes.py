"""Boxes in pixels of original images: checked, put into the padded square, and back."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.datasets.base import BOX_COLUMNS
from cxrlib.datasets.images import image_shape, verify
from cxrlib.datasets.tables import refuse
from cxrlib.progress import track

CORNERS = BOX_COLUMNS[2:]


def pixel_boxes(
    path: Path, image_ids: pd.Series, findings: pd.Series, corners: pd.DataFrame, mend: str
) -> pd.DataFrame:
    """A table of boxes in pixels, every one a box.

    Args:
        path: where they were read, for the message.
        image_ids: (n,) strings; the index is the row in the file.
        findings: (n,) index of the finding.
        corners: (n, 4) xyxy, as numbers or their text.
        mend: what to do about a bad box.

    Returns:
        the columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`, with corners in pixels and the
        index of ``image_ids``.

    Raises:
        ValueError: a corner is no number or negative, or a box is empty or inverted; names the
            rows and the mend.

    >>> rows = pd.Series(["a"], [2])
    >>> text = pd.DataFrame([["1", "2", "3", "4"]], [2])
    >>> found = pixel_boxes(Path("b.csv"), rows, pd.Series([4], [2]), text, "restore it")
    >>> found.to_numpy().tolist()
    [['a', 4, 1.0, 2.0, 3.0, 4.0]]
    """
    numbers = corners.apply(pd.to_numeric, errors="coerce").to_numpy(float)  # (n, 4)
    refuse(path, image_ids[~np.isfinite(numbers).all(axis=1)], "a box that is no number", mend)
    refuse(path, image_ids[(numbers < 0).any(axis=1)], "a negative corner of a box", mend)
    wrong = (numbers[:, 2:] <= numbers[:, :2]).any(axis=1)
    refuse(path, image_ids[wrong], "an empty or inverted box", mend)
    columns = [image_ids.to_numpy(), findings.to_numpy(int), *numbers.T]
    return pd.DataFrame(dict(zip(BOX_COLUMNS, columns, strict=True)), image_ids.index)


def fit_boxes(
    path: Path, boxes: pd.DataFrame, shapes: Mapping[str, tuple[int, int]], mend: str
) -> pd.DataFrame:
    """Boxes in pixels as fractions of the padded square of their images.

    A corner may stand out of its image by a pixel, as rounding leaves it, and is then clipped.

    Args:
        path: where they were read, for the message.
        boxes: from :func:`pixel_boxes`.
        shapes: height and width of each image that has a box, pixels.
        mend: what to do about a box outside its image.

    Returns:
        the columns of :data:`~cxrlib.datasets.base.BOX_COLUMNS`, corners 0 to 1.

    Raises:
        ValueError: a box leaves its image; names the rows and the mend.

    >>> pixels = pd.DataFrame([["a", 4, 0, 0, 50, 100]], columns=BOX_COLUMNS)
    >>> fit_boxes(Path("b.csv"), pixels, {"a": (100, 200)}, "restore it").to_numpy().tolist()
    [['a', 4, 0.0, 0.25, 0.25, 0.75]]
    """
    sizes = np.array([shapes[name] for name in boxes["image_id"]], int).reshape(-1, 2)  # (n, 2)
    frame = sizes[:, ::-1]  # width, height, as corners are x, y
    corners = boxes[CORNERS].to_numpy(float)
    outside = np.any((corners[:, 2:] > frame + 1) | (corners[:, :2] >= frame), axis=1)
    refuse(path, boxes["image_id"][outside], "a box outside its image", mend)
    corners = np.minimum(corners, np.tile(frame, 2))
    fractions = pd.DataFrame(square_boxes(corners, *sizes.T), columns=CORNERS)
    return pd.concat([boxes[BOX_COLUMNS[:2]].reset_index(drop=True), fractions], axis=1)


def square_boxes(corners: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Boxes of oblong images in the frame of the padded squares of :func:`read_pixels`.

    Args:
        corners: (n, 4), xyxy in pixels of the original images, half-open.
        heights: (n,), of the image of each box, pixels.
        widths: (n,).

    Returns:
        float64 (n, 4), xyxy as fractions of the side of the padded square.

    >>> square_boxes(np.array([[0, 0, 50, 100]]), np.array([100]), np.array([200])).tolist()
    [[0.0, 0.25, 0.25, 0.75]]
    """
    heights, widths = np.asarray(heights), np.asarray(widths)
    side = np.maximum(heights, widths)  # (n,)
    left, top = (side - widths) // 2, (side - heights) // 2
    return (corners + np.stack([left, top, left, top], axis=-1)) / side[..., None]


def original_boxes(corners: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The way back from :func:`square_boxes`; what lies on the padding is cut off.

    Args:
        corners: (n, 4), xyxy as fractions of the side of the padded square.
        heights: (n,), of the image of each box, pixels.
        widths: (n,).

    Returns:
        float64 (n, 4), xyxy in pixels of the original images; empty for a box on the padding alone.

    >>> original_boxes(np.array([[0, 0, 0.25, 0.5]]), np.array([100]), np.array([200])).tolist()
    [[0.0, 0.0, 50.0, 50.0]]
    """
    heights, widths = np.asarray(heights), np.asarray(widths)
    side = np.maximum(heights, widths)  # (n,)
    left, top = (side - widths) // 2, (side - heights) // 2
    pixels = np.asarray(corners) * side[..., None] - np.stack([left, top, left, top], axis=-1)
    return np.clip(pixels, 0, np.stack([widths, heights, widths, heights], axis=-1))


def read_shapes(
    image_ids: Sequence[str], paths: Mapping[str, str], mend: str
) -> dict[str, tuple[int, int]]:
    """Height and width of images, pixels, from their headers.

    Args:
        image_ids: images to look at.
        paths: file of each.
        mend: what to do about a bad file.

    Raises:
        OSError: images cannot be read; gives their number, the first few and the mend.
    """
    verify(image_ids, paths, mend)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda image_id: image_shape(paths[image_id], mend), image_ids)
        shapes = [*track(found, "reading sizes of boxed images", len(image_ids))]
    return dict(zip(image_ids, shapes, strict=True))
