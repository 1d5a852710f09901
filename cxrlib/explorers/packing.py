"""Maps, outlines and radiographs as text, and the truth that goes with them."""

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.conventions import Case
from cxrlib.metrics.regions import upsample
from cxrlib.predictions import Predictions

STEPS = 65535
"""Maps are stored as whole numbers from 0 to this: finer than the float16 of a predictions file."""

SEED = 0
"""Of the phantom and of the runs that are shown."""


def pack(map_: np.ndarray) -> str:
    """A map as text: base64 of uint16, least byte first.

    Args:
        map_: float (h, h), 0 to 1.

    >>> unpack(pack(np.array([[0.0, 0.25], [0.5, 1.0]]))).round(3).tolist()
    [[0.0, 0.25], [0.5, 1.0]]
    """
    return _text(np.rint(np.asarray(map_, float) * STEPS).astype("<u2").tobytes())


def unpack(text: str) -> np.ndarray:
    """The map that :func:`pack` has made text of: float32 (h, h)."""
    flat = np.frombuffer(base64.b64decode(text), "<u2").astype(np.float32) / np.float32(STEPS)
    side = math.isqrt(len(flat))
    return flat.reshape(side, side)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def scenes(dataset: CXRDataset) -> list[dict[str, Any]]:
    """For each finding the first image that has it, whatever its map looks like.

    Args:
        dataset: images of S × S pixels with boxes and masks.

    Returns:
        of each finding that has a box its ``name``, the id of the ``image``, its ``boxes`` (xyxy
        in pixels) and its ``outline`` (base64 of S × S bits).
    """
    truth, size = Truth(dataset), dataset.image_size
    found = []
    for finding in np.unique(truth.finding):
        pair = np.flatnonzero(truth.finding == finding)[:1]
        boxes = truth.boxes[pair[0]]
        covered = truth.masks(pair, size)[0].numpy() >= 0.5
        found.append(
            {
                "name": FINDINGS[finding],
                "image": str(dataset.image_ids[truth.image[pair[0]]]),
                "boxes": (boxes[np.isfinite(boxes[:, 0])] * size).round(4).tolist(),
                "outline": pack_outline(covered),
            }
        )
    return found


def pack_outline(covered: np.ndarray) -> str:
    """The pixels that a finding covers, bool (S, S), as text: base64 of their bits."""
    return _text(np.packbits(covered, bitorder="little").tobytes())


def outline(scene: Mapping[str, Any], size: int) -> np.ndarray:
    """The pixels of a scene that its finding covers: float32 (S, S), 0 or 1."""
    bits = np.frombuffer(base64.b64decode(scene["outline"]), np.uint8)
    return np.unpackbits(bits, bitorder="little").reshape(size, size).astype(np.float32)


def case_of(map_: np.ndarray, scene: Mapping[str, Any], size: int) -> Case:
    """A map beside the truth of its scene, as every convention of the library takes it.

    Args:
        map_: float32 (h, h).
        scene: of :func:`scenes`.
        size: S, side of the frame in pixels.
    """
    return Case(
        upsample(map_, size),
        lambda: upsample(map_, size, align_corners=True),
        outline(scene, size),
        np.array(scene["boxes"]),
        outlined=True,
    )


def pictures(dataset: CXRDataset, names: Iterable[str]) -> dict[str, str]:
    """Radiographs as base64 of grey 8-bit PNG, by the id of the image."""
    encoded = {name: cv2.imencode(".png", dataset.read_pixels(name))[1] for name in sorted(names)}
    return {name: _text(png.tobytes()) for name, png in encoded.items()}


def picture(text: str) -> np.ndarray:
    """The radiograph that :func:`pictures` has made text of: uint8 (S, S)."""
    png = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.asarray(cv2.imdecode(png, cv2.IMREAD_GRAYSCALE))


def map_of(predictions: Predictions, image: str, finding: str) -> str:
    """One packed map of a predictions file."""
    (row,) = np.flatnonzero(predictions.map_ids == image)
    return pack(predictions.maps[row, FINDINGS.index(finding)])


def rounded(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Numbers with five decimals, as the data hold them."""
    return {name: round(float(number), 5) for name, number in numbers.items()}
