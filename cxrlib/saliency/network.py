"""A network that is asked and left as it was: checks, evaluation mode, gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cxrlib.findings import FINDINGS, finding_index
from cxrlib.models.base import Output

Findings = Sequence[str | int] | None
"""Columns of the logits: all (None), numbers, or, where they are the 14 findings, names."""


@contextmanager
def evaluating(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """The model in evaluation mode without gradients; gives the checked images on its device.

    Afterwards each module is in the mode it was in.

    Args:
        model: any mixture of modes.
        images: float (B, 1, H, W), finite.

    Raises:
        ValueError: the images are not as above.

    >>> model = nn.Linear(2, 2)
    >>> with evaluating(model, torch.rand(1, 1, 2, 2)):
    ...     model.training
    False
    >>> model.training
    True
    """
    _refuse_images(images)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        # Also where the caller is in inference mode, whose tensors no gradient can pass; hence the
        # copy.
        with torch.inference_mode(False), torch.no_grad():
            yield images.clone().to(next(model.parameters(), images).device)
    finally:
        for module, mode in modes:
            module.training = mode


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """The model's logits, (B, C).

    Raises:
        ValueError: it returns something else.

    >>> logits_of(nn.Flatten(), torch.zeros(1, 1, 1, 3))
    tensor([[0., 0., 0.]])
    """
    output = model(images)
    logits = output.logits if isinstance(output, Output) else output
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(model).__name__} returned {given} for {len(images)} images; logits of shape "
            f"({len(images)}, C) or a cxrlib.models.Output were expected: wrap the network in a "
            "module whose forward returns its logits alone"
        )
    return logits


def columns_of(findings: Findings, count: int) -> list[int]:
    """Columns of the findings asked for.

    Args:
        findings: see :data:`Findings`.
        count: C, of the model.

    Raises:
        ValueError: one does not exist, names do not fit the model, or there are none.

    >>> columns_of(["Infiltrate", 0], 14)
    [3, 0]
    """
    if findings is None:
        return list(range(count))
    named = [finding for finding in findings if isinstance(finding, str)]
    if named and count != len(FINDINGS):
        raise ValueError(
            f"findings name {named[0]!r}, but the model has {count} logits and not those of the "
            f"{len(FINDINGS)} findings; give numbers of columns, 0 to {count - 1}"
        )
    columns = [finding_index(f) if isinstance(f, str) else int(f) for f in findings]
    outside = [column for column in columns if not 0 <= column < count]
    if outside or not columns:
        raise ValueError(
            f"findings = {list(findings)}; at least one column from 0 to {count - 1} was expected, "
            f"for the model has {count} logits"
        )
    return columns


def gradients(logits: Tensor, inputs: Tensor, columns: list[int]) -> Iterator[Tensor]:
    """Of each column's logits by their own image's inputs, one column at a time.

    Images must not speak to each other, as they do not in evaluation mode. ``.grad`` is left alone,
    and after the last column the graph is gone.

    Args:
        logits: (B, C), with a graph.
        inputs: (B, ...), in that graph.
        columns: of the logits.

    Raises:
        ValueError: the logits do not depend on the inputs.

    >>> x = torch.tensor([[1.0], [2.0]], requires_grad=True)
    >>> list(gradients(x**2, x, [0]))
    [tensor([[2.],
            [4.]])]
    """
    for done, column in enumerate(columns, start=1):
        chosen = torch.zeros_like(logits)
        chosen[:, column] = 1
        (gradient,) = (
            torch.autograd.grad(
                logits, inputs, chosen, retain_graph=done < len(columns), allow_unused=True
            )
            if logits.requires_grad
            else (None,)
        )
        if gradient is None:
            raise ValueError(
                "no gradient leads from the logits back: the layer's output does not reach them, "
                "or the model's forward switches gradients off; name a layer on the way to them"
            )
        yield gradient


def _refuse_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 1:
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"images are {given}; a tensor (B, 1, H, W) was expected: image[None] makes a batch of "
            "one sample's image"
        )
    if not images.numel():
        raise ValueError(f"images have shape {tuple(images.shape)}; at least one was expected")
    if not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype}; floats were expected: cxrlib.datasets.base.scaled(images) "
            "makes them of bytes"
        )
    if not images.isfinite().all():
        bad = int((~images.isfinite()).sum())
        raise ValueError(
            f"{bad} of {images.numel()} pixels are NaN or infinite; images.nan_to_num(0) "
            "removes them"
        )
