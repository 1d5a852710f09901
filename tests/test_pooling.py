import math

import numpy as np
import pytest
import torch

from cxrlib import pooling

RS = [0, 1e-8, 1e-6, 1e-4, 1e-2, 0.1, 0.9, 1.1, 5, 10, 100, 1e3, 1e4]


def naive_lse(S, r):
    """The formula as printed, in extended precision."""
    S = np.asarray(S, np.longdouble).reshape(-1)
    if r == 0:
        return S.mean()
    return S.max() + np.log(np.exp(r * (S - S.max())).mean()) / r


def maps():
    rng = np.random.default_rng(0)
    sparse = np.zeros((128, 128), np.float32)
    sparse[3, 4] = 1
    return {
        "uniform": rng.uniform(size=(16, 16)).astype(np.float32),
        "constant": np.full((8, 8), 0.3, np.float32),
        "zero": np.zeros((8, 8), np.float32),
        "sparse": sparse,
        "faint": (rng.uniform(size=(32, 32)) * 1e-4).astype(np.float32),
        "unbounded": rng.normal(scale=20, size=(8, 8)).astype(np.float32),
    }


@pytest.mark.parametrize("r", RS)
@pytest.mark.parametrize("name", maps())
def test_lse_equals_the_formula(name, r):
    S = maps()[name]
    assert pooling.lse_pool(torch.tensor(S), r).item() == pytest.approx(
        float(naive_lse(S, r)), rel=2e-5, abs=1e-6 * max(1.0, float(np.abs(S).max()))
    )


def test_limits_are_mean_and_max():
    S = torch.rand(3, 14, 7, 9)
    torch.testing.assert_close(pooling.lse_pool(S, 0.0), pooling.mean_pool(S))
    torch.testing.assert_close(pooling.lse_pool(S, math.inf), pooling.max_pool(S))
    torch.testing.assert_close(pooling.lse_pool(S, 1e6), pooling.max_pool(S), atol=1e-5, rtol=0)


def test_monotone_in_r_and_bounded():
    S = torch.rand(5, 6, 6)
    p = torch.stack([pooling.lse_pool(S, r) for r in RS])
    assert (p.diff(dim=0) >= -1e-6).all()
    for r in RS[4:]:
        pooled = pooling.lse_pool(S, r)
        assert (pooled >= S.amax((-2, -1)) - math.log(36) / r - 1e-5).all()


def test_gradient_is_the_softmax():
    for r in (1e-3, 0.5, 5.0, 100.0):
        S = torch.rand(2, 5, 5, requires_grad=True)
        (gradient,) = torch.autograd.grad(pooling.lse_pool(S, r).sum(), S)
        expected = (r * S).flatten(1).softmax(dim=1).view_as(S)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("r", [1e-3, 0.5, 5.0, 50.0])
def test_gradients_of_first_and_second_order(r):
    S = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    sharpness = torch.full((2,), r, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pooling.lse_pool, (S, sharpness), atol=1e-6)
    assert torch.autograd.gradgradcheck(pooling.lse_pool, (S, sharpness), atol=1e-4)


@pytest.mark.parametrize("r", RS)
def test_gradients_are_finite(r):
    for S in map(torch.tensor, maps().values()):
        S.requires_grad_()
        sharpness = torch.tensor(float(r), requires_grad=True)
        pooling.lse_pool(S, sharpness).backward()
        assert torch.isfinite(S.grad).all()
        assert torch.isfinite(sharpness.grad)
        assert S.grad.sum().item() == pytest.approx(1, abs=1e-3)


def probabilities():
    return {name: S for name, S in maps().items() if S.min() >= 0 and S.max() <= 1}


@pytest.mark.parametrize("r0", RS)
@pytest.mark.parametrize("name", probabilities())
def test_bounded_pooling_equals_the_formula(name, r0):
    S, beta = torch.tensor(probabilities()[name]), torch.tensor(-1.0)
    r = torch.tensor(r0 + math.exp(-1), dtype=torch.float32).item()
    pooled = pooling.lse_lba_pool(S, r0, beta)
    assert pooled.item() == pytest.approx(float(naive_lse(S, r)), rel=3e-6)


@pytest.mark.parametrize("r0", [0.0, 5.0, 50.0, 1000.0])
def test_gradients_of_bounded_pooling(r0):
    S = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    beta = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def pool(S, beta):
        return pooling.lse_lba_pool(S, r0, beta)

    # The first gradient comes from the forward pass, a second one is computed anew.
    assert torch.autograd.gradcheck(pool, (S, beta), atol=1e-6, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(pool, (S, beta), atol=1e-4)


def test_a_graph_that_is_kept_gives_the_same_gradient_twice():
    S = torch.rand(4, 3, 8, 8, requires_grad=True)
    p = pooling.lse_lba_pool(S, 5.0, torch.tensor(0.0)).sum()
    first, second = (torch.autograd.grad(p, S, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, (6 * S).flatten(2).softmax(2).view_as(S))


@pytest.mark.parametrize("level", [-40.0, -12.0, 0.0, 12.0, 40.0])
@pytest.mark.parametrize("r", [0.5, 5.0, 50.0, 1000.0])
def test_log_odds_and_their_gradient_at_every_level(level, r):
    logits = (torch.randn(2, 3, 9, 9) + level).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    # At the level where float64 rounds too, the odds of small maps: 1 - p = -lse(-(1 - S)).
    p, q = pooling.lse_pool(exact.sigmoid(), r), -pooling.lse_pool(-(-exact).sigmoid(), r)
    of_exact = p.log() - q.log()
    odds = pooling.lse_log_odds(logits, r)
    torch.testing.assert_close(odds, of_exact.float(), atol=1e-3, rtol=1e-4)
    (gradient,) = torch.autograd.grad(odds.sum(), logits)
    (expected,) = torch.autograd.grad(of_exact.sum(), exact)
    torch.testing.assert_close(gradient, expected.float(), atol=2e-3, rtol=2e-3)


def test_perfect_nodule_needs_a_sharp_pool():
    """A perfect map of a nodule's median area pools to 0.104 at r = 5: the ceiling effect."""
    area = 0.0046
    S = torch.zeros(100, 100)
    S.view(-1)[: round(area * S.numel())] = 1
    assert pooling.lse_pool(S, 5.0).item() == pytest.approx(
        math.log(1 + area * (math.exp(5) - 1)) / 5, rel=1e-4
    )


@pytest.mark.parametrize("r", [0.5, 5.0, 100.0])
def test_log_odds_equal_those_of_the_pooled_probability(r):
    logits = torch.randn(4, 14, 8, 8) * 2
    p = pooling.lse_pool(logits.double().sigmoid(), r)
    torch.testing.assert_close(
        pooling.lse_log_odds(logits, r), (p.log() - (-p).log1p()).float(), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("level", [-100.0, -30.0, 30.0, 80.0])
def test_log_odds_stay_finite_where_probabilities_round(level):
    logits = torch.full((1, 8, 8), level, requires_grad=True)
    odds = pooling.lse_log_odds(logits, 5.0)
    odds.sum().backward()
    assert torch.isfinite(odds).all() and torch.isfinite(logits.grad).all()
    assert odds.item() == pytest.approx(level, rel=0.15)


def test_float32_under_autocast():
    S = torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p = pooling.lse_pool(S.bfloat16(), 5.0)
    assert p.dtype == torch.float32
    torch.testing.assert_close(p, pooling.lse_pool(S.bfloat16().float(), 5.0))


def test_modules_are_the_functions():
    S = torch.rand(2, 14, 8, 8)
    assert torch.equal(pooling.MeanPool()(S), pooling.mean_pool(S))
    assert torch.equal(pooling.MaxPool()(S), pooling.max_pool(S))
    assert torch.equal(pooling.LSEPool(3.0)(S), pooling.lse_pool(S, 3.0))
    shared, per_finding = pooling.LSELBAPool(4.0), pooling.LSELBAPool(4.0, (14,))
    torch.testing.assert_close(shared(S), pooling.lse_pool(S, 5.0))
    assert torch.equal(per_finding(S), shared(S))
    assert shared.r.item() == 5.0


@pytest.mark.parametrize("r", [-1.0, math.nan])
def test_impossible_sharpness_is_refused(r):
    with pytest.raises(ValueError, match="0 to infinity"):
        pooling.lse_pool(torch.rand(2, 2), r)
    with pytest.raises(ValueError, match="sharpness prior"):
        pooling.LSELBAPool(r)
