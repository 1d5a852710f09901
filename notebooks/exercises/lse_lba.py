# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises: LSE-LBA
#
# After these exercises you can say what log-sum-exp pooling does between the mean and the maximum, who learns from
# it and how fast, why its sharpness is bounded from below the way it is, and why a perfect map of a nodule may have a
# probability of one tenth. At the end you design a pooling of your own.
#
# *You should have read {doc}`../lse_lba`. About 75 minutes. Each exercise stands alone: write the function, run the cell below it,
# which says what is wrong or that you have passed, and compare the figure.*

# %%
import matplotlib.pyplot as plt
import torch

from cxrlib.figures import COLOURS


def random_maps(seed, *shape):
    """Maps of probabilities (..., h, w)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# %% [markdown]
# ## 1. Between the mean and the maximum
#
# *Recall, 10 minutes.*
#
# Write `lse(S, r)`: log-sum-exp pooling of maps $S$ of shape (..., h, w), probabilities from 0 to 1, with a sharpness $r > 0$, to
# (...) numbers:
#
# $$p = \frac{1}{r} \log \Big[ \frac{1}{wh} \sum_{ij} e^{r S_{ij}} \Big].$$
#
# Any $r$ up to 10,000 must work, although $e^{10000}$ is more than a computer's number can hold.
# `torch.logsumexp` helps.


# %% tags=["solution", "hide-cell"]
def lse(S, r):
    """Log-sum-exp pooling, (..., h, w) -> (...)."""
    # solution
    places = S.shape[-2] * S.shape[-1]
    return (torch.logsumexp(r * S, dim=(-2, -1)) - torch.log(torch.tensor(places))) / r


# %% tags=["check", "hide-input"]
for seed in range(5):
    S = random_maps(seed, 3, 2, 6, 7 + seed)
    mean, highest = S.mean((-2, -1)), S.amax((-2, -1))
    p = {r: lse(S, r) for r in (1e-4, 0.5, 5, 50, 10_000)}
    assert p[5].shape == (3, 2), f"maps {tuple(S.shape)} became {tuple(p[5].shape)}, not (3, 2)"
    assert all(torch.isfinite(of).all() for of in p.values()), "infinite or NaN at some r"
    assert (p[1e-4] - mean).abs().max() < 1e-3, "at r = 0.0001 it must be the mean, nearly"
    assert (p[10_000] - highest).abs().max() < 1e-3, "at r = 10000 it must be the maximum, nearly"
    values = torch.stack(list(p.values()))
    assert (values.diff(dim=0) > 0).all(), "a larger r must give a larger p"
    naive = torch.exp(5 * S).mean((-2, -1)).log() / 5
    assert torch.allclose(p[5], naive), "at r = 5 the formula itself gives something else"
    mirrored, doubled = S.flip(-1), torch.cat([S, S], dim=-1)
    assert torch.allclose(lse(mirrored, 5), p[5]), "mirroring a map must not change p"
    assert torch.allclose(lse(doubled, 5), p[5]), "a map beside its copy must have the same p"
print("exercise 1: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Line chart: the pooled probability of one random map rises with the sharpness r from 0.01 to 1000, from the dashed line of its mean to the dashed line of its maximum."}}
S = random_maps(0, 12, 12) ** 3
rs = torch.logspace(-2, 3, 60).tolist()
figure, axis = plt.subplots(figsize=(5.2, 2.8), layout="constrained")
axis.plot(rs, [float(lse(S, r)) for r in rs], color=COLOURS[0], label="log-sum-exp")
axis.axhline(S.mean(), color=COLOURS[1], linestyle="--", label="mean")
axis.axhline(S.max(), color=COLOURS[2], linestyle="--", label="maximum")
axis.set(xscale="log", xlabel="sharpness r", ylabel="pooled probability p")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 2. Who learns?
#
# *Apply, 10 minutes.*
#
# A place learns as much as $p$ changes with it. Write `shares(S, r)`: the derivatives $\partial p / \partial S_{ij}$ of
# log-sum-exp pooling for maps of shape (..., h, w), in the same shape, from a formula and not with autograd. Then look at what you
# have found: what do the shares of a map add up to, and what does $r$ do to them?


# %% tags=["solution", "hide-cell"]
def shares(S, r):
    """The derivative of the pooled value with respect to every place, (..., h, w) -> (..., h, w)."""
    # solution
    return torch.softmax(r * S.flatten(-2), dim=-1).view(S.shape)


# %% tags=["check", "hide-input"]
for seed in range(5):
    S = random_maps(seed, 2, 3, 5, 4 + seed)
    for r in (0.1, 3.0, 20.0):
        given = shares(S, r)
        assert given.shape == S.shape, f"shape {tuple(given.shape)}, expected {tuple(S.shape)}"
        total = given.sum((-2, -1))
        assert torch.allclose(total, torch.ones_like(total)), (
            f"the shares of a map at r = {r} add up to {total[0, 0]:.3f}; raising all places by a "
            "little raises p by as much, so what must they add up to?"
        )
        leaf = S.clone().requires_grad_()
        (leaf.mul(r).exp().mean((-2, -1)).log() / r).sum().backward()
        assert torch.allclose(given, leaf.grad), f"autograd gives other derivatives at r = {r}"
    flat = shares(torch.full((1, 4, 4), 0.7), 1e4)
    assert torch.allclose(flat, torch.tensor(1 / 16)), "places alike must share alike, at any r"
print("exercise 2: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Four small images: a map with a strong and a weak spot, then the share of every place in the gradient at r = 1, 8 and 40: first nearly even, then both spots, then the strong spot alone."}}
x, y = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy")
strong = 0.9 * torch.exp(-((x + 0.4) ** 2 + (y + 0.3) ** 2) / 0.05)
weak = 0.7 * torch.exp(-((x - 0.4) ** 2 + (y - 0.3) ** 2) / 0.05)
S = torch.maximum(strong, weak)
figure, axes = plt.subplots(1, 4, figsize=(6.4, 2.1), layout="constrained")
axes[0].imshow(S, cmap="magma", vmin=0, vmax=1)
axes[0].set_title("map S", fontsize=9)
for axis, r in zip(axes[1:], (1, 8, 40), strict=True):
    share = shares(S, r)
    axis.imshow(share / share.max(), cmap="viridis", vmin=0, vmax=1)
    axis.set_title(f"r = {r}: {share[x > 0].sum():.0%}\nfor the weak half", fontsize=9)
for axis in axes:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## 3. A bound that still learns
#
# *Apply, 15 minutes.*
#
# The network may choose its sharpness, but not below $r_0$. Write `sharpness(beta, r0)`, which makes $r$ from any number
# $\beta$ (a tensor, trained by gradient descent) and a fixed $r_0 \ge 0$. Three things are asked of it. No $\beta$ gives an $r$ below
# $r_0$, and $r$ is above 0. Every $\beta$ from -10 to 10 can still learn: the derivative is not zero. And any $r$ above $r_0$ can be reached.
# The paper's answer is one line. Before you write it, ask why $r_0 + \beta$ and $\max(\beta, r_0)$ will not do.


# %% tags=["solution", "hide-cell"]
def sharpness(beta, r0):
    """The sharpness r of the pooling, never below r0."""
    # solution
    return r0 + torch.exp(beta)


# %% tags=["check", "hide-input"]
for r0 in (0.5, 5.0, 20.0, 0.0):
    beta = torch.linspace(-10, 10, 201, dtype=torch.float64, requires_grad=True)
    r = sharpness(beta, r0)
    lowest = r.min().item()
    assert lowest >= r0, f"with r0 = {r0} the sharpness fell to {lowest:.3g}"
    assert lowest > 0, "with r0 = 0 the sharpness fell to 0, where the formula divides by it"
    (slope,) = torch.autograd.grad(r.sum(), beta)
    dead = beta[slope == 0]
    assert not len(dead), f"with r0 = {r0}, beta = {dead[0]:.1f} gets no gradient and stays there"
    assert r.max() > r0 + 9, f"with r0 = {r0} no r above {r.max():.3g} can be reached"
    assert lowest < r0 + 0.1, f"with r0 = {r0} no r below {lowest:.3g} can be reached"
print("exercise 3: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Line chart of the sharpness r over 150 training steps that all push it down: the three curves, for r0 of 0, 2 and 5, fall and level off at their dashed lower bounds."}}
wanted_blurred = torch.zeros(16, 16)
wanted_blurred[:4, :4] = 1  # the mean is 1/16, and the label says: no finding
figure, axis = plt.subplots(figsize=(5.2, 2.8), layout="constrained")
for r0, colour in zip((0.0, 2.0, 5.0), COLOURS, strict=False):
    beta, path = torch.tensor(1.5, requires_grad=True), []
    for _ in range(150):
        r = sharpness(beta, r0)
        p = torch.exp(r * wanted_blurred).mean().log() / r
        (slope,) = torch.autograd.grad(-torch.log(1 - p), beta)
        path.append(float(r.detach()))
        beta = (beta - 0.5 * slope).detach().requires_grad_()
    axis.plot(path, color=colour, label=f"$r_0$ = {r0:g}")
    axis.axhline(r0, color=colour, linestyle="--", linewidth=0.8)
axis.set(xlabel="step that makes p smaller", ylabel="sharpness r", ylim=(-0.3, None))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4. How much must light up?
#
# *Analyse, 20 minutes.*
#
# Take a map of zeros and ones. Write `lit(p, r)`: which share of its places must be 1 so that log-sum-exp pooling with
# sharpness $r > 0$ gives $p$, for $0 < p < 1$? Solve the formula for it; mind large $r$ again.
#
# Then use it. A nodule covers about half a percent of an image. At $r = 5$, how far beyond the nodule must a network light up to say $p = 0.9$?
# Which $r$ would let a perfect map of a nodule say $p = 0.5$? And why does a probability below 0.5 do no harm when methods are compared by
# their AUROC?


# %% tags=["solution", "hide-cell"]
def lit(p, r):
    """Share of ones that a map of zeros and ones needs to pool to p at sharpness r."""
    # solution
    # p = log(1 + a (e^r - 1)) / r, so a = (e^(r p) - 1) / (e^r - 1); both are divided by e^r.
    p, r = torch.as_tensor(p, dtype=torch.float64), torch.as_tensor(r, dtype=torch.float64)
    return torch.exp(r * (p - 1)) * torch.expm1(-r * p) / torch.expm1(-r)


# %% tags=["check", "hide-input"]
import math

for r in (0.2, 1.0, 5.0, 30.0):
    for p in (0.05, 0.3, 0.5, 0.9):
        a = float(lit(p, r))
        assert 0 < a < 1, f"lit({p}, {r}) = {a:.3g} is no share"
        pooled = math.log((1 - a) + a * math.exp(r)) / r
        assert abs(pooled - p) < 1e-6, (
            f"a map with a share lit({p}, {r}) = {a:.4g} pools to {pooled:.4g}"
        )
near_mean = float(lit(0.3, 1e-4))
assert abs(near_mean - 0.3) < 1e-3, (
    f"near r = 0, where p is the mean, lit(0.3, r) = {near_mean:.4g}"
)
assert 0 <= float(lit(0.9, 5000.0)) < 1e-9, "at r = 5000 next to nothing needs to light up"
shrinks = [float(lit(0.5, r)) for r in (1, 3, 10, 30, 100)]
assert shrinks == sorted(shrinks, reverse=True), "a sharper pooling must need fewer ones"
for r in (1.0, 5.0, 10.0):  # a + b e^r with a + b = 1, and half of it in the exponent
    assert math.isclose(lit(0.5, r), 1 / (1 + math.exp(r / 2))), (
        "for p = 0.5 it is 1 / (1 + e^(r/2))"
    )
print("exercise 4: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Line chart on a logarithmic scale: the share of a map that must light up falls with the sharpness r, for p = 0.5 and p = 0.9; dotted lines mark the areas of a nodule, a mass and an enlarged heart."}}
rs = torch.linspace(0.5, 30, 100).tolist()
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for p, colour in zip((0.5, 0.9), COLOURS, strict=False):
    axis.plot(rs, [float(lit(p, r)) for r in rs], color=colour, label=f"to say p = {p}")
for name, area in {"nodule": 0.0046, "mass": 0.0148, "enlarged heart": 0.1709}.items():
    axis.axhline(area, color="0.5", linestyle=":", linewidth=1)
    axis.text(30, area * 1.1, name, ha="right", fontsize=8)
axis.set(yscale="log", ylim=(1e-3, 1), xlabel="sharpness r", ylabel="share that must light up")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 5. A pooling of your own
#
# *Open, 20 minutes.*
#
# Maps are noisy. The next lines draw 24 × 24 maps with a grey level of their own, noise, and a few *speckles*, single
# places that are bright for no reason; half of the maps also have a *finding*, a disc that is fainter than the brightest speckles.
# The maximum believes the speckles, the mean misses small discs.
#
# Design `pool(S)`, maps (n, h, w) to (n,) numbers, that tells maps with a disc from maps without. It may not look at labels. Its value
# lies between the lowest and the highest value of the map, and never falls when a place gets brighter, so that a network can be trained with it.
# The bar is log-sum-exp at whatever $r$ suits it best: over discs of radius 2, 4 and 8, your mean AUROC must be better by 0.05.


# %%
def toy(radius, seed, n=200, side=24):
    """Maps (n, side, side), and which of them have a disc (n,)."""
    chance = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    level, brightness = torch.rand(2, n, 1, 1, generator=chance)
    noise = 0.05 * torch.randn(n, side, side, generator=chance)
    place = radius + torch.rand(2, n, 1, 1, generator=chance) * (side - 2 * radius)
    inside = (rows - place[0]) ** 2 + (columns - place[1]) ** 2 <= radius**2
    label = torch.arange(n) % 2 == 0
    S = (
        torch.where(inside & label[:, None, None], 0.45 + 0.3 * brightness, 0.1 + 0.2 * level)
        + noise
    )
    speckles = torch.rand(n, side, side, generator=chance) < 0.004
    bright = 0.5 + 0.5 * torch.rand(n, side, side, generator=chance)
    return torch.where(speckles, bright, S).clamp(0, 1), label


def auroc(p, label):
    """Share of pairs, one map with and one without a disc, that p puts in the right order."""
    difference = p[label][:, None] - p[~label]
    return float(((difference > 0).double() + 0.5 * (difference == 0)).mean())


def mean_auroc(pooling, seeds=range(2)):
    """Over discs of radius 2, 4 and 8."""
    scores = []
    for radius in (2, 4, 8):
        for seed in seeds:
            S, label = toy(radius, seed)
            scores.append(auroc(pooling(S), label))
    return sum(scores) / len(scores)


def log_sum_exp(r):
    """The pooling to beat."""
    return lambda S: torch.exp(r * S.double()).mean((-2, -1)).log() / r


# %% tags=["solution", "hide-cell"]
def pool(S):
    """A pooling that a few bright places do not fool, (n, h, w) -> (n,)."""
    # solution
    # A finding is more than one place wide: average each place with its neighbours, and take the
    # mean of the highest 2 % of what is left.
    smooth = torch.nn.functional.avg_pool2d(S[:, None], 3, stride=1, padding=0).flatten(1)
    return smooth.topk(max(1, smooth.shape[1] // 50)).values.mean(1)


# %% tags=["check", "hide-input"]
for seed, side in enumerate((12, 24, 31)):
    S = random_maps(seed, 4, side, side)
    p = pool(S)
    assert p.shape == (4,), f"maps {tuple(S.shape)} became {tuple(p.shape)}, not (4,)"
    low, high = S.amin((-2, -1)) - 1e-9, S.amax((-2, -1)) + 1e-9
    assert ((low <= p) & (p <= high)).all(), "it must lie between the lowest and the highest value"
    flat = pool(torch.full((1, side, side), 0.3))
    assert torch.isclose(flat, torch.tensor(0.3)).all(), (
        f"a map of 0.3 everywhere gives {float(flat[0]):.3f}"
    )
    more = S + (1 - S) * (random_maps(seed + 9, 4, side, side) < 0.3)
    assert (pool(more) >= p - 1e-9).all(), "it fell although places only got brighter"
    leaf = S.clone().requires_grad_()
    pool(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0, "nothing can learn from it"
unseen = range(10, 14)
best = max(mean_auroc(log_sum_exp(r), unseen) for r in (1, 2, 5, 10, 20))
yours = mean_auroc(pool, unseen)
assert yours > best + 0.05, (
    f"your mean AUROC is {yours:.3f}, log-sum-exp reaches {best:.3f}; {best + 0.05:.3f} is the bar"
)
print("exercise 5: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Two noisy maps, one with a faint disc and one without, and a line chart of AUROC against the disc's radius: your pooling lies above log-sum-exp, mean and maximum at every radius."}}
poolings = {"yours": pool, "log-sum-exp, r = 5": log_sum_exp(5)}
poolings |= {"mean": lambda S: S.mean((-2, -1)), "maximum": lambda S: S.amax((-2, -1))}
radii = (2, 3, 4, 6, 8)
figure, axes = plt.subplots(
    1, 3, figsize=(6.4, 2.4), width_ratios=(1, 1, 2.2), layout="constrained"
)
for axis, S, name in zip(axes, toy(4, 0)[0], ("with a disc", "without"), strict=False):
    axis.imshow(S, cmap="gray", vmin=0, vmax=1)
    axis.set_title(name, fontsize=9)
    axis.set_axis_off()
for (name, pooling), mark in zip(poolings.items(), "os^v", strict=True):
    scores = [auroc(pooling(S), label) for S, label in (toy(radius, 0) for radius in radii)]
    axes[2].plot(
        radii, scores, f"{mark}-", color=COLOURS["os^v".index(mark)], markersize=4, label=name
    )
axes[2].set(xlabel="radius of the disc", ylabel="AUROC", ylim=(0.4, 1.02))
axes[2].legend(frameon=False, fontsize=7)
plt.show()

# %% [markdown]
# ## Quiz
#
# Open an answer to see whether it is right, and why.

# %% tags=["remove-input", "quiz"]
from cxrlib.quiz import display_quiz

display_quiz(
    [
        {
            "question": "A network is trained with mean pooling ($r \\to 0$). What must it do to say $p = 0.9$ for a small nodule?",
            "answers": [
                {
                    "answer": "Mark the nodule with very high values.",
                    "correct": False,
                    "feedback": "Values end at 1. A perfect map of a nodule has the mean 0.005.",
                },
                {
                    "answer": "Light up most of the image.",
                    "correct": True,
                    "feedback": "The mean is 0.9 only if nine tenths of the map are lit, nodule or not. This is why such maps are washed out.",
                },
                {
                    "answer": "Mark one place with 0.9.",
                    "correct": False,
                    "feedback": "That is enough for the maximum, the other end of log-sum-exp.",
                },
            ],
        },
        {
            "question": "What do the derivatives $\\partial p / \\partial S_{ij}$ of log-sum-exp pooling add up to over a map?",
            "answers": [
                {
                    "answer": "To 1, whatever $r$ is.",
                    "correct": True,
                    "feedback": "They are a softmax of $r S$. The sharpness deals out the shares, it does not make more of them.",
                },
                {
                    "answer": "To $r$.",
                    "correct": False,
                    "feedback": "The factor $r$ of the inner derivative is cancelled by the $1/r$ in front.",
                },
                {
                    "answer": "To $p$.",
                    "correct": False,
                    "feedback": "Raise every place by a little: $p$ rises by just as much, whatever $p$ was.",
                },
            ],
        },
        {
            "question": "Why $r = r_0 + e^\\beta$ and not $r = \\max(r_0, \\beta)$?",
            "answers": [
                {
                    "answer": "The exponential makes training faster.",
                    "correct": False,
                    "feedback": "Near the bound it makes it slower: the derivative is $e^\\beta$, which is small there.",
                },
                {
                    "answer": "The maximum can fall below $r_0$.",
                    "correct": False,
                    "feedback": "It cannot. Look at its derivative instead.",
                },
                {
                    "answer": "Below the bound, the maximum has no gradient.",
                    "correct": True,
                    "feedback": "Once $\\beta < r_0$, nothing would ever move it again. The exponential respects the bound and still learns.",
                },
            ],
        },
        {
            "question": "A perfect map of a nodule is pooled to $p = 0.10$ at $r = 5$. Is that a mistake?",
            "answers": [
                {
                    "answer": "Yes, a perfect map must give a probability near 1.",
                    "correct": False,
                    "feedback": "At $r = 5$ only a map that is lit far beyond the nodule can give that.",
                },
                {
                    "answer": "No, as long as images without a nodule get less.",
                    "correct": True,
                    "feedback": "AUROC compares images by rank and uses no threshold. The number is no calibrated probability, though, and must not be read as one.",
                },
                {
                    "answer": "No, because the label of the image is wrong.",
                    "correct": False,
                    "feedback": "The label is right, and so is the map. It is the pooling that has a ceiling.",
                },
            ],
        },
        {
            "question": "You raise $r_0$ from 5 to 20. What do you expect of a large, diffuse finding?",
            "answers": [
                {
                    "answer": "A map of a few points.",
                    "correct": True,
                    "feedback": "The brightest places get nearly all of the gradient, so the rest of the finding need not light up. The chapter shows the Dice of an enlarged heart falling.",
                },
                {
                    "answer": "A map that covers it better.",
                    "correct": False,
                    "feedback": "That is what a small $r_0$ does: more places are needed for the same $p$.",
                },
                {
                    "answer": "The same map, since $r$ only changes $p$.",
                    "correct": False,
                    "feedback": "The pooling decides who learns, and so what the map becomes.",
                },
            ],
        },
    ]
)
