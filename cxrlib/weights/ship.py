"""Make a model that comes with the library from a finished run: weights, header and card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import nn

from cxrlib.checkpoints import load_model
from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.files import write_atomic
from cxrlib.inference import predict
from cxrlib.metrics import estimate, measure, of_pairs, score_classification
from cxrlib.predictions import Predictions
from cxrlib.weights import SHIPPED, Described, describe, read_weights, weights_file
from cxrlib.weights.card import card

MOST = 8_000_000
"""Bytes that a shipped file may have."""

FEW = 256
"""Tensors of fewer numbers stay in full precision: a first convolution's cost no room, and what is
rounded there grows in all layers after it."""


def ship(run: Path, folder: Path | None = None) -> Path:
    """Write the weights and the card of a finished run's model.

    Args:
        run: its folder; it must be of one of the methods in :data:`~cxrlib.weights.SHIPPED`.
        folder: where to; by default into the library.

    Returns:
        the weights' file, ``<method>.safetensors``; the card is ``<method>.md`` beside it.

    Raises:
        FileNotFoundError, ValueError: the run cannot be read, is of another method, or its model
            does not fit into half precision or :data:`MOST`.
    """
    trained = load_model(run)
    about = describe(run, trained.model)
    if about["method"] not in SHIPPED:
        raise ValueError(f"{run} is of {about['method']!r}; one of {', '.join(SHIPPED)} is shipped")
    about["numbers"] = numbers(json.loads((run / "metrics.json").read_text()))
    path = weights_file(about["method"])
    path = path if folder is None else folder / path.name
    write_weights(trained.model, about, path)
    options = {"data_dir": trained.params["data_dir"], "seed": None, "options": {}}
    test = trained.load_data(about["dataset"], **options).test
    about["half"] = half(trained.model, read_weights(path), test)
    write_weights(trained.model, about, path)
    text = card(about, path.stat().st_size)
    write_atomic(path.with_suffix(".md"), lambda file: file.write(text.encode()))
    return path


def write_weights(model: nn.Module, about: Mapping[str, Any], path: Path) -> None:
    """Write a model in half precision, with what is known of it in the header.

    Args:
        model: its integers, such as counts of batches, and tensors of fewer than :data:`FEW`
            numbers are kept as they are.
        about: what :func:`cxrlib.weights.describe` tells; any values JSON can hold.
        path: of the file, whole or absent.

    Raises:
        ValueError: a weight is too large for half precision, or the file for :data:`MOST`.
    """
    state = {
        name: (
            value.half() if value.is_floating_point() and value.numel() >= FEW else value
        ).contiguous()
        for name, value in model.state_dict().items()
    }
    for name, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} has values that half precision cannot hold; ship another run")
    header = {name: json.dumps(value, sort_keys=True) for name, value in about.items()}
    data = save(state, header)
    if len(data) > MOST:
        raise ValueError(f"the model takes {len(data):,} bytes, of {MOST:,}; ship a smaller one")
    write_atomic(path, lambda file: file.write(data))


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """AUROC, pointing and continuous Dice of a ``metrics.json``, and of the controls."""
    tables = {"model": metrics["localization"]} | metrics["controls"]
    located = {
        source: {name: of[name]["macro"] for name in ("pointing", "continuous_dice")}
        for source, of in tables.items()
    }
    return {"auroc": metrics["classification"]["auroc"]["mean"], **located}


def half(model: nn.Module, shipped: Described, dataset: CXRDataset) -> dict[str, float]:
    """What half precision changes.

    Args:
        model: in full precision.
        shipped: the same, read from its file.
        dataset: to compare them on.

    Returns:
        ``score``: the largest difference of a score; ``auroc`` and ``pointing``: how much higher
        the means over findings are in half precision.
    """
    full, ours = (predict(m, dataset, batch_size=32) for m in (model, shipped.model))
    difference = {"score": float(np.abs(full.scores - ours.scores).max())}
    before, after = (_means(p, dataset) for p in (full, ours))
    return difference | {name: after[name] - before[name] for name in before}


def _means(predictions: Predictions, dataset: CXRDataset) -> dict[str, float]:
    """AUROC and pointing, means over findings."""
    labels = dataset.labels
    scored = score_classification(predictions.scores, labels, dataset.patient_ids, replicates=0)
    truth, size = Truth(dataset), dataset.image_size
    maps = of_pairs(predictions.pairs(truth), truth, size)
    measured = measure({"model": maps}, truth, size, ["maps"])["model"]
    pointing = estimate(measured, ["pointing"], replicates=0).summary("pointing")
    return {"auroc": scored["auroc"]["mean"].value, "pointing": pointing["macro"].value}
