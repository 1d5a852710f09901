"""Multiple-instance pooling, a map of instance scores to one score: a function and a module each.

Every function takes scores ``S`` of shape (..., h, w) and returns (...). They compute in float32
(float64 stays) whatever the autocast state: exp() of half-precision scores loses the small lesions.

LSE pooling came to weak supervision with Pinheiro & Collobert 2015 (arXiv:1411.6228); Yao et al.
2018 (arXiv:1803.07703) bound its sharpness from below.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cxrlib.losses import full_precision
from cxrlib.parameters import nearest
from cxrlib.pooling_of_probabilities import log_pooled, lse_of_probabilities, sharpness


def mean_pool(S: Tensor) -> Tensor:
    """Mean over the map: every instance has the same say.

    Args:
        S: (..., h, w) scores.

    Returns:
        (...) pooled scores.

    >>> mean_pool(torch.tensor([[0.0, 1.0]]))
    tensor(0.5000)
    """
    return full_precision(S).mean(dim=(-2, -1))


def max_pool(S: Tensor) -> Tensor:
    """Maximum over the map: one instance decides; tied maxima share the gradient.

    Args:
        S: (..., h, w) scores.

    Returns:
        (...) pooled scores.

    >>> max_pool(torch.tensor([[0.0, 1.0]]))
    tensor(1.)
    """
    return full_precision(S).amax(dim=(-2, -1))


def lse_pool(S: Tensor, r: float | Tensor) -> Tensor:
    r"""Log-sum-exp pooling, a smooth path from the mean (r -> 0) to the maximum (r -> inf).

    .. math:: p = \frac{1}{r} \log\Big[\frac{1}{wh} \sum_{ij} e^{r S_{ij}}\Big], \qquad
        \frac{\partial p}{\partial S_{ij}} = \operatorname{softmax}(r S)_{ij}

    Args:
        S: (..., h, w) scores; for scores in [0, 1] so is the result.
        r: sharpness, 0 to infinity; a number, or a tensor that broadcasts against the result (...).

    Returns:
        (...) pooled scores, mean(S) <= p <= max(S).

    Raises:
        ValueError: ``r`` is a number below 0 or NaN.

    >>> S = torch.tensor([[0.0, 1.0]])
    >>> [round(lse_pool(S, r).item(), 3) for r in (0, 5, math.inf)]
    [0.5, 0.863, 1.0]
    """
    S = full_precision(S)
    r = _sharpness(r, S)
    peak = S.amax(dim=(-2, -1), keepdim=True).detach()
    return peak[..., 0, 0] + _log_mean_exp(S - peak, r) / r


def lse_lba_pool(S: Tensor, r0: float, beta: Tensor) -> Tensor:
    r"""LSE pooling with lower-bounded adaptation, :math:`r = r_0 + e^\beta` (Yao et al. 2018).

    Args:
        S: (..., h, w) probabilities.
        r0: lower bound of the sharpness, the paper's sharpness prior, >= 0.
        beta: learnable; scalar, or a tensor that broadcasts against the result (...).

    Returns:
        (...) pooled probabilities.

    Raises:
        ValueError: ``r0`` is no finite number from 0 up.

    >>> S = torch.tensor([[0.0, 1.0]])
    >>> lse_lba_pool(S, r0=4.0, beta=torch.tensor(0.0)) == lse_pool(S, 5.0)
    tensor(True)
    """
    S, r = full_precision(S), sharpness(r0, beta)
    p = lse_of_probabilities(S, _sharpness(r, S))
    return lse_pool(S, r) if p is None else p


def lse_log_odds(logits: Tensor, r: float | Tensor) -> Tensor:
    r"""Log-odds of ``lse_pool(sigmoid(logits), r)``, also where the probability rounds to 0 or 1.

    Where p is near 1, its complement is pooled from the complements :math:`Q = 1 - S`,

    .. math:: 1 - p = - \frac{1}{r} \log\Big[\frac{1}{wh} \sum_{ij} e^{-r Q_{ij}}\Big],

    so it keeps its precision where p rounds to 1, and binary cross-entropy on these log-odds is the
    paper's cross-entropy on p without clamping it.

    Args:
        logits: (..., h, w) scores before the sigmoid.
        r: sharpness, as in :func:`lse_pool`.

    Returns:
        (...) float32 log p - log(1 - p).

    >>> round(lse_log_odds(torch.full((2, 2), 3.0), r=5.0).item(), 3)
    3.0
    """
    logits = full_precision(logits)
    r = _sharpness(r, logits)
    S = logits.sigmoid()
    p = lse_of_probabilities(S, r)
    if p is None:
        return _log_odds_below_peak(logits, S, r)
    log_not_p = (1 - p).clamp(min=torch.finfo(S.dtype).tiny).log()
    high = p.detach() > 0.9
    if high.any():
        k, not_logits = r.expand_as(p)[high], -logits[high]
        grown = torch.expm1(-k[:, None, None] * not_logits.sigmoid()).mean((-2, -1))
        log_not_p = log_not_p.masked_scatter(high, log_pooled(-grown.log1p() / k, not_logits))
    return log_pooled(p, logits) - log_not_p


def noisy_or_log_odds(logits: Tensor, least: float = 0.98) -> Tensor:
    r"""Log-odds of noisy-or pooling: positive as soon as one instance is (Li et al. 2018).

    .. math:: p = 1 - \prod_{ij} \big[l + (1 - l)(1 - S_{ij})\big], \qquad S = \sigma(\text{logits})

    The product of hundreds of factors would be 0 at once, so they are squeezed into [l, 1].

    Args:
        logits: (..., h, w) scores before the sigmoid.
        least: l, above 0 and below 1.

    Returns:
        (...) float32 log p - log(1 - p).

    Raises:
        ValueError: ``least`` is out of its range.

    >>> round(noisy_or_log_odds(torch.zeros(20, 20)).sigmoid().item(), 3)  # 1 - 0.99^400
    0.982
    """
    if not 0 < least < 1:
        raise ValueError(f"least = {least}; a number above 0 and below 1 was expected")
    logits = full_precision(logits)
    log_not_p = torch.log1p((least - 1) * logits.sigmoid()).sum(dim=(-2, -1))
    most = (1 - least) * logits.shape[-2] * logits.shape[-1]  # p / most: below, the mean of S
    return log_pooled(-torch.expm1(log_not_p) / most, logits) + math.log(most) - log_not_p


def _log_odds_below_peak(logits: Tensor, S: Tensor, r: Tensor) -> Tensor:
    """lse_log_odds for any r: 1 - p is a sum of two terms >= 0, min(1 - S) and max(S) - p."""
    peak = logits.amax(dim=(-2, -1), keepdim=True).detach()
    # Near 1 scores round to 1, and only their complements differ.
    d = torch.where(peak > 0, (-peak).sigmoid() - (-logits).sigmoid(), S - peak.sigmoid())
    below_peak = -_log_mean_exp(d, r) / r  # >= 0
    peak = peak[..., 0, 0]
    log_p = log_pooled(peak.sigmoid() - below_peak, logits)
    return log_p - log_pooled((-peak).sigmoid() + below_peak, -logits)


def _log_mean_exp(d: Tensor, r: Tensor) -> Tensor:
    """log mean exp(r d) over the last two dimensions, for d <= 0 with maximum 0."""
    x = r[..., None, None] * d
    # Near 0 the sum is 1 minus something small, which rounds away unless that something is summed.
    flat = x.detach().amin(dim=(-2, -1)) > -1
    small = torch.expm1(x.clamp(min=-1)).mean(dim=(-2, -1)).log1p()
    large = x.logsumexp(dim=(-2, -1)) - math.log(d.shape[-1] * d.shape[-2])
    return torch.where(flat, small, large)


def _sharpness(r: float | Tensor, S: Tensor) -> Tensor:
    if not isinstance(r, Tensor):
        if not r >= 0:
            raise ValueError(
                f"r = {r}; the sharpness of LSE pooling is a number from 0 to infinity"
            )
        r = torch.tensor(float(r))
    # r = 0 and r = inf are limits; these bounds are equal to them to within rounding.
    return r.to(S).clamp(min=1e-8, max=1e30)


class MeanPool(nn.Module):
    """:func:`mean_pool` as a module."""

    def forward(self, S: Tensor) -> Tensor:
        """(..., h, w) -> (...)."""
        return mean_pool(S)


class MaxPool(nn.Module):
    """:func:`max_pool` as a module."""

    def forward(self, S: Tensor) -> Tensor:
        """(..., h, w) -> (...)."""
        return max_pool(S)


class LSEPool(nn.Module):
    """:func:`lse_pool` with a fixed r, as a module."""

    def __init__(self, r: float) -> None:
        super().__init__()
        self.r = r

    def forward(self, S: Tensor) -> Tensor:
        """(..., h, w) -> (...)."""
        return lse_pool(S, self.r)


class LSELBAPool(nn.Module):
    """:func:`lse_lba_pool` with its learnable beta, as a module.

    Args:
        r0: lower bound of the sharpness, >= 0.
        shape: of beta: ``()``, the one scalar of the paper's equation, or ``(C,)``, one per
            finding.
    """

    def __init__(self, r0: float, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.r0 = r0
        self.beta = nn.Parameter(torch.zeros(shape))
        sharpness(r0, self.beta)  # refuses a wrong r0

    @property
    def r(self) -> Tensor:
        """The current sharpness, r0 + exp(beta)."""
        return sharpness(self.r0, self.beta)

    def forward(self, S: Tensor) -> Tensor:
        """(..., h, w) -> (...)."""
        return lse_lba_pool(S, self.r0, self.beta)

    def log_odds(self, logits: Tensor) -> Tensor:
        """(..., h, w) scores before the sigmoid -> (...) log-odds of the pooled probability."""
        return lse_log_odds(logits, self.r)


class NoisyOr(nn.Module):
    """:func:`noisy_or_log_odds` as a module."""

    def forward(self, logits: Tensor) -> Tensor:
        """(..., h, w) scores before the sigmoid -> (...) log-odds."""
        return noisy_or_log_odds(logits)


class LSELBALogOdds(LSELBAPool):
    """:class:`LSELBAPool` from scores before the sigmoid to log-odds."""

    def forward(self, S: Tensor) -> Tensor:
        """(..., h, w) scores before the sigmoid -> (...) log-odds."""
        return self.log_odds(S)


SHARPNESS = 5.0
"""r of log-sum-exp pooling and r0 of its bounded form, where nothing else is said."""

LOGIT_POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "max": MaxPool,
    "mean": MeanPool,
    "lse": lambda: LSEPool(SHARPNESS),
    "lse_lba": lambda: LSELBALogOdds(SHARPNESS),
    "noisy_or": NoisyOr,
}
"""From a map of logits to the image's logit. The first three pool the logits themselves; LSE-LBA
and noisy-or are defined on probabilities and give the log-odds of the pooled one."""


def logit_pooling(name: str) -> nn.Module:
    """A pooling of maps of logits (B, C, h, w) to the logits (B, C) of the images.

    Args:
        name: a key of :data:`LOGIT_POOLINGS`.

    Raises:
        ValueError: there is no such pooling.

    >>> logit_pooling("mean")(torch.tensor([[[0.0, 1.0]]]))
    tensor([0.5000])
    """
    if name not in LOGIT_POOLINGS:
        raise ValueError(f"pooling = {name!r}; {nearest(name, list(LOGIT_POOLINGS))}")
    return LOGIT_POOLINGS[name]()
