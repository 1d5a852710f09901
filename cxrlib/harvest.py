"""Mined boxes: where a model looks when the labels say that a finding is there.

From image labels alone a model's maps give boxes that a detector can learn from, which is what Cai
et al. mine them for. A box goes around each region of a finding's map; its score is the image's
probability of the finding times the highest value of the map in the region, so that boxes of
doubtful findings and of faint regions can be told from the others.

:mod:`cxrlib.harvest_files` writes them for other programs.
"""

import cv2
import numpy as np
import pandas as pd
from torch import nn

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset
from cxrlib.inference import answers
from cxrlib.metrics.regions import rescale, upsample
from cxrlib.predictions import Predictions

COLUMNS = [*BOX_COLUMNS, "score"]
"""A table of mined boxes: ``finding`` is an index, corners are fractions of the image side."""


def harvest(predictions: Predictions, dataset: CXRDataset, share: float = 0.5) -> pd.DataFrame:
    """Mine boxes from maps that are at hand.

    Args:
        predictions: images without a map are left out.
        dataset: its labels say which findings an image has.
        share: a region is where the map, enlarged to the image's size, has come this share of the
            way from its minimum to its maximum; above 0 to 1. A constant map has no region.

    Returns:
        one row per region of each finding that is present, with the columns of :data:`COLUMNS`.

    Raises:
        ValueError: an image of the dataset is missing from the predictions, or the share is out of
            range.

    >>> black = lambda image_id: np.zeros((8, 8), np.uint8)
    >>> nothing, labels = pd.DataFrame(columns=BOX_COLUMNS), np.eye(14)[[4]]
    >>> data = CXRDataset("toy", np.array(["a"]), np.array(["1"]), labels, nothing, 8, black)
    >>> maps = np.zeros((1, 14, 8, 8)); maps[0, 4, 2:4, 0:2] = 0.5
    >>> made = Predictions.from_arrays(["a"], labels / 2, map_ids=["a"], maps=maps, frame=8)
    >>> harvest(made, data).to_numpy().tolist()
    [['a', 4, 0.0, 0.25, 0.25, 0.5, 0.25]]
    """
    refuse_share(share)
    made = predictions.aligned(dataset)
    mapped = np.isin(made.image_ids, made.map_ids)
    image, finding = np.nonzero((dataset.labels == 1) & mapped[:, None])
    maps = made.maps[np.cumsum(mapped)[image] - 1, finding]  # (P, h, h)
    p = made.scores[image, finding]
    return _mined(made.image_ids[image], finding, p, maps, made.frame, share)


def harvest_model(
    model: nn.Module,
    dataset: CXRDataset,
    share: float = 0.5,
    *,
    batch_size: int,
    accelerator: str = "auto",
    num_workers: int = 0,
) -> pd.DataFrame:
    """Mine boxes with a model; as :func:`harvest`, but only the maps of one batch are ever held.

    Args:
        model: in evaluation mode; is asked about images with a finding only.
        dataset, share: of :func:`harvest`.
        batch_size, accelerator, num_workers: of :func:`cxrlib.inference.predict`.

    Raises:
        ValueError: the share is out of range.
    """
    refuse_share(share)
    present = dataset.subset(np.flatnonzero((dataset.labels == 1).any(axis=1)))
    tables, start = [pd.DataFrame(columns=COLUMNS)], 0
    for output in answers(model, present, batch_size, accelerator, num_workers):
        batch = slice(start, start + len(output.logits))
        image, finding = np.nonzero(present.labels[batch] == 1)
        maps = output.maps[image, finding].float().cpu().numpy()  # (P, h, w)
        p = output.logits[image, finding].float().sigmoid().cpu().numpy()
        ids = present.image_ids[batch][image]
        tables.append(_mined(ids, finding, p, maps, present.image_size, share))
        start = batch.stop
    return pd.concat(tables[1:] or tables, ignore_index=True)


def _mined(
    image_ids: np.ndarray,
    findings: np.ndarray,
    p: np.ndarray,
    maps: np.ndarray,
    frame: int,
    share: float,
) -> pd.DataFrame:
    """The boxes of P pairs of image and finding: their probabilities (P,) and maps (P, h, w)."""
    found = [regions(upsample(map_, frame), share) for map_ in maps]
    pair = np.repeat(np.arange(len(found)), [len(peaks) for _, peaks in found])
    corners = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in found)]) / frame
    score = p[pair] * np.concatenate([np.zeros(0), *(peaks for _, peaks in found)])
    columns = [image_ids[pair], findings[pair], *corners.T, score]
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def regions(map_: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The isolated regions (8-connected) from a share of a map's range up.

    Args:
        map_: float32 (S, S).
        share: above 0 to 1, of the way from the minimum to the maximum.

    Returns:
        int (n, 4), the half-open xyxy box around each, and float32 (n,), the highest value in each.

    >>> dots = np.array([[9, 0, 0, 0], [0, 0, 6, 7], [0, 0, 4, 6]], np.float32)
    >>> boxes, peaks = regions(dots, 0.5)
    >>> boxes.tolist(), peaks.tolist()
    ([[0, 0, 1, 1], [2, 1, 4, 3]], [9.0, 7.0])
    """
    above = rescale(map_) >= share
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.view(np.uint8), connectivity=8)
    left, top, width, height = stats[1:, :4].T  # the first is what is below
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, labels[above].astype(int), map_[above])
    return np.stack([left, top, left + width, top + height], axis=1), peaks[1:]


def refuse_share(share: float) -> None:
    """Raise ValueError unless the share is above 0 to 1."""
    if not 0 < share <= 1:
        raise ValueError(f"share = {share}; a share of a map's range, above 0 to 1, was expected")
