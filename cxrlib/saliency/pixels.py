"""Maps from the pixels: integrated gradients and occlusion, for networks of any kind."""

import numpy as np
import torch
from torch import Tensor, nn

from cxrlib.saliency.network import Findings, columns_of, evaluating, gradients, logits_of

_FLAT = 4
"""Cells per side of an image without detail; a lung is two of them wide."""


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    findings: Findings = None,
    *,
    baseline: float | Tensor | None = None,
    steps: int = 50,
    stride: int = 1,
    chunk: int = 32,
) -> Tensor:
    r"""Integrated gradients, :math:`(x - x') \int_0^1 \nabla y^c(x' + t (x - x')) \, dt`.

    Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017, by Gauss-Legendre
    quadrature. Complete: the values of a map add up to :math:`y^c(x) - y^c(x')`.

    Args:
        model, images, findings: of :func:`saliency_maps`.
        baseline: x', one value or (B or 1, 1, H, W). None: the images' 4 x 4 means, interpolated.
            The paper's black image, 0, gives black pixels no say, and where a network standardizes
            each image, as ours do, all of the way from one value is the same image to it.
        steps: points t; more where the sum is too far off.
        stride: side in pixels of a map's cells; a cell is the sum of its pixels.
        chunk: images that pass the network at once.

    Returns:
        (B, C, H / stride, W / stride), parts of logits, any sign.

    Raises:
        ValueError: as above, a number is out of range, or the sum is off by more than a fifth.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    >>> image = torch.rand(1, 1, 4, 4)
    >>> parts = integrated_gradients(net, image, baseline=0.0)
    >>> torch.allclose(parts.sum(), net(image) - net(0 * image), atol=1e-5)
    True
    """
    _at_least_one(steps=steps, stride=stride, chunk=chunk)
    with evaluating(model, images) as x:
        B = len(x)
        _refuse_ragged(x, stride)
        x0 = _baseline(baseline, x, default=_without_detail(x))
        change = logits_of(model, x) - logits_of(model, x0)  # (B, C)
        columns = columns_of(findings, change.shape[1])
        nodes, weights = (x.new_tensor(v) for v in np.polynomial.legendre.leggauss(steps))
        nodes, weights = (nodes + 1) / 2, weights / 2  # from [-1, 1] to [0, 1]
        mean = x.new_zeros(B, len(columns), *x.shape[2:])
        for points in torch.arange(steps * B, device=x.device).split(chunk):
            t, i = points // B, points % B
            with torch.enable_grad():
                path = torch.lerp(x0[i], x[i], nodes[t].view(-1, 1, 1, 1)).requires_grad_()
                logits = logits_of(model, path)
            for c, g in enumerate(gradients(logits, path, columns)):
                mean[:, c].index_add_(0, i, g[:, 0] * weights[t].view(-1, 1, 1))
        parts = mean * (x - x0)
    _refuse_incomplete(parts.sum(dim=(-2, -1)), change[:, columns], steps)
    return nn.functional.avg_pool2d(parts, stride) * stride**2


def occlusion(
    model: nn.Module,
    images: Tensor,
    findings: Findings = None,
    *,
    patch: int = 32,
    stride: int = 16,
    baseline: float | Tensor | None = None,
    chunk: int = 32,
) -> Tensor:
    r"""Occlusion, :math:`y^c(x) - y^c(x \text{ with a square hidden})`, square by square.

    Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, whose square
    is grey. A square lies centred on its cell of the map and is cut off at the image's edge.

    Args:
        model, images, findings: of :func:`saliency_maps`.
        patch: side of the square, pixels: ``stride`` or an even number more.
        stride: side in pixels of a map's cells; it divides H and W.
        baseline: what shows in the square, one value or (B or 1, 1, H, W). None: each image's mean.
        chunk: images that pass the network at once.

    Returns:
        (B, C, H / stride, W / stride), differences of logits, any sign.

    Raises:
        ValueError: as above, or a number is out of range.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    >>> occlusion(net, torch.rand(1, 1, 4, 4), patch=2, stride=2).shape
    torch.Size([1, 1, 2, 2])
    """
    _at_least_one(patch=patch, stride=stride, chunk=chunk)
    if patch < stride or (patch - stride) % 2:
        raise ValueError(
            f"patch = {patch} and stride = {stride}; a patch of the stride or an even number of "
            "pixels more was expected, so that it lies centred on its cell"
        )
    with evaluating(model, images) as x:
        _refuse_ragged(x, stride)
        fill = _baseline(baseline, x, default=x.mean(dim=(1, 2, 3), keepdim=True).expand_as(x))
        seen = logits_of(model, x)  # (B, C)
        columns = columns_of(findings, seen.shape[1])
        down, across = (_squares(side, patch, stride, x.device) for side in x.shape[2:])
        w, cells = len(across), len(down) * len(across)
        drop = []
        for places in torch.arange(len(x) * cells, device=x.device).split(chunk):
            i, cell = places // cells, places % cells
            hidden = down[cell // w, :, None] & across[cell % w, None, :]  # (n, H, W)
            drop.append(seen[i] - logits_of(model, torch.where(hidden[:, None], fill[i], x[i])))
    drops = torch.cat(drop)[:, columns].view(len(x), cells, -1)  # (B, h w, C)
    return drops.mT.reshape(len(x), len(columns), len(down), w)


def _squares(side: int, patch: int, stride: int, device: torch.device) -> Tensor:
    """Which pixels along one side each cell's square hides: bool (side / stride, side)."""
    first = torch.arange(0, side, stride, device=device)[:, None] - (patch - stride) // 2
    pixel = torch.arange(side, device=device)
    return (first <= pixel) & (pixel < first + patch)


def _without_detail(x: Tensor) -> Tensor:
    """The means of 4 x 4 parts, interpolated: (B, 1, H, W)."""
    parts = nn.functional.adaptive_avg_pool2d(x, _FLAT)
    return nn.functional.interpolate(parts, x.shape[2:], mode="bilinear")


def _baseline(given: float | Tensor | None, x: Tensor, default: Tensor) -> Tensor:
    """A baseline for each image: (B, 1, H, W)."""
    baseline = torch.as_tensor(default if given is None else given, dtype=x.dtype).to(x.device)
    fits = not baseline.ndim or baseline.shape in (x.shape, x[:1].shape)
    if not fits or not baseline.isfinite().all():
        raise ValueError(
            f"baseline has shape {tuple(baseline.shape)}, {int((~baseline.isfinite()).sum())} of "
            f"its values not finite; a finite number or {tuple(x.shape)} or {tuple(x[:1].shape)} "
            "was expected"
        )
    return baseline.expand_as(x)


def _at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} = {number!r}; an integer of at least 1 was expected")


def _refuse_ragged(x: Tensor, stride: int) -> None:
    if any(side % stride for side in x.shape[2:]):
        raise ValueError(
            f"stride = {stride} does not divide images of {tuple(x.shape[2:])} px into whole cells"
        )


def _refuse_incomplete(total: Tensor, change: Tensor, steps: int) -> None:
    """Raise if the maps' sums are far from the change of the logits, both (B, C)."""
    gap = (total - change).norm()
    if gap > 0.2 * change.norm() + 1e-3:  # rounding, where nothing changes
        raise ValueError(
            f"integrated gradients add up to {total.norm():.3g} where the logits change by "
            f"{change.norm():.3g}: {steps} steps miss where they change; give more, or a baseline "
            "with structure (None) if the network standardizes its images"
        )
