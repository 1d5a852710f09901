"""A model as an ONNX file, for programs without PyTorch, compared with the model it was made from.

Needs the extra ``onnx``: ``pip install -e ".[onnx]"``.
"""

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cxrlib.datasets.base import scaled
from cxrlib.files import write_atomic
from cxrlib.phantom.controls import Controls
from cxrlib.phantom.population import render_some
from cxrlib.weights import NOTICE, Described

TOLERANCE = 1e-4
"""Of a logit or a map's value v, as a share of ``1 + |v|``: absolute near 0, relative beyond 1."""

PACKAGES = ("onnx", "onnxscript", "onnxruntime")

INPUT, OUTPUTS = "images", ["logits", "maps"]
"""Names of what goes in, float32 (B, 1, H, W), 0 to 1, and of what comes out."""


def export(described: Described, path: Path) -> float:
    """Write a model as ONNX, for images of its size and batches of any.

    Args:
        described: what is known of the model goes into the file's metadata.
        path: of the file, whole or absent.

    Returns:
        the largest difference to the model, see :data:`TOLERANCE`.

    Raises:
        RuntimeError: the extra ``onnx`` is not installed, or the file says something else than the
            model, by more than :data:`TOLERANCE`; then it is not written.
    """
    _refuse_missing()
    model, size = described.model.cpu().eval(), described.about["image_size"]
    data = to_onnx(model, size, {**described.about, "notice": NOTICE})
    worst = difference(data, model, size)
    if not worst <= TOLERANCE:
        raise RuntimeError(
            f"{path} was not written: it differs from the model by {worst:.1e}, more than "
            f"{TOLERANCE:.0e}; try another version of torch or onnxscript"
        )
    write_atomic(path, lambda file: file.write(data))
    return worst


def to_onnx(model: nn.Module, size: int, about: dict[str, Any]) -> bytes:
    """The file's bytes.

    Args:
        model: on the CPU, in evaluation mode.
        size: H = W of the images, pixels.
        about: metadata, any values JSON can hold.
    """
    images = torch.zeros(2, 1, size, size)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program: Any = torch.onnx.export(
            model,
            (images,),
            input_names=[INPUT],
            output_names=OUTPUTS,
            dynamic_shapes=({0: batch},),
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props.update({name: json.dumps(v) for name, v in about.items()})
    return program.model_proto.SerializeToString()


def difference(data: bytes, model: nn.Module, size: int) -> float:
    """How far the outputs of a file are from those of its model, at most, see :data:`TOLERANCE`.

    Both are asked about drawn chests, one and then three at once. Not about noise: where a
    probability is all but 0 or 1, its log-odds are no more exact than float32 lets them be.

    Args:
        data: of the file.
        model, size: of :func:`to_onnx`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    drawn = render_some(range(4), size, 0, Controls())
    images = torch.from_numpy(np.stack([chest.pixels for chest in drawn]))[:, None]  # (4, 1, H, W)
    worst = []
    for batch in scaled(images).split([1, 3]):
        with torch.inference_mode():
            expected = model(batch)
        found = session.run(OUTPUTS, {INPUT: batch.numpy()})
        for tensor, ours in zip(expected, found, strict=True):
            value = tensor.numpy()
            worst.append((np.abs(value - ours) / (1 + np.abs(value))).max())
    return float(np.max(worst))  # NaN if any is


class _quiet:
    """Holds back what the exporter logs about its steps."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("torch.onnx")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self.logger.setLevel(self.level)


def _refuse_missing() -> None:
    """Raise RuntimeError unless the packages of the extra are there."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise RuntimeError(
            f"{' and '.join(missing)} not installed; ONNX needs the extra: "
            'python -m pip install -e ".[onnx]"'
        )
