"""Score predictions by every protocol, beside the controls, with intervals and strata."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.datasets.extra import with_truth
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.classification import score_classification
from cxrlib.metrics.controls import controls
from cxrlib.metrics.estimates import Scores, estimate
from cxrlib.metrics.localization import Frames, Measured, check_maps, frames_of, measure
from cxrlib.metrics.protocols import PROTOCOLS
from cxrlib.predictions import Predictions

MODEL = "model"
SIZES = {"small": (0.0, 0.02), "medium": (0.02, 0.06), "large": (0.06, np.inf)}
"""Strata of lesions: share of the image that the truth covers, from and below. Of the official
boxes, nearly all nodules are small and nearly all enlarged hearts large."""


@dataclass(frozen=True)
class Scored:
    """What a scoring found.

    Attributes:
        truth: the P pairs of image and finding that have a box.
        size: S, side in pixels of the frame in which maps and truth were compared.
        classification: metric -> ``{"mean": Estimate, "per_finding": {name: Estimate}}``.
        measured: raw measurements of every source: ``"model"`` and the controls.
        scores: every protocol's numbers of every source.
        strata: kind (``"size"``, ``"view"``) -> stratum -> numbers of the model there.
    """

    truth: Truth
    size: int
    classification: dict[str, dict]
    measured: dict[str, Measured]
    scores: dict[str, Scores]
    strata: dict[str, dict[str, Scores]]

    def to_json(self) -> dict[str, dict]:
        """As ``metrics.json`` has it: see :func:`cxrlib.metrics.evaluate`."""
        summaries = {
            source: {name: scores.summary(name) for name in PROTOCOLS}
            for source, scores in self.scores.items()
        }
        return _to_json(
            {
                "classification": self.classification,
                "localization": summaries.pop(MODEL),
                "controls": summaries,
                "strata": {
                    kind: {
                        stratum: {name: scores.summary(name)["micro"] for name in scores.n}
                        for stratum, scores in of_kind.items()
                    }
                    for kind, of_kind in self.strata.items()
                },
                "protocols": {name: self.describe(name) for name in PROTOCOLS},
            }
        )

    def describe(self, protocol: str) -> dict[str, Any]:
        """How a number came about: origin, threshold policy, box convention, frame, unit."""
        of = PROTOCOLS[protocol]
        policy = {"origin": of.origin, "threshold": of.threshold, "boxes": of.boxes}
        tuned = self.scores[MODEL].thresholds.get(protocol)
        chosen = {} if tuned is None else {"thresholds": tuned}
        return policy | {"frame": self.size, "unit": of.unit} | chosen


def score(
    predictions: Predictions,
    dataset: CXRDataset,
    size: int | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Scored:
    """Score predictions of a dataset by every protocol.

    Args:
        predictions: of the dataset's images, in its order
            (:meth:`~cxrlib.predictions.Predictions.aligned`).
        dataset: N images with labels; those with boxes are the truth of localization.
        size: S, side in pixels of the frame in which maps and truth are compared; by default that
            of the dataset's images.
        replicates: of the bootstrap over patients.
        seed: of the bootstrap and of the random control.

    Raises:
        ValueError: the predictions are not of these images, a score or a map value is not in 0 to
            1, or the frame is smaller than the maps.
    """
    predictions, size = predictions.aligned(dataset), size or dataset.image_size
    truth = Truth(dataset if len(predictions.map_ids) else with_truth(dataset, dataset.boxes[:0]))
    maps = of_predictions(predictions, dataset, size)
    grid = max(predictions.maps.shape[-1], 1)
    measured = measure({MODEL: maps, **controls(truth, grid, size, seed)}, truth, size)
    scores = {
        source: estimate(of_source, replicates=replicates, seed=seed)
        for source, of_source in measured.items()
    }
    return Scored(
        truth,
        size,
        _classify(predictions, dataset, replicates, seed),
        measured,
        scores,
        _stratified(measured[MODEL], replicates, seed),
    )


def _classify(
    predictions: Predictions, dataset: CXRDataset, replicates: int, seed: int
) -> dict[str, dict]:
    """A finding the model does not know counts as one without labels."""
    labels = np.where(predictions.known, dataset.labels, np.nan)
    scores = np.nan_to_num(predictions.scores)
    return score_classification(scores, labels, dataset.patient_ids, replicates, seed)


def of_predictions(predictions: Predictions, dataset: CXRDataset, size: int) -> Frames:
    """The maps of predictions as a source.

    Args:
        predictions: with a map of each boxed image of the dataset.
        dataset: N images.
        size: S.

    Raises:
        ValueError: a map value is not in 0 to 1, or the frame is smaller than the maps.
    """
    maps, known = predictions.maps, predictions.known
    known = maps if known.all() else maps[:, known]
    check_maps(known.reshape(math.prod(known.shape[:2]), *known.shape[2:]), size)
    row = pd.Index(predictions.map_ids).get_indexer(dataset.image_ids)
    return frames_of(lambda image, finding: predictions.maps[row[image], finding], size)


def strata(truth: Truth) -> dict[str, dict[str, np.ndarray]]:
    """Strata of pairs: ``"size"`` of the finding (:data:`SIZES`) and ``"view"`` of the image.

    Args:
        truth: the P pairs.

    Returns:
        kind -> stratum -> bool (P,); empty strata are left out.
    """
    area = truth.area()
    view = truth.dataset.views[truth.image]
    kinds = {
        "size": {name: (low <= area) & (area < high) for name, (low, high) in SIZES.items()},
        "view": {str(name) or "unknown": view == name for name in np.unique(view)},
    }
    return {
        kind: {name: among for name, among in of_kind.items() if among.any()}
        for kind, of_kind in kinds.items()
    }


def _stratified(measured: Measured, replicates: int, seed: int) -> dict[str, dict[str, Scores]]:
    """False boxes are counted on images without the finding, which have no size: left out."""
    names = [name for name, protocol in PROTOCOLS.items() if not protocol.every_record]
    return {
        kind: {
            name: estimate(measured, names, replicates, seed, among)
            for name, among in of_kind.items()
        }
        for kind, of_kind in strata(measured.truth).items()
    }


def _to_json(tree: Any) -> Any:
    if isinstance(tree, Estimate):
        return tree.to_json()
    return {k: _to_json(v) for k, v in tree.items()} if isinstance(tree, dict) else tree
