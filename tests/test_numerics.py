"""Poolings beside plain float64 formulas, over extreme values and in every precision."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from cxrlib import pooling
from cxrlib.pooling_of_probabilities import sharpness

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
RS = [1e-8, 1e-3, 0.5, 5.0, 88.0, 1e3, 1e5]


def inputs(values, dtype):
    """A leaf of this precision, and what it holds, rounded to it, in float64."""
    x = torch.as_tensor(np.asarray(values)).to(dtype)
    return x.requires_grad_(), x.detach().double().numpy()


def check(result, expected, dtype, rel=2e-5, abs=1e-6):
    """The result is the formula's, in float32 at least."""
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=rel, atol=abs)


def logit_maps():
    rng = np.random.default_rng(0)
    one = np.full((8, 8), -1e4)
    one[3, 4] = 1e4
    return {
        "none": np.full((8, 8), -1e4),
        "all": np.full((8, 8), 1e4),
        "one": one,
        "halves": np.where(np.arange(64) < 32, -1e4, 1e4).reshape(8, 8),
        "pixel": np.full((1, 1), 3.0),
        "far": rng.normal(-2000, 300, (8, 8)),
        "high": rng.normal(2000, 300, (8, 8)),
        "normal": rng.normal(0, 3, (8, 8)),
        "wide": rng.normal(0, 40, (8, 8)),
        "1e-30": np.full((8, 8), math.log(1e-30)),
        "1 - 1e-7": np.full((8, 8), -math.log(1e-7)),
    }


def probability_maps():
    return {
        "zero": np.zeros((4, 4)),
        "one": np.ones((4, 4)),
        "tiny": np.full((4, 4), 1e-30),
        "near one": np.full((4, 4), 1 - 1e-7),
        "pixel": np.full((1, 1), 0.25),
        "single": np.eye(1, 256, 5).reshape(16, 16),
        "random": np.random.default_rng(0).random((8, 8)),
    }


def lse(S, r):
    """The formula as printed, of its terms above 1 where nothing overflows: float64."""
    if r * (S.max() - min(S.min(), 0)) < 700:
        return np.log1p(np.expm1(r * S).mean()) / r
    return S.max() + np.log(np.exp(r * (S - S.max())).mean()) / r


def log_lse(x, r):
    """Log of the pooled sigmoid(x); where float64 underflows too, that of the mean of exp(x)."""
    return math.log(lse(expit(x), r)) if x.max() > -600 else logsumexp(x) - math.log(x.size)


def log_not_lse(x, r):
    """Log of 1 - the pooled sigmoid(x)."""
    if x.min() > 600:
        return logsumexp(-x) - math.log(x.size)
    Q = expit(-x)
    if (r * Q).max() < 1:
        return math.log(-np.log1p(np.expm1(-r * Q).mean()) / r)
    return math.log(Q.min() - np.log(np.exp(-r * (Q - Q.min())).mean()) / r)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", probability_maps())
def test_poolings_of_probabilities(name, dtype):
    S, exact = inputs(probability_maps()[name], dtype)
    check(pooling.mean_pool(S), exact.mean(), dtype, abs=0)
    check(pooling.max_pool(S), exact.max(), dtype, abs=0)
    for r in RS:
        # Only the pooling that knows that no score is negative sees a mean of 1e-30.
        check(pooling.lse_pool(S, r), lse(exact, r), dtype)
        beta = torch.tensor(math.log(r), dtype=torch.float64, requires_grad=True)
        p = pooling.lse_lba_pool(S, 0.0, beta)
        check(p, lse(exact, r), dtype, abs=1e-36)
        for gradient in torch.autograd.grad(p, (S, beta)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", logit_maps())
def test_log_odds_of_poolings(name, dtype):
    x, exact = inputs(logit_maps()[name], dtype)
    for r in RS:
        expected = log_lse(exact, r) - log_not_lse(exact, r)
        odds = pooling.lse_log_odds(x, r)
        # The map's own values are known to 1e-7 of the highest, those of a sharp pool with them.
        check(odds, expected, dtype, rel=1e-5, abs=2e-3 if r > 88 else 1e-4)
        (gradient,) = torch.autograd.grad(odds, x)
        assert gradient.isfinite().all() and (gradient.double() >= 0).all()
    odds = pooling.noisy_or_log_odds(x)
    log_not = np.log1p(-0.02 * expit(exact)).sum()
    small = logsumexp(exact) + math.log(0.02)
    log_p = small if exact.max() < -600 else math.log(-np.expm1(log_not))
    check(odds, log_p - log_not, dtype, rel=1e-5, abs=1e-5)
    (gradient,) = torch.autograd.grad(odds, x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("r", [1e-3, 5.0, 1e3])
@pytest.mark.parametrize("level", [-1e4, -200.0, 200.0, 1e4])
def test_logits_beyond_the_range_of_probabilities_still_learn(level, r):
    """A constant map is its own log-odds, however far out, and they move with it."""
    x = torch.full((2, 1, 8, 8), level, requires_grad=True)
    odds = pooling.lse_log_odds(x, r)
    assert odds.flatten().tolist() == pytest.approx([level] * 2)
    odds.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / 64), rtol=1e-3, atol=0)
    if level < 0:
        (gradient,) = torch.autograd.grad(pooling.noisy_or_log_odds(x).sum(), x)
        torch.testing.assert_close(gradient, torch.full_like(x, 1 / 64), rtol=1e-3, atol=0)


def test_maps_beyond_the_range_do_not_change_the_others_of_their_batch():
    x = torch.randn(5, 6, 6)
    alone = pooling.lse_log_odds(x, 5.0), pooling.noisy_or_log_odds(x)
    batch = torch.cat([x, torch.full((1, 6, 6), -1e4), torch.full((1, 6, 6), 1e4)])
    torch.testing.assert_close(pooling.lse_log_odds(batch, 5.0)[:5], alone[0])
    torch.testing.assert_close(pooling.noisy_or_log_odds(batch)[:5], alone[1])


@pytest.mark.parametrize("r0", [0.0, 1e-8, 5.0, 1e4, 1e30, 1e38])
@pytest.mark.parametrize("beta", [-1e4, -100.0, 0.0, 60.0, 100.0, 1e4])
def test_no_beta_and_no_r0_break_the_bounded_pooling(r0, beta):
    S = torch.tensor([[0.2, 0.7], [0.1, 0.4]], requires_grad=True)
    at = torch.tensor(beta, requires_grad=True)
    p = pooling.lse_lba_pool(S, r0, at)
    r = r0 + math.exp(min(beta, 700))
    exact = S.detach().double().numpy()
    expected = lse(exact, r) if 1e-6 < r < 1e30 else exact.max() if r > 1 else exact.mean()
    assert p.item() == pytest.approx(expected, rel=1e-5)
    for gradient in torch.autograd.grad(p, (S, at)):
        assert gradient.isfinite().all()


def test_a_learned_sharpness_of_half_precision_is_not_rounded_again():
    S, beta = torch.rand(3, 8, 8), torch.tensor(0.7).bfloat16()
    expected = pooling.lse_pool(S, 5 + math.exp(beta.item()))
    torch.testing.assert_close(pooling.lse_lba_pool(S, 5.0, beta), expected)
    steep = torch.tensor(11.5).half()  # e^11.5 is beyond float16
    torch.testing.assert_close(sharpness(0.0, steep), torch.tensor(11.5).exp())


@pytest.mark.parametrize("r0", [-1.0, math.nan, math.inf])
def test_an_impossible_bound_is_refused(r0):
    with pytest.raises(ValueError, match="sharpness prior"):
        pooling.lse_lba_pool(torch.rand(2, 2), r0, torch.tensor(0.0))


def test_gradients_of_log_odds_are_those_of_the_function():
    torch.manual_seed(0)
    for level in (-3.0, 0.0, 6.0):
        x = (2 * torch.randn(2, 3, 3, dtype=torch.float64) + level).requires_grad_()
        r = torch.tensor([0.3, 6.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(pooling.lse_log_odds, (x, r), atol=1e-6, nondet_tol=1e-12)
        assert torch.autograd.gradcheck(pooling.lse_log_odds, (x, 300 * r), atol=1e-5)
        assert torch.autograd.gradcheck(pooling.noisy_or_log_odds, (x,))
        assert torch.autograd.gradcheck(pooling.max_pool, (x,))
        assert torch.autograd.gradcheck(pooling.mean_pool, (x,))


@pytest.mark.parametrize("r", [1e-3, 5.0, 1e3])
def test_each_map_of_a_batch_has_its_own_peak(r):
    """Maps that lie 1e4 apart are pooled as if each were alone."""
    S = torch.tensor([0.0, 1e4, -1e4])[:, None, None] + torch.rand(3, 4, 4)
    alone = torch.stack([pooling.lse_pool(map_, r) for map_ in S])
    assert torch.equal(pooling.lse_pool(S, r), alone)
    assert (alone >= S.mean((1, 2)) - 1e-3).all()


def test_poolings_of_logits_by_name():
    x = torch.randn(2, 3, 4, 4)
    expected = {
        "max": pooling.max_pool(x),
        "mean": pooling.mean_pool(x),
        "lse": pooling.lse_pool(x, 5.0),
        "lse_lba": pooling.lse_log_odds(x, 6.0),
        "noisy_or": pooling.noisy_or_log_odds(x),
    }
    assert expected.keys() == pooling.LOGIT_POOLINGS.keys()
    for name, logits in expected.items():
        torch.testing.assert_close(pooling.logit_pooling(name)(x), logits)
    with pytest.raises(ValueError, match=r"pooling = 'maxx'; did you mean 'max'"):
        pooling.logit_pooling("maxx")
