"""Losses on image labels, in float32 (float64 stays) whatever the autocast state."""

import torch
from torch import Tensor
from torch.nn import functional as F


def full_precision(x: Tensor) -> Tensor:
    """Float32, or float64 where it is that already: sums of half-precision numbers overflow.

    >>> full_precision(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x if x.dtype == torch.float64 else x.float()


def multilabel_cross_entropy(log_odds: Tensor, labels: Tensor) -> Tensor:
    r"""Mean binary cross-entropy over the known labels.

    .. math:: L = -\frac{1}{|K|} \sum_{(b, c) \in K}
        y_{bc} \log p_{bc} + (1 - y_{bc}) \log(1 - p_{bc})

    Args:
        log_odds: (B, C), log p - log(1 - p).
        labels: (B, C), 1 present, 0 absent, NaN unknown.

    Returns:
        scalar; 0 where no label is known.

    >>> multilabel_cross_entropy(torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]))
    tensor(0.6931)
    """
    known = ~labels.isnan()
    log_odds = full_precision(log_odds)
    y = labels.nan_to_num(0).to(log_odds)
    losses = F.binary_cross_entropy_with_logits(log_odds, y, reduction="none")
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)
