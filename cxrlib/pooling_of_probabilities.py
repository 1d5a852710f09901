"""LSE pooling of probabilities without the pass and the memory that scores of any size need.

Also what keeps its sharpness and its logarithm finite.
"""

import math
from typing import Any

import torch
from torch import Tensor

from cxrlib.losses import full_precision

CACHE = 2**16
"""Numbers that are worked on at a time on a processor: few enough to stay in its cache."""

MAX_BETA = 69.0
"""Above it r = exp(beta) is as good as infinite, and beta does not matter."""


def sharpness(r0: float, beta: Tensor) -> Tensor:
    r"""Sharpness :math:`r = r_0 + e^\beta` of LSE-LBA, finite for every beta.

    Args:
        r0: lower bound, >= 0.
        beta: of any shape and precision; the result has float32 at least.

    Raises:
        ValueError: ``r0`` is no finite number from 0 up.

    >>> sharpness(4.0, torch.zeros(2))
    tensor([5., 5.])
    """
    if not 0 <= r0 < math.inf:
        raise ValueError(f"r0 = {r0}; the sharpness prior is a finite number >= 0")
    return r0 + full_precision(beta).clamp(max=MAX_BETA).exp()


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


def log_pooled(p: Tensor, logits: Tensor) -> Tensor:
    r"""Log of a pooled probability, from the logits where it underflows, so that these still learn.

    Every pooling of probabilities that are all next to 0 is their mean (of r S next to 0 too), and
    there :math:`\sigma(x) = e^x`.

    Args:
        p: (...), float32 or float64, the pooled probability.
        logits: (..., h, w) of the probabilities.

    Returns:
        (...) log p, finite.

    >>> log_pooled(torch.tensor(0.0), torch.full((2, 2), -1e4))
    tensor(-10000.)
    """
    numbers = torch.finfo(p.dtype)
    least = numbers.tiny / numbers.eps  # below, scores may have lost digits
    gone = p.detach() < least
    log_p = p.clamp(min=least).log()
    if not torch.compiler.is_compiling() and not bool(gone.any()):
        return log_p
    n = logits.shape[-2] * logits.shape[-1]
    return torch.where(gone, logits.logsumexp((-2, -1)) - math.log(n), log_p)


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
