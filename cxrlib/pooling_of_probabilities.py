"""LSE pooling of probabilities without the pass and the memory that scores of any size need."""

from typing import Any

import torch
from torch import Tensor

CACHE = 2**16
"""Numbers that are worked on at a time on a processor: few enough to stay in its cache."""


def lse_of_probabilities(S: Tensor, r: Tensor) -> Tensor | None:
    """``lse_pool(S, r)`` for scores from 0 to 1, or None where it cannot be had in this way.

    Args:
        S: (..., h, w) float32 or float64, from 0 to 1.
        r: sharpness above 0 of the same type; it broadcasts against the result.

    Returns:
        (...) pooled scores; None where exp(r S) overflows, and while a model is traced (a compiler
        fuses the plain operations by itself).

    >>> S = torch.tensor([[0.0, 1.0]])
    >>> round(lse_of_probabilities(S, torch.tensor(5.0)).item(), 3)
    0.863
    >>> lse_of_probabilities(S, torch.tensor(500.0)) is None
    True
    """
    if torch.compiler.is_compiling():
        return None
    shape = S.shape[:-2]
    flat = S.reshape(-1, *S.shape[-2:])
    p = LSEOfProbabilities.apply(flat, r.expand(shape).reshape(-1)).view(shape)
    return p if bool(p.isfinite().all()) else None


class LSEOfProbabilities(torch.autograd.Function):
    """log1p(mean expm1(r S)) / r for S in [0, 1]: no term is negative, so no precision is lost.

    Without a pass for the maximum, in pieces that stay in the processor's cache, and with one map
    of memory, which becomes the gradient. (Plain operations need seven maps more.)
    """

    @staticmethod
    def forward(ctx: Any, S: Tensor, r: Tensor) -> Tensor:
        """(n, h, w) and (n,) -> (n,)."""
        grown = torch.empty_like(S)
        total, weighted = torch.empty_like(r), torch.empty_like(r)
        piece = len(S) if S.is_cuda else max(1, CACHE // S[0].numel())
        parts = (tensor.split(piece) for tensor in (S, r, grown, total, weighted))
        for s, k, e, t, st in zip(*parts, strict=True):
            torch.mul(s, k[:, None, None], out=e).expm1_()
            torch.sum(e, (-2, -1), out=t)
            torch.linalg.vecdot(e.flatten(1), s.flatten(1), out=st)
        mean = total / S[0].numel()
        p = mean.log1p() / r
        ctx.grown = grown
        ctx.save_for_backward(S, r, p, mean, weighted)
        return p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """To the scores the softmax of r S; to r the difference of its mean score from p, by r."""
        (g,) = gradients
        S, r, p, mean, weighted = ctx.saved_tensors
        grown, ctx.grown = ctx.grown, None
        if grown is None or torch.is_grad_enabled():  # a second time, or to be differentiated again
            w = (r[:, None, None] * S).flatten(1).softmax(1).view_as(S)
            return g[:, None, None] * w, g * ((w * S).sum((-2, -1)) - p) / r
        share = 1 / ((1 + mean) * S[0].numel())  # of an instance with a score of 0
        at = share * (weighted + S.sum((-2, -1)))
        return grown.add_(1).mul_((g * share)[:, None, None]), g * (at - p) / r
