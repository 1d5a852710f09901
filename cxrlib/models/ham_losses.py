"""HAM's losses on attention maps: the two ordinal constraints, and the one on boxes.

Ouyang et al. 2021; the formulas are those of the released code. All of them compute in float32
(float64 stays), since sums over maps overflow in half precision; none knows a weight of the
network.
"""

import torch
from torch import Tensor

from cxrlib.losses import full_precision

STEEPNESS = 100.0
"""Of the sigmoids that stand for thresholds, so that gradients pass."""

SIGMA = 0.75
"""Where a class activation map counts as active, in the units of the logits."""

REFINED_AT = 0.4
"""Where a map that was brought to 0 to 1 counts as active."""

_LEAST = 1e-5  # of a denominator: an empty map has nothing outside


def outside(inner: Tensor, outer: Tensor, sigma: float = SIGMA) -> Tensor:
    r"""Share of an attention map that another one does not cover, or that is too weak to count.

    .. math:: 1 - \frac{\sum_{ij} \min(A_{ij}, B_{ij}) \, T(A_{ij})}{\sum_{ij} A_{ij}}, \qquad
        T(A) = \sigma(100 (A - 0.75))

    It is 0 where A is strong wherever it is not zero, and B is nowhere below it.

    Args:
        inner: A, (..., h, w), 0 and above.
        outer: B, broadcasts against A.
        sigma: the threshold, 0.75.

    Returns:
        (...), 0 to 1; 0 for an empty A.

    >>> A = torch.tensor([[2.0, 2.0], [0.0, 0.0]])
    >>> outside(A, A), outside(A, A.T)
    (tensor(0.), tensor(0.5000))
    """
    inner = full_precision(inner)
    T = torch.sigmoid(STEEPNESS * (inner - sigma))
    whole = inner.sum((-2, -1))
    covered = (torch.minimum(inner, outer) * T).sum((-2, -1))
    return (whole - covered) / whole.clamp(min=_LEAST)


def masses(inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Mass of an attention map, and how much of it another one does not cover; no threshold.

    Args:
        inner: (..., h, w), 0 and above.
        outer: broadcasts against it.

    Returns:
        (...) each.

    >>> masses(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, 3.0]]))
    (tensor(3.), tensor(1.5000))
    """
    inner = full_precision(inner)
    return inner.sum((-2, -1)), (inner - outer).clamp(min=0).sum((-2, -1))


def bounded_loss(A: Tensor, A_abnormal: Tensor, positive: Tensor, sigma: float = SIGMA) -> Tensor:
    """Ordinal constraint: the attention of a finding lies within that of abnormality.

    Args:
        A: (B, C, h, w) class attention, 0 and above.
        A_abnormal: (B, 1, h, w).
        positive: bool (B, C), the findings that are present; only they count.
        sigma: as in :func:`outside`.

    Returns:
        scalar, the mean over the findings in the batch of the mean over the images that have each;
        0 where no image has any.

    >>> A = torch.tensor([[[[2.0, 2.0]], [[0.0, 3.0]]]])  # one image, two findings, 1 x 2 cells
    >>> bounded_loss(A, A[:, 1:], torch.tensor([[True, True]]))  # half of the first is outside
    tensor(0.2500)
    """
    share = outside(A, A_abnormal, sigma) * positive  # (B, C)
    images = positive.sum(0)  # (C,)
    return (share.sum(0) / images.clamp(min=1)).sum() / (images > 0).sum().clamp(min=1)


def union_loss(A: Tensor, A_abnormal: Tensor, positive: Tensor, sigma: float = SIGMA) -> Tensor:
    """Ordinal constraint: the attention of abnormality lies within the union of the findings'.

    Args:
        A, A_abnormal, positive, sigma: as in :func:`bounded_loss`.

    Returns:
        scalar, the mean over the images with a finding; 0 where there is none.

    >>> A = torch.tensor([[[[2.0, 0.0]], [[0.0, 2.0]]]])
    >>> everywhere = torch.full((1, 1, 1, 2), 2.0)
    >>> [union_loss(A, everywhere, torch.tensor([[True, y]])).item() for y in (True, False)]
    [0.0, 0.5]
    """
    union = (A * positive[..., None, None]).amax(1, keepdim=True)  # (B, 1, h, w)
    abnormal = positive.any(1)  # (B,)
    share = outside(A_abnormal, union, sigma)[:, 0] * abnormal
    return share.sum() / abnormal.sum().clamp(min=1)


def box_loss(A_refined: Tensor, masks: Tensor, finding: Tensor) -> Tensor:
    r"""Squared distance of refined maps from the masks of boxes, relative to the size of both.

    .. math:: \frac{1}{|C|} \sum_{c \in C} \frac{\sum_{p \in c} \sum_{ij} (A_{pij} - M_{pij})^2}
        {\sum_{p \in c} \sum_{ij} (A_{pij} + M_{pij})}

    over the findings C that have a box in the batch.

    Args:
        A_refined: (n, H, W), 0 to 1, of the n (image, finding) pairs with a box.
        masks: bool (n, H, W).
        finding: int64 (n,), the finding of each pair.

    Returns:
        scalar, 0 to 1; 0 for no pairs.

    >>> masks = torch.tensor([[[True, False]]])
    >>> box_loss(torch.tensor([[[1.0, 1.0]]]), masks, torch.tensor([4]))
    tensor(0.3333)
    """
    A_refined = full_precision(A_refined)
    M = masks.to(A_refined)
    found, which = finding.unique(return_inverse=True)
    nothing = A_refined.new_zeros(len(found))
    distance = nothing.index_add(0, which, (A_refined - M).square().sum((-2, -1)))
    size = nothing.index_add(0, which, (A_refined + M).sum((-2, -1)))
    return (distance / size.clamp(min=_LEAST)).sum() / max(len(found), 1)


def any_finding(labels: Tensor) -> Tensor:
    """Whether there is any finding: (B, C) -> (B, 1), NaN where none is known but some unknown.

    >>> nan = float("nan")
    >>> any_finding(torch.tensor([[1.0, nan], [0.0, 0.0], [0.0, nan]])).tolist()
    [[1.0], [0.0], [nan]]
    """
    known = (labels == 1).any(1, keepdim=True)
    return torch.where(known, 1.0, labels.amax(1, keepdim=True))


def rescale(maps: Tensor) -> Tensor:
    """Min-max of each map to 0 to 1; a constant map holds nothing and becomes zeros.

    Args:
        maps: (..., h, w).

    >>> rescale(torch.tensor([[1.0, 2.0], [3.0, 5.0]])).tolist()
    [[0.0, 0.25], [0.5, 1.0]]
    """
    maps = full_precision(maps)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    spread = high - low
    return (maps - low) / torch.where(spread > 0, spread, 1)


def refine(maps: Tensor, size: tuple[int, int]) -> Tensor:
    r"""The paper's refined maps: enlarged, min-max x of each, then :math:`\sigma(100 (x - 0.4))`.

    Args:
        maps: (B, C, h, w).
        size: height and width of the result, pixels.

    Returns:
        ``(B, C, *size)``, 0 to 1, nearly binary.

    >>> refine(torch.tensor([[[[0.0, 0.3, 2.0]]]]), (1, 3)).round()
    tensor([[[[0., 0., 1.]]]])
    """
    large = torch.nn.functional.interpolate(
        full_precision(maps), size, mode="bilinear", align_corners=True
    )
    return torch.sigmoid(STEEPNESS * (rescale(large) - REFINED_AT))
