"""Losses of CLARiTy beside cross-entropy, in float32 (float64 stays) whatever the autocast state.

The paper names them; their formulas are our reading, see ``cxrlib/literature/fidelity.csv``.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrlib.losses import full_precision


def orthogonal_loss(T: Tensor) -> Tensor:
    r"""How far the class tokens of an image are from being at right angles to each other.

    .. math:: L = \frac{1}{C (C - 1)} \big\| \hat T \hat T^\top - I \big\|_F^2, \qquad
        \hat T_c = T_c / \| T_c \|

    is the mean squared cosine between two tokens, averaged over the batch.

    Args:
        T: (B, C, D) class tokens.

    Returns:
        scalar, 0 (all orthogonal) to 1 (all parallel); 0 for a single token.

    >>> orthogonal_loss(torch.tensor([[[3.0, 0.0], [0.0, 0.5]]]))
    tensor(0.)
    >>> orthogonal_loss(torch.ones(1, 2, 4))
    tensor(1.)
    """
    T = F.normalize(full_precision(T), dim=-1)
    C = T.shape[1]
    with torch.autocast(T.device.type, enabled=False):  # it would multiply in half precision
        cosines = T @ T.transpose(1, 2)  # (B, C, C)
    between = cosines.square() * (1 - torch.eye(C, device=T.device))
    return between.sum(dim=(1, 2)).mean() / max(C * (C - 1), 1)


def distillation_loss(log_odds: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Kullback-Leibler divergence of the student from its teacher, finding by finding.

    .. math:: L = \tau^2 \operatorname{mean}_{bc} \Big[ q \log \frac{q}{p} +
        (1 - q) \log \frac{1 - q}{1 - p} \Big], \qquad
        p = \sigma(s / \tau), \quad q = \sigma(t / \tau)

    A temperature above 1 softens both, so that the student also learns which absent findings the
    teacher almost saw; the factor keeps the gradients' size (Hinton et al. 2015, arXiv:1503.02531).

    Args:
        log_odds: (B, C), s, of the student.
        teacher: (B, C), t; NaN where the teacher does not know the finding.
        temperature: tau, above 0 and finite.

    Returns:
        scalar, 0 and above; 0 where student and teacher agree.

    Raises:
        ValueError: the temperature is out of its range.

    >>> distillation_loss(torch.zeros(1, 1), torch.full((1, 1), 100.0), temperature=1.0)
    tensor(0.6931)
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature = {temperature}; a finite number above 0 was expected")
    known = ~teacher.isnan()
    s = full_precision(log_odds) / temperature
    t = teacher.nan_to_num(0).to(s) / temperature
    # log q - log p and its like for 1 - q, without ever computing log 0
    agree = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
    divergence = agree + (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return temperature**2 * torch.where(known, divergence, 0).sum() / known.sum().clamp(min=1)


def foreground_loss(foreground: Tensor, prior: Tensor) -> Tensor:
    r"""Cross-entropy between the foreground map and the anatomical prior.

    Args:
        foreground: (B, 1, h, w) log-odds.
        prior: (B, 1, H, W) or (1, 1, H, W), 0 to 1, of any size: the share of each cell that may
            show a finding, such as a mask of lungs and heart; it is averaged over the cells.

    Returns:
        scalar.

    >>> foreground_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 4, 4))
    tensor(0.6931)
    """
    h, w = foreground.shape[-2:]
    foreground = full_precision(foreground)
    cells = F.adaptive_avg_pool2d(prior.to(foreground), (h, w))  # (B or 1, 1, h, w)
    return F.binary_cross_entropy_with_logits(foreground, cells.expand_as(foreground))


def suppression_loss(class_map: Tensor, foreground: Tensor) -> Tensor:
    r"""What the class map says in the background, mean of :math:`\sigma(S)\,(1 - \sigma(F))`.

    Only the class map learns from it: a foreground that learned too would grow to excuse the map.

    Args:
        class_map: S, (B, C, h, w) log-odds.
        foreground: F, (B, 1, h, w) log-odds.

    Returns:
        scalar, 0 to 1.

    >>> suppression_loss(torch.zeros(1, 14, 2, 2), torch.full((1, 1, 2, 2), -100.0))
    tensor(0.5000)
    """
    background = (-full_precision(foreground.detach())).sigmoid()  # (B, 1, h, w)
    return (full_precision(class_map).sigmoid() * background).mean()


def refuse_weights(**weights: float) -> None:
    """Raise unless every weight of a loss is a finite number of at least 0.

    >>> refuse_weights(orthogonal=0.1)
    """
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name} = {weight}; the weight of a loss is a finite number >= 0")
