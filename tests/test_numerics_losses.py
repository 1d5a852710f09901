"""Losses beside plain float64 formulas, over extreme values and in every precision."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from test_numerics import DTYPES, check, inputs
from torch.nn import functional as F

from cxrlib import losses, pooling
from cxrlib.models import attention_mining, clarity_losses, ham_losses
from cxrlib.models.mining_network import Response


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_no_pooling_and_no_loss(dtype):
    """Within autocast every number is what it is without."""
    torch.manual_seed(0)
    S, x = torch.rand(2, 3, 8, 8).to(dtype), (3 * torch.randn(2, 3, 8, 8)).to(dtype)
    y = torch.tensor([[1.0, 0.0, math.nan], [0.0, 1.0, 1.0]])
    T, teacher = torch.randn(2, 3, 16).to(dtype), torch.randn(2, 3)
    near = [Response(a[:, 0], a[:, 1], a) for a in (T, T + 0.1)]
    beta = torch.tensor(0.3)

    def everything():
        return [
            pooling.mean_pool(S),
            pooling.max_pool(S),
            pooling.lse_pool(S, 5.0),
            pooling.lse_lba_pool(S, 5.0, beta),
            pooling.lse_log_odds(x, 5.0),
            pooling.lse_log_odds(x, 500.0),
            pooling.noisy_or_log_odds(x),
            losses.multilabel_cross_entropy(x[..., 0, 0], y),
            clarity_losses.orthogonal_loss(T),
            clarity_losses.distillation_loss(x[..., 0, 0], teacher, 2.0),
            clarity_losses.foreground_loss(x[:, :1], S[:, :1]),
            clarity_losses.suppression_loss(x, x[:, :1]),
            ham_losses.bounded_loss(2 * S, S[:, :1], y == 1),
            ham_losses.union_loss(S, 2 * S[:, :1], y == 1),
            ham_losses.box_loss(S[0], S[1] > 0.5, torch.tensor([1, 1, 5])),
            attention_mining.distance(*near, "both"),
        ]

    plain = everything()
    with torch.autocast("cpu", torch.bfloat16):
        within = everything()
    for one, other in zip(plain[:-1], within[:-1], strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)
    assert within[-1].dtype == torch.float32


LOGITS = [-1e4, -100.0, -16.5, -1e-3, 0.0, 1e-3, 16.5, 100.0, 1e4]


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy(dtype):
    values = np.repeat(LOGITS, 3).reshape(9, 3)
    x, exact = inputs(values, dtype)
    y = np.tile([0.0, 1.0, np.nan], (9, 1))
    each = y * np.logaddexp(0, -exact) + (1 - y) * np.logaddexp(0, exact)
    loss = losses.multilabel_cross_entropy(x, torch.tensor(y))
    check(loss, np.nanmean(each), dtype)
    (gradient,) = torch.autograd.grad(loss, x)
    expected = np.nan_to_num(expit(exact) - y) / 18
    # Half precision stores the gradient of one of 18 labels to 3 digits.
    np.testing.assert_allclose(gradient.double().numpy(), expected, rtol=0.01, atol=1e-6)
    unknown = losses.multilabel_cross_entropy(x, torch.full((9, 3), math.nan))
    (gradient,) = torch.autograd.grad(unknown, x)
    assert unknown == 0 and (gradient == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [1e-2, 1.0, 1e3])
def test_distillation(dtype, temperature):
    pairs = np.array([(s, t) for s in LOGITS for t in LOGITS])
    s, exact_s = inputs(pairs[:, :1], dtype)
    t, exact_t = inputs(pairs[:, 1:], dtype)
    a, b = exact_s / temperature, exact_t / temperature
    gain = expit(b) * (np.logaddexp(0, -a) - np.logaddexp(0, -b))
    gain = gain + expit(-b) * (np.logaddexp(0, a) - np.logaddexp(0, b))
    loss = clarity_losses.distillation_loss(s, t.detach(), temperature)
    check(loss, temperature**2 * gain.mean(), dtype)
    (gradient,) = torch.autograd.grad(loss, s)
    expected = temperature * (expit(a) - expit(b)) / len(pairs)
    np.testing.assert_allclose(gradient.double().numpy(), expected, rtol=0.01, atol=1e-4)
    nobody = clarity_losses.distillation_loss(s, torch.full_like(t, math.nan), temperature)
    assert nobody == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="finite number above 0"):
        clarity_losses.distillation_loss(torch.zeros(1, 1), torch.zeros(1, 1), temperature)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonal_tokens(dtype, scale):
    rng = np.random.default_rng(0)
    T, exact = inputs(scale * rng.normal(size=(2, 4, 6)), dtype)
    unit = exact / np.linalg.norm(exact, axis=-1, keepdims=True)
    cosines = [(t[i] @ t[j]) ** 2 for t in unit for i in range(4) for j in range(4) if i != j]
    loss = clarity_losses.orthogonal_loss(T)
    check(loss, np.mean(cosines), dtype)
    (gradient,) = torch.autograd.grad(loss, T)
    assert gradient.isfinite().all()
    none = torch.zeros(1, 3, 4, requires_grad=True)
    clarity_losses.orthogonal_loss(none).backward()
    assert (none.grad == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_of_the_foreground(dtype):
    f, exact = inputs(np.tile(np.array(LOGITS), (9, 1))[None, None], dtype)
    S, exact_S = inputs(np.tile(np.array(LOGITS)[:, None], (1, 9))[None, None], dtype)
    prior = np.random.default_rng(0).random((1, 1, 18, 18)).round(1)
    cells = prior.reshape(9, 2, 9, 2).mean(axis=(1, 3))
    each = cells * np.logaddexp(0, -exact[0, 0]) + (1 - cells) * np.logaddexp(0, exact[0, 0])
    loss = clarity_losses.foreground_loss(f, torch.tensor(prior))
    check(loss, each.mean(), dtype)
    assert torch.autograd.grad(loss, f)[0].isfinite().all()
    loss = clarity_losses.suppression_loss(S, f)
    check(loss, (expit(exact_S) * expit(-exact)).mean(), dtype)
    (gradient,) = torch.autograd.grad(loss, S)
    expected = expit(exact_S) * expit(-exact_S) * expit(-exact) / 81
    np.testing.assert_allclose(gradient.double().numpy(), expected, rtol=0.01, atol=1e-6)


def share_outside(A, B, sigma=0.75):
    return 1 - (np.minimum(A, B) * expit(100 * (A - sigma))).sum() / A.sum() if A.sum() else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 60.0])
def test_losses_on_attention(dtype, scale):
    """Maps of the paper's size and larger: their sum is beyond float16."""
    rng = np.random.default_rng(0)
    A, exact = inputs(scale * rng.random((3, 4, 64, 64)), dtype)
    B, exact_B = inputs(scale * rng.random((3, 1, 64, 64)), dtype)
    positive = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    share = [[share_outside(exact[b, c], exact_B[b, 0]) for c in range(4)] for b in range(3)]
    bounded = ham_losses.bounded_loss(A, B, torch.tensor(positive))
    check(bounded, ((share[0][0] + share[1][0]) / 2 + share[0][1]) / 2, dtype)
    union = ham_losses.union_loss(A, B, torch.tensor(positive))
    unions = [exact[0, :2].max(0), exact[1, 0]]
    check(union, np.mean([share_outside(exact_B[b, 0], unions[b]) for b in range(2)]), dtype)
    for gradient in torch.autograd.grad(bounded + union, (A, B)):
        assert gradient.isfinite().all()
    only = torch.tensor([[True, True, False, False]])
    union = ham_losses.union_loss(A[:1], B[:1], only)
    check(union, share_outside(exact_B[0, 0], unions[0]), dtype)
    assert ham_losses.bounded_loss(0 * A, B, torch.tensor(positive)) == 0
    mass, beyond = ham_losses.masses(A, B)
    check(mass, exact.sum((2, 3)), dtype)
    check(beyond, np.maximum(exact - exact_B, 0).sum((2, 3)), dtype, rel=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_on_boxes(dtype):
    rng = np.random.default_rng(0)
    A, exact = inputs(rng.random((4, 300, 300)), dtype)
    A.data[3] = 0
    exact[3] = 0
    M = rng.random((4, 300, 300)) < 0.3
    M[3] = False
    terms = [((a - m) ** 2).sum() for a, m in zip(exact, M, strict=True)]
    sizes = [(a + m).sum() for a, m in zip(exact, M, strict=True)]
    expected = ((terms[0] + terms[1]) / (sizes[0] + sizes[1]) + terms[2] / sizes[2] + 0) / 3
    loss = ham_losses.box_loss(A, torch.tensor(M), torch.tensor([2, 2, 0, 9]))
    check(loss, expected, dtype)
    assert torch.autograd.grad(loss, A)[0].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("top", [1e-4, 1.0, 1e4, 6e4])
def test_rescaled_and_refined_maps(dtype, top):
    maps = np.stack([np.linspace(-top, top, 16).reshape(4, 4), np.full((4, 4), top)])
    maps, exact = inputs(maps[None], dtype)
    low, spread = exact[0, 0].min(), np.ptp(exact[0, 0])
    expected = [[(exact[0, 0] - low) / spread, np.zeros((4, 4))]]
    check(ham_losses.rescale(maps), expected, dtype)
    refined = ham_losses.refine(maps, (7, 7))
    large = F.interpolate(torch.tensor(exact), (7, 7), mode="bilinear", align_corners=True)
    large = (large.numpy()[0, 0] - low) / spread
    check(refined[0, 0], expit(100 * (large - 0.4)), dtype, abs=1e-4)
    if top >= 1:  # else the true gradient is beyond float16
        assert torch.autograd.grad(refined.sum(), maps)[0].isfinite().all()


def test_gradients_of_losses_are_those_of_the_functions():
    torch.manual_seed(0)
    x, s, S = (torch.randn(*shape).double() for shape in ((3, 4), (3, 4), (2, 3, 4, 4)))
    T, f = torch.randn(2, 3, 5).double(), torch.randn(2, 1, 4, 4).double()
    y = torch.tensor([[0, 1, math.nan, 1]] * 3)
    x, s, S, T, f = (tensor.requires_grad_() for tensor in (x, s, S, T, f))
    known = s.detach().where(~y.isnan(), math.nan)
    prior = torch.rand(1, 1, 8, 8).double()
    for function, arguments in (
        (lambda x: losses.multilabel_cross_entropy(x, y), (x,)),
        (lambda x: clarity_losses.distillation_loss(x, known, 2.0), (x,)),
        (clarity_losses.orthogonal_loss, (T,)),
        (lambda f: clarity_losses.foreground_loss(f, prior), (f,)),
        (lambda S: clarity_losses.suppression_loss(S, f), (S,)),
        (
            lambda a, b: attention_mining.distance(Response(a, a, a), Response(b, b, b), "both"),
            (x, s),
        ),
    ):
        assert torch.autograd.gradcheck(function, arguments)
