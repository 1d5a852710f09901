"""Maps from a layer's activation A: CAM, Grad-CAM and Grad-CAM++, one forward for all findings."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from cxrlib.parameters import nearest
from cxrlib.saliency.network import Findings, columns_of, evaluating, gradients, logits_of


def cam(
    model: nn.Module, images: Tensor, findings: Findings = None, layer: str | None = None
) -> Tensor:
    r"""Class activation map, :math:`M_c = \sum_k w_k^c A_k`.

    Zhou et al., "Learning deep features for discriminative localization", CVPR 2016. The weights w
    are those of the last linear layer (or 1 x 1 convolution) from K features to C logits. Their
    mean over the map must be the logits but for the bias, or else the map would explain another
    network; that is checked.

    Args:
        model, images, findings: of :func:`saliency_maps`.
        layer: name of the module whose output is A; :func:`default_layer` if None.

    Returns:
        (B, C, h, w), parts of the logits (any sign), without the bias.

    Raises:
        ValueError: as above, or the logits are not linear in the mean of A.

    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1),
    ...                     nn.Flatten())
    >>> cam(net, torch.rand(1, 1, 6, 6)).shape
    torch.Size([1, 2, 4, 4])
    """
    with evaluating(model, images) as x:
        A, logits = _forward_from(model, x, layer)
        K, C = A.shape[1], logits.shape[1]
        columns = columns_of(findings, C)
        heads = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        heads = [m for m in heads if m.weight.shape[:2] == (C, K) and m.weight.numel() == C * K]
        if heads:
            M = torch.einsum("ck,bkhw->bchw", heads[-1].weight.view(C, K), A)
            bias = heads[-1].bias
            pooled = M.mean(dim=(-2, -1)) + (0 if bias is None else bias)  # (B, C)
            if torch.allclose(pooled.to(logits), logits, rtol=1e-3, atol=1e-3):
                return M[:, columns]
    raise ValueError(
        f"CAM needs logits that are a linear layer on the mean of A; of this network's {C} logits "
        f"and the {K} features of layer {layer or 'found by default'!r} that is not so; name the "
        "layer before the pooling, or use 'grad_cam', which needs no such network"
    )


def grad_cam(
    model: nn.Module, images: Tensor, findings: Findings = None, layer: str | None = None
) -> Tensor:
    r"""Grad-CAM, :math:`\sum_k \alpha_k^c A_k`, features weighted by their mean gradients.

    :math:`\alpha_k^c` is the mean of :math:`\partial y^c / \partial A_{kij}` over ij.
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017, before its ReLU, which :func:`unit_maps` applies. The network runs
    once, without a graph up to A; each finding's gradient goes back to A alone.

    Args:
        model, images, findings: of :func:`saliency_maps`.
        layer: name of the module whose output is A, as an in-place ReLU leaves it and where it is
            called several times the last; :func:`default_layer` if None.

    Returns:
        (B, C, h, w), any sign.

    Raises:
        ValueError: as above, or the layer does not exist, gives no map or does not reach the
            logits.

    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 4 * 4, 2))
    >>> grad_cam(net, torch.rand(1, 1, 6, 6)).shape
    torch.Size([1, 2, 4, 4])
    """
    return _weighted(model, images, findings, layer, lambda g, A: g.mean(dim=(-2, -1)))


def grad_cam_plus_plus(
    model: nn.Module, images: Tensor, findings: Findings = None, layer: str | None = None
) -> Tensor:
    r"""Grad-CAM++, Grad-CAM with weights :math:`\sum_{ij} \alpha_{ij} \mathrm{ReLU}(g_{ij})`.

    Chattopadhyay et al., "Grad-CAM++: generalized gradient-based visual explanations for deep
    convolutional networks", WACV 2018, eq. 19: :math:`\alpha = g^2 / (2 g^2 + g^3 \sum A)`. Where
    the ReLU is not 0 the product is :math:`g / (2 + g \sum A)`, which needs no epsilon: it is right
    for the smallest gradients too. The paper's A are >= 0; elsewhere the sum is over those that
    are, so that it has no pole.

    Args:
        model, images, findings, layer: of :func:`grad_cam`.

    Returns:
        (B, C, h, w), of A's sign.

    Raises:
        ValueError: as :func:`grad_cam`.

    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 2))
    >>> bool((grad_cam_plus_plus(net, torch.rand(1, 1, 6, 6)) >= 0).all())
    True
    """

    def weigh(g: Tensor, A: Tensor) -> Tensor:
        g = g.relu()
        return (g / (2 + g * A.relu().sum(dim=(-2, -1), keepdim=True))).sum(dim=(-2, -1))

    return _weighted(model, images, findings, layer, weigh)


def default_layer(model: nn.Module, images: Tensor) -> str:
    """Name of the last module that gives a map of features.

    That is an output (B, K, h, w) of more than one cell in the image's proportions; K = C logits
    would be the findings' own scores and not features. Where several modules give the same, as a
    block and its last part do, the outermost is named. In a transformer it is but the patches'
    embedding; ask that by :func:`~cxrlib.saliency.occlusion`.

    Args:
        model, images: of :func:`cxrlib.saliency.saliency_maps`; one image is enough.

    Raises:
        ValueError: there is none.

    >>> default_layer(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten()),
    ...               torch.rand(1, 1, 6, 6))
    '1'
    """
    shapes: dict[str, torch.Size] = {}

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes.pop(name, None)  # called again: to the end
            shapes[name] = output.shape

    with evaluating(model, images) as x, ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(note, name)))
        C = logits_of(model, x).shape[1]
    maps = [n for n, s in shapes.items() if n and _is_map(s, images.shape) and s[1] != C]
    if maps:
        return maps[-1]
    raise ValueError(
        f"no module of {type(model).__name__} gives a map of features (B, K, h, w) with "
        f"K != {C} logits and h x w > 1; name one with layer=..., or use 'occlusion' or "
        "'integrated_gradients', which need none"
    )


def _weighted(
    model: nn.Module,
    images: Tensor,
    findings: Findings,
    layer: str | None,
    weigh: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Σ_k w_k A_k, the weights (B, K) from a finding's gradients and A, both (B, K, h, w)."""
    with evaluating(model, images) as x:
        A, logits = _forward_from(model, x, layer)
        columns = columns_of(findings, logits.shape[1])
        w = torch.stack([weigh(g, A) for g in gradients(logits, A, columns)], dim=1)  # (B, C, K)
        return torch.einsum("bck,bkhw->bchw", w, A)


def _forward_from(model: nn.Module, x: Tensor, layer: str | None) -> tuple[Tensor, Tensor]:
    """A layer's output A and the logits, with a graph between the two and none before A."""
    name = default_layer(model, x[:1]) if layer is None else layer
    seen: list[Tensor] = []

    def cut(module: nn.Module, inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or not _is_map(output.shape, x.shape):
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {name!r} gives {given} for images {tuple(x.shape)}; a map (B, K, h, w) of "
                "more than one cell in the image's proportions was expected: "
                "default_layer(model, images) names a layer that gives one"
            )
        torch.set_grad_enabled(True)  # until the end of the forward pass
        # No leaf, which an in-place ReLU right after the layer (DenseNet) could not change.
        seen[:] = [output.detach().requires_grad_().clone()]
        return seen[0]

    with torch.no_grad(), _module(model, name).register_forward_hook(cut):
        logits = logits_of(model, x)
    if not seen:
        raise ValueError(f"layer {name!r} is not called when the model runs; name one that is")
    return seen[0], logits


def _module(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise ValueError(
            f"layer = {name!r} is no module of {type(model).__name__}; "
            f"{nearest(str(name), [n for n in modules if n])}"
        )
    return modules[name]


def _is_map(shape: torch.Size, images: torch.Size) -> bool:
    """Whether it is (B, K, h, w); (B, h, w, K) of a transformer has other proportions."""
    if len(shape) != 4 or shape[2] * shape[3] == 1:
        return False
    (h, w), (H, W) = shape[2:], images[2:]
    return shape[0] == images[0] and abs(h * W - w * H) <= max(H, W)  # sides are rounded
