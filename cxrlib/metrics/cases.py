"""The best, the median and the worst map of each finding, as small pictures to look at."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.regions import rescale, to_bytes, upsample
from cxrlib.metrics.scorer import MODEL, Scored
from cxrlib.predictions import Predictions

RANKED_BY = "continuous_dice"
SIDE = 256
"""Of a picture, pixels at most."""

# How much of the radiograph the map hides where it is highest; nothing where it is lowest.
_OPACITY = 0.6


@dataclass(frozen=True)
class Case:
    """One map to look at.

    Attributes:
        finding: name.
        rank: ``"best"``, ``"median"``, ``"worst"``, or what two of them share.
        image_id: name of the image.
        dice: its continuous Dice.
        probability: score of the finding in this image.
        highest: maximum of the map.
        boxes: float (K, 4), true boxes, xyxy as fractions of the side.
        peak: (x, y) of the maximum as fractions of the side; None for a constant map.
        png: base64 of the picture: the radiograph, coloured by the map.
    """

    finding: str
    rank: str
    image_id: str
    dice: float
    probability: float
    highest: float
    boxes: np.ndarray
    peak: tuple[float, float] | None
    png: str


def ranked(values: np.ndarray, finding: np.ndarray) -> list[tuple[int, str]]:
    """The pairs with each finding's highest, median and lowest value.

    Args:
        values: float (P,), higher is better; NaN is left out.
        finding: int (P,), the finding of each pair.

    Returns:
        (pair, rank), by finding and the best first; a pair with two ranks comes once. Of an even
        number of pairs the better middle one is the median; of equals the first is better.

    >>> ranked(np.array([0.1, 0.5, 0.3, 0.9]), np.array([4, 4, 4, 5]))
    [(1, 'best'), (2, 'median'), (0, 'worst'), (3, 'best, median, worst')]
    """
    found = []
    for present in np.unique(finding):
        pairs = np.flatnonzero((finding == present) & ~np.isnan(values))
        order = pairs[np.argsort(-values[pairs], kind="stable")]
        ranks: dict[int, list[str]] = {}
        for rank, place in (("best", 0), ("median", (len(order) - 1) // 2), ("worst", -1)):
            if len(order):
                ranks.setdefault(int(order[place]), []).append(rank)
        found += [(pair, ", ".join(names)) for pair, names in ranks.items()]
    return found


def cases(scored: Scored, dataset: CXRDataset, predictions: Predictions) -> list[Case]:
    """The cases to look at, drawn.

    Args:
        scored: of these predictions and this dataset.
        dataset: the images.
        predictions: of the dataset's images, in any order.

    Raises:
        OSError: an image cannot be read.
    """
    truth, values = scored.truth, scored.measured[MODEL].pairs[RANKED_BY]
    chosen = ranked(values, truth.finding)
    if not chosen:
        return []
    aligned = predictions.aligned(dataset)
    maps = aligned.pairs(truth)
    return [
        _case(truth, pair, rank, float(values[pair]), aligned.scores, maps[pair], scored.size)
        for pair, rank in chosen
    ]


def _case(
    truth: Truth,
    pair: int,
    rank: str,
    dice: float,
    scores: np.ndarray,
    S: np.ndarray,
    size: int,
) -> Case:
    image, finding = truth.image[pair], truth.finding[pair]
    image_id = str(truth.dataset.image_ids[image])
    boxes = truth.boxes[pair].astype(float)
    picture = _picture(truth.dataset.read_pixels(image_id), S)
    return Case(
        FINDINGS[finding],
        rank,
        image_id,
        dice,
        float(scores[image, finding]),
        float(S.max()),
        boxes[~np.isnan(boxes[:, 0])],
        _peak(upsample(S, size)),
        base64.b64encode(picture).decode(),
    )


def _peak(frame: np.ndarray) -> tuple[float, float] | None:
    """Centre of the first pixel with the highest value."""
    if frame.max() == frame.min():
        return None
    row, column = np.unravel_index(frame.argmax(), frame.shape)
    return float((column + 0.5) / len(frame)), float((row + 0.5) / len(frame))


def _picture(pixels: np.ndarray, S: np.ndarray) -> bytes:
    """PNG of a radiograph, uint8 (H, H), coloured where the map (h, h) is high."""
    side = min(len(pixels), SIDE)
    grey = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    # Level 9: a page holds two dozen of them, and they are written once.
    done, png = cv2.imencode(".png", coloured(grey, S), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    return png.tobytes()


def coloured(grey: np.ndarray, S: np.ndarray) -> np.ndarray:
    """A radiograph under a map, from the map's minimum to its maximum.

    Args:
        grey: uint8 (H, H).
        S: (h, h).

    Returns:
        uint8 (H, H, 3), blue first: grey where the map is lowest, magma where it is high.

    >>> coloured(np.full((4, 4), 90, np.uint8), np.eye(2))[0, 3].tolist()
    [90, 90, 90]
    """
    heat = rescale(upsample(S, len(grey)))
    colour = cv2.applyColorMap(to_bytes(heat), cv2.COLORMAP_MAGMA)  # (H, H, 3), BGR
    weight = _OPACITY * heat[..., None]
    return ((1 - weight) * grey[..., None] + weight * colour).round().astype(np.uint8)
