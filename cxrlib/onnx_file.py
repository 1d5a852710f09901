"""A model as an ONNX file, for programs without PyTorch, compared with the model it was made from.

Needs the extra ``onnx``: ``pip install "cxrlib[onnx]"``.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cxrlib.files import write_atomic
from cxrlib.weights import NOTICE, Described

TOLERANCE = 1e-4
"""Of a logit or a value of a map."""

INPUT, OUTPUTS = "images", ["logits", "maps"]
"""Names of what goes in, float32 (B, 1, H, W), 0 to 1, and of what comes out."""


def export(described: Described, path: Path) -> float:
    """Write a model as ONNX, for images of its size and batches of any.

    Args:
        described: what is known of the model goes into the file's metadata.
        path: of the file, whole or absent.

    Returns:
        the largest difference to the model, of a logit or a value of a map.

    Raises:
        RuntimeError: the extra ``onnx`` is not installed, or the file says something else than the
            model, by more than :data:`TOLERANCE`; then it is not written.
    """
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

    Raises:
        RuntimeError: the extra ``onnx`` is not installed.
    """
    images = torch.zeros(2, 1, size, size)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        try:
            program: Any = torch.onnx.export(
                model,
                (images,),
                input_names=[INPUT],
                output_names=OUTPUTS,
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
        except ImportError as error:
            raise _extra(error) from error
    program.model.metadata_props.update({name: json.dumps(v) for name, v in about.items()})
    return program.model_proto.SerializeToString()


def difference(
    data: bytes, model: nn.Module, size: int, batches: tuple[int, ...] = (1, 3)
) -> float:
    """How far the outputs of a file are from those of its model on noise, one image and three.

    Args:
        data: of the file.
        model, size: of :func:`to_onnx`.

    Raises:
        RuntimeError: the extra ``onnx`` is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise _extra(error) from error
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for count in (1, 3):
        images = torch.rand(count, 1, size, size, generator=generator)
        with torch.inference_mode():
            expected = model(images)
        found = session.run(OUTPUTS, {INPUT: images.numpy()})
        pairs = zip(expected, found, strict=True)
        worst = max([worst, *(float(np.abs(e.numpy() - f).max()) for e, f in pairs)])
    return worst


class _quiet:
    """Holds back what the exporter logs about its steps."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("torch.onnx")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self.logger.setLevel(self.level)


def _extra(error: ImportError) -> RuntimeError:
    return RuntimeError(f'{error}; ONNX needs the extra: python -m pip install "cxrlib[onnx]"')
