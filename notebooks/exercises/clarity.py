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
# # Exercises: CLARiTy
#
# After these exercises you can say what a token with a finding of its own looks at, join three maps into one without losing any of their votes, say what the orthogonality loss does to the angles between tokens and when it cannot
# reach 0, and measure what an anatomical prior makes impossible. Read {doc}`../clarity` first; as there, what is inside the parts is this book's reading of the paper.
#
# *Six exercises and a quiz, about two hours. Everything runs offline in seconds. A check tells you whether your function has the properties that it
# should have; many solutions pass.*

# %%
from itertools import product
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch

import cxrlib
from cxrlib.findings import FINDINGS
from cxrlib.models import figures_exercises_maps as figures
from cxrlib.phantom.controls import controls_of
from cxrlib.phantom.organs import organs
from cxrlib.phantom.population import render, render_some

# %% [markdown]
# ## 1. What a token looks at
#
# *Recall, 15 minutes.*
#
# Each finding has a token. With its query $q_c$ it asks all patches, whose keys are $k_1 \dots k_P$, and what it pays to patch $j$ is
#
# $$a_{cj} = \frac{\exp(q_c \cdot k_j / \sqrt d)}{\sum_{j'} \exp(q_c \cdot k_{j'} / \sqrt d)}.$$
#
# Write `attention(q, k)` for tensors `q` (C, d) and `k` (P, d); return (C, P). Queries may be long: $e^{1000}$ must not be infinite.
#
# Before you run the check: what happens to the attention if the same vector is added to all keys? And if a query is doubled?


# %% tags=["solution", "hide-cell"]
def attention(q, k):
    """What each token pays to each patch: (C, P), rows sum to 1."""
    # solution
    scores = q @ k.T / q.shape[1] ** 0.5
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return weights / weights.sum(1, keepdim=True)


# %% tags=["check", "hide-input"]
for seed in range(5):
    torch.manual_seed(seed)
    q, k = torch.randn(3, 16), torch.randn(20, 16)
    a = attention(q, k)
    assert a.shape == (3, 20), f"a row for each token was expected, (3, 20), not {tuple(a.shape)}"
    sums = a.sum(1)
    assert torch.allclose(sums, torch.ones(3), atol=1e-5), (
        f"each token's row sums to 1, not {sums.tolist()}"
    )
    for c in range(3):
        powers = [np.exp(float(q[c] @ key) / 4) for key in k]  # the definition; 4 is the root of 16
        slow = torch.tensor(powers) / sum(powers)
        gap = float((a[c] - slow).abs().max())
        assert gap < 1e-5, (
            f"token {c} pays up to {gap:.3f} otherwise than the formula, with the root of d = 16"
        )
    shifted = attention(q, k + torch.randn(16))
    assert torch.allclose(a, shifted, atol=1e-4), (
        "the same vector added to all keys changed the attention"
    )
    assert torch.allclose(attention(0 * q, k), torch.full((3, 20), 0.05)), (
        "a query of zeros has no preference"
    )
    order = torch.randperm(20)
    assert torch.allclose(attention(q, k[order]), a[:, order], atol=1e-6), (
        "patches in another order, attention in the same other order"
    )
    assert (attention(2 * q, k).amax(1) > a.amax(1)).all(), (
        "a query twice as long looks more sharply"
    )
    far = attention(1000 * q, k)
    assert far.isfinite().all(), (
        "long queries gave NaN or infinite values; subtract the largest score first"
    )
    assert (far.argmax(1) == a.argmax(1)).all() and (far.amax(1) > 0.99).all(), (
        "a very long query looks at one patch"
    )
print("exercise 1: passed")

# %% mystnb={"image": {"alt": "Four small maps: the attention of a token of the first kind of patch shows one square, that of the second kind another, that of one token for both shows both squares, and a query of zeros shows an even map."}} tags=["expected", "hide-input"]
torch.manual_seed(0)
first, second = torch.eye(16)[:2] * 4  # what two kinds of lesion look like
patches = 0.8 * torch.randn(16, 16, 16)
patches[3:7, 3:6] += first
patches[9:13, 10:14] += second
queries = torch.stack([first, second, first + second, 0 * first])
names = ["token of one", "token of the other", "one token for both", "no preference"]
paid = attention(queries, patches.flatten(0, 1)).view(4, 16, 16)
figures.panels({name: of.numpy() for name, of in zip(names, paid, strict=True)})
plt.show()

# %% [markdown]
# A single token for the whole image has to look at all that matters, and its map no longer says which finding is where. That is why each finding gets its own.

# %% [markdown]
# ## 2. Three votes on a cell
#
# *Apply, 20 minutes.*
#
# SegmentCAM's class map $S_c$ and foreground $F$ are log-odds, the attention $A_c$ sums to 1 over the $P$ cells of the map. The odds of a cell are the product of what the three say of it:
#
# $$\ell_{cj} = S_{cj} + \log \sigma(F_j) + \log (P A_{cj}).$$
#
# Write `joined(S, F, A)` for tensors `S` (C, h, w), `F` (h, w) and `A` (C, h, w); return $\ell$ (C, h, w). Where $P A_{cj}$ is below $10^{-6}$, take $10^{-6}$ instead. $F$ may be $-1000$: then $\sigma(F)$ is 0 to the computer, and its logarithm must
# nevertheless be $-1000$.
#
# Why $P A$ and not $A$? For which attention and which foreground is the result the class map?


# %% tags=["solution", "hide-cell"]
def joined(S, F, A):
    """Log-odds of each cell: class map, foreground and attention together."""
    # solution
    relative = A * A[0].numel()  # 1 where attention is even
    return S + torch.nn.functional.logsigmoid(F) + relative.clamp(min=1e-6).log()


# %% tags=["check", "hide-input"]
for seed in range(5):
    torch.manual_seed(seed)
    S, F = torch.randn(3, 4, 5), torch.randn(4, 5)
    A = torch.rand(3, 20).softmax(1).view(3, 4, 5)
    said = joined(S, F, A)
    assert said.shape == S.shape, f"log-odds (3, 4, 5) were expected, not {tuple(said.shape)}"
    even = torch.full((3, 4, 5), 1 / 20)
    plain = joined(S, torch.full((4, 5), 50.0), even)
    assert torch.allclose(plain, S, atol=1e-4), (
        "even attention over a sure foreground leaves the class map as it is"
    )
    odds = S.exp() * F.sigmoid() * 20 * A
    assert torch.allclose(said.exp(), odds, rtol=1e-3), "a cell's odds are exp(S) · σ(F) · P A"
    assert (joined(S, F + 1, A) > said).all(), "surer foreground, higher odds"
    assert (joined(S, F, A) <= S + (20 * A).log() + 1e-5).all(), "a foreground can only take away"
    background = joined(S, torch.full((4, 5), -1000.0), even)
    assert background.isfinite().all(), (
        "F = -1000 gave an infinite value: log σ(F) is not the log of a rounded σ"
    )
    assert torch.allclose(background, S - 1000), "log σ(-1000) is -1000"
    blind = joined(S, F, torch.zeros(3, 4, 5))
    assert blind.isfinite().all(), "attention of exactly 0 gave an infinite value"
    turned = joined(S.flip(0), F, A.flip(0)).flip(0)
    assert torch.allclose(turned, said), "findings in another order gave other maps"
print("exercise 2: passed")

# %%
pairs_of = {"cooccurrence": 0.0, "lesion_contrast": 4.0, "prevalence": 0.2}
images = render_some(range(120), 96, 1, controls_of(**pairs_of))
clarity = cxrlib.load_pretrained("clarity")


# %% mystnb={"image": {"alt": "A radiograph with a mass outlined, and the attention of the finding's token, the class map, the foreground, which shows lungs and heart, and the joined map, whose brightest cells are in the mass."}} tags=["expected", "hide-input"]
c = FINDINGS.index("Mass")
drawn = render(5, 96, seed=1, findings=["Mass"], lesion_contrast=4.0)
with torch.no_grad():
    seen = clarity.look(torch.tensor(drawn.pixels)[None, None] / 255)
S, F, A = seen.class_map[0], seen.foreground[0, 0], seen.attention[0]
maps = {
    "attention": A[c],
    "class map": S[c].sigmoid(),
    "foreground": F.sigmoid(),
    "joined": joined(S, F, A)[c].sigmoid(),
}
figures.panels({name: of.numpy() for name, of in maps.items()}, drawn.masks[c], drawn.pixels)
plt.show()

# %% [markdown]
# ## 3. What orthogonality does to angles
#
# *Apply, 20 minutes.*
#
# The tokens of two findings should not point the same way. Write `orthogonality(T)`, the mean squared cosine between two different tokens: `T` is a tensor (C, D), a token in each row, none of length 0; return a scalar tensor that autograd can
# differentiate, 0 for a single token:
#
# $$L = \frac{1}{C(C-1)} \lVert \hat T \hat T^\top - I \rVert_F^2, \qquad \hat T_c = T_c / \lVert T_c \rVert.$$
#
# For two tokens at the angle $\theta$ this is $\cos^2 \theta$. At which angles is its slope 0? Then say, before you look at the picture, what becomes of two tokens that start out exactly equal.


# %% tags=["solution", "hide-cell"]
def orthogonality(T):
    """The mean squared cosine between two different tokens, 0 to 1."""
    # solution
    C = len(T)
    unit = T / T.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    return (cosines - torch.eye(C)).square().sum() / max(C * (C - 1), 1)


# %% tags=["check", "hide-input"]
for seed in range(5):
    torch.manual_seed(seed)
    T = torch.randn(5, 7).requires_grad_()
    loss = orthogonality(T)
    assert loss.shape == (), f"one number was expected, not shape {tuple(loss.shape)}"
    squares = [
        float((T[c] @ T[b] / T[c].norm() / T[b].norm()).detach() ** 2)
        for c, b in product(range(5), repeat=2)
        if c != b
    ]
    assert abs(loss.item() - np.mean(squares)) < 1e-5, (
        f"the mean squared cosine is {np.mean(squares):.4f}, not {loss.item():.4f}"
    )
    longer = orthogonality(T * torch.tensor([[1.0], [3.0], [0.2], [1.0], [-1.0]]))
    assert torch.allclose(longer, loss, atol=1e-5), "only directions count, not lengths or signs"
    turn = torch.linalg.qr(torch.randn(7, 7))[0]
    assert torch.allclose(orthogonality(T @ turn), loss, atol=1e-5), (
        "all tokens turned alike have the same angles"
    )
    assert torch.allclose(orthogonality(T[[3, 1, 0, 2, 4]]), loss, atol=1e-6), (
        "the order of tokens does not matter"
    )
    (slope,) = torch.autograd.grad(loss, T)
    along = (slope * T).sum(1).abs().max()
    assert along < 1e-5, (
        f"the loss pulls along a token, by {along:.2g}; lengths should not matter to it"
    )
assert orthogonality(2 * torch.eye(6)[:4]) < 1e-7, "tokens at right angles: 0"
assert abs(orthogonality(torch.ones(3, 4)) - 1) < 1e-6, "equal tokens: 1"
assert orthogonality(torch.ones(1, 4)) == 0, "a single token has nobody to be at right angles to"
print("exercise 3: passed")

# %% mystnb={"image": {"alt": "Line chart of the angle between two tokens by step of gradient descent on the loss: from 2, 30, 100 and 170 degrees it tends to 90, slowly at first from 2; from 0 degrees it does not move."}} tags=["expected", "hide-input"]
curves = {}
for start in (0, 2, 30, 100, 170):
    radians = torch.tensor(start).deg2rad()
    T = torch.stack([torch.tensor([1.0, 0.0]), torch.stack([radians.cos(), radians.sin()])])
    T.requires_grad_()
    curves[f"from {start}°"] = angles = []
    for _ in range(41):
        unit = T.detach() / T.detach().norm(dim=1, keepdim=True)
        cross = float(unit[0, 0] * unit[1, 1] - unit[0, 1] * unit[1, 0])
        angles.append(float(np.degrees(np.arctan2(abs(cross), float(unit[0] @ unit[1])))))
        (slope,) = torch.autograd.grad(orthogonality(T), T)
        T = (T - 0.06 * slope).detach().requires_grad_()
figures.lines(
    range(41), curves, "step of gradient descent", "angle between two tokens", ylim=(-5, 180)
)
plt.show()

# %% [markdown]
# The slope is $-\sin 2\theta$: 0 at right angles, and 0 too where tokens are parallel, where the loss is highest. Equal tokens stay equal. This is why the network's tokens start with a little noise. The loss does not know opposite from equal, either.

# %% [markdown]
# ## 4. Too many tokens
#
# *Analyse, 25 minutes.*
#
# In $D$ dimensions at most $D$ tokens can be at right angles to each other. Fourteen findings have tokens of 384 numbers in the published network, and of 64 in this book's. What if there were fewer than 14? Write `least(C, D)`, the lowest value that the loss of
# exercise 3 can take for $C \ge 2$ tokens of $D \ge 1$ numbers.
#
# A hint: the Gram matrix $G = \hat T \hat T^\top$ has ones on its diagonal and at most $D$ eigenvalues that are not 0. What is the sum of these eigenvalues, what the sum of their squares, and when is the second least, given the first? That it can be reached is known
# (such tokens are a *unit-norm tight frame*), and the check tries it by gradient descent.


# %% tags=["solution", "hide-cell"]
def least(C, D):
    """The lowest mean squared cosine of C directions in D dimensions."""
    # solution
    # The eigenvalues sum to C. Their squares, which sum to ||G||^2, are least if D are equal, C / D.
    return max(C / D - 1, 0) / (C - 1)


# %% tags=["check", "hide-input"]
def squared_cosines(T):
    """The loss of exercise 3, of many sets of tokens (..., C, D)."""
    unit = T / T.norm(dim=-1, keepdim=True)
    G = unit @ unit.transpose(-2, -1)
    C = T.shape[-2]
    return (G.square().sum((-2, -1)) - C) / (C * (C - 1))


def descended(C, D, seed):
    """The lowest loss of four sets of random tokens after gradient descent."""
    torch.manual_seed(seed)
    T = torch.randn(4, C, D).requires_grad_()
    descent = torch.optim.Adam([T], 0.05)
    for _ in range(200):
        descent.zero_grad()
        squared_cosines(T).sum().backward()
        descent.step()
    return float(squared_cosines(T.detach()).min())


for C, D in ((2, 1), (2, 2), (3, 2), (5, 2), (5, 3), (8, 5), (14, 8), (14, 13), (14, 14), (6, 9)):
    bound = float(least(C, D))
    reached = descended(C, D, seed=C + D)
    assert bound <= reached + 1e-4, (
        f"{C} tokens in {D} dimensions have reached {reached:.4f}, below your least value {bound:.4f}"
    )
    assert reached - bound < 0.02 * bound + 2e-3, (
        f"{C} tokens in {D} dimensions reach {reached:.4f} at the lowest; yours says {bound:.4f}"
    )
for C in range(2, 20):
    assert least(C, 1) == 1, f"in one dimension all {C} tokens are parallel: 1, not {least(C, 1)}"
    assert least(C, C) == 0, (
        f"{C} tokens of {C} numbers can all be at right angles: 0, not {least(C, C)}"
    )
    assert least(C, C + 5) == 0, (
        f"{C} tokens of {C + 5} numbers can be at right angles: 0, not {least(C, C + 5)}"
    )
    assert least(C + 1, 3) >= least(C, 3) - 1e-12, "another token cannot make room"
print("exercise 4: passed")

# %% mystnb={"image": {"alt": "Line chart of the least loss of 14 tokens against their number of dimensions, falling from 1 at one to 0 at 14, with what gradient descent reached lying on it, and above it the loss of random tokens."}} tags=["expected", "hide-input"]
dimensions = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16)
torch.manual_seed(0)
curves = {
    "least value": [least(14, D) for D in dimensions],
    "after gradient descent": [descended(14, D, 0) for D in dimensions],
    "random tokens": [float(squared_cosines(torch.randn(200, 14, D)).mean()) for D in dimensions],
}
figures.lines(dimensions, curves, "numbers in a token", "loss of 14 tokens", ylim=(-0.03, 1.05))
plt.show()

# %% [markdown]
# Random directions have a mean squared cosine of $1 / D$. In 64 or 384 dimensions that is near 0 before anything has been learned, which may be why the loss made no difference in the chapter's study.

# %% [markdown]
# ## 5. What a prior forbids
#
# *Analyse, 20 minutes.*
#
# The foreground is taught an anatomical prior: findings are in lungs and heart, and what lies elsewhere is suppressed. A prior helps where it is right, and where it is wrong no training can help. Write `ceiling(lesion, prior)`: both are
# boolean arrays (h, w), the lesion is not empty; return the highest Dice that any region *within the prior* can have with the lesion,
#
# $$\operatorname{Dice}(R, L) = \frac{2 |R \cap L|}{|R| + |L|}, \qquad R \subseteq \text{prior}.$$
#
# Which region is the best one? What would a prior of the lungs alone cost, and which findings?


# %% tags=["solution", "hide-cell"]
def ceiling(lesion, prior):
    """The highest Dice with a lesion that a region within the prior can reach."""
    # solution
    allowed = (lesion & prior).sum()  # the best region is what of the lesion the prior allows
    return 2 * allowed / (allowed + lesion.sum())


# %% tags=["check", "hide-input"]
for seed in range(40):
    rng = np.random.default_rng(seed)
    lesion, prior = rng.random((2, 3, 3)) < 0.5
    lesion[1, 1] = True
    best = 0.0
    for chosen in product((False, True), repeat=9):  # every region there is
        R = np.reshape(chosen, (3, 3))
        if not (R & ~prior).any():
            best = max(best, 2 * (R & lesion).sum() / (R.sum() + lesion.sum()))
    said = ceiling(lesion, prior)
    assert np.isclose(said, best), (
        f"of all regions within the prior the best has Dice {best:.3f}; yours says {said:.3f}"
    )
for seed in range(10):
    rng = np.random.default_rng(seed)
    lesion, prior, more = rng.random((3, 20, 30)) < 0.3
    assert ceiling(lesion, lesion | prior) == 1, "a lesion within the prior can be found exactly: 1"
    assert ceiling(lesion, prior & ~lesion) == 0, "a lesion outside the prior cannot be found: 0"
    assert ceiling(lesion, prior) <= ceiling(lesion, prior | more), "a larger prior forbids less"
print("exercise 5: passed")

# %% mystnb={"image": {"alt": "Bars of the mean ceiling of six findings under a prior of the lungs alone and one of lungs and heart: with the heart nearly 1 for all, without it 0 for cardiomegaly, about 0.75 for edema and near 1 for effusion and mass."}} tags=["expected", "hide-input"]
shown = ("Cardiomegaly", "Edema", "Pneumonia", "Nodule", "Effusion", "Mass")
anatomy = [organs(index, 96, seed=1, **pairs_of) for index in range(60)]  # lungs and heart
groups = {"prior: lungs": {}, "prior: lungs and heart": {}}
for name in shown:
    c = FINDINGS.index(name)
    has = [
        (of.masks[c], parts) for of, parts in zip(images[:60], anatomy, strict=True) if of.labels[c]
    ]
    lungs, both = ([ceiling(L, parts[:n].any(0)) for L, parts in has] for n in (1, 2))
    for bars, values in zip(groups.values(), (lungs, both), strict=True):
        bars[name.replace("Cardio", "Cardio-\n").replace("Pneu", "Pneu-\n")] = np.mean(values)
figures.bars(groups, "highest possible Dice", ylim=(0, 1.1))
plt.show()

# %% [markdown]
# The picture explains the chapter's ablation: with the lungs alone as a prior the maps point worse. On radiographs the prior is itself a guess, and what lies outside it, such as a finding of the abdomen or of the bones, is lost as well.

# %% [markdown]
# ## 6. From evidence to a region
#
# *Open, 30 minutes.*
#
# For pairs of image and finding you get what the library's CLARiTy, trained on the phantom, sees: class maps `S` and foregrounds `F`, log-odds (P, 12, 12), attention `A` (P, 12, 12), which sums to 1, and the numbers `finding` (P,), 0 to 13. Write `regions(S, F, A, finding)`, which claims
# a region for every pair, boolean (P, 12, 12), none empty. Whatever you tune, tune it on `tuning`, where the truth is known: a tuple of `S`, `F`, `A`, `finding` and `truth`, how much of each cell is covered. The check scores other
# images.
#
# Your mean Dice should be higher than that of the attention from half of its maximum up, and than that of the class map from $p = 0.5$ up, by 0.03 or more. What does `tuning` know of a finding beside the place?


# %%
class Pairs(NamedTuple):
    """What the network sees of pairs of image and finding, and the truth."""

    S: np.ndarray  # (P, 12, 12) log-odds
    F: np.ndarray  # (P, 12, 12) log-odds
    A: np.ndarray  # (P, 12, 12), sums to 1
    finding: np.ndarray  # (P,)
    truth: np.ndarray  # (P, 12, 12), share of each cell that the finding covers


def pairs_among(some):
    """All pairs of some images."""
    with torch.no_grad():
        seen = clarity.look(torch.tensor(np.stack([of.pixels for of in some]))[:, None] / 255)
    image, finding = np.nonzero(np.stack([of.labels for of in some]))
    masks = np.stack([some[i].masks[c] for i, c in zip(image, finding, strict=True)])
    return Pairs(
        seen.class_map.numpy()[image, finding],
        seen.foreground.numpy()[image, 0],
        seen.attention.numpy()[image, finding],
        finding,
        masks.reshape(-1, 12, 8, 12, 8).mean((2, 4)),
    )


tuning, others = pairs_among(images[:60]), pairs_among(images[60:])  # no patient is in both


def half_of_attention(pairs):
    """The attention from half of its maximum up."""
    return pairs.A / pairs.A.max((1, 2), keepdims=True) >= 0.5


def dice(R, truth):
    """Of regions with the truth, pair by pair."""
    return 2 * (R * truth).sum((1, 2)) / (R.sum((1, 2)) + truth.sum((1, 2)))


# %% tags=["solution", "hide-cell"]
def regions(S, F, A, finding):
    """A region for every pair, bool (P, 12, 12)."""
    # solution
    # All evidence together says which cells come first; how many, the finding's usual size.
    evidence = S - np.log1p(np.exp(-F)) + np.log((144 * A).clip(1e-6))
    ranks = (-evidence).reshape(-1, 144).argsort(1).argsort(1).reshape(evidence.shape)
    areas = tuning.truth.sum((1, 2))
    usual = np.full(14, areas.mean())
    for c in np.unique(tuning.finding):
        usual[c] = areas[tuning.finding == c].mean()
    return ranks < usual[finding].round().clip(1)[:, None, None]


# %% tags=["check", "hide-input"]
evidence = others[:4]
R = np.asarray(regions(*evidence))
assert R.shape == others.S.shape, f"regions {others.S.shape} were expected, not {R.shape}"
assert R.dtype == bool, f"True and False were expected, not {R.dtype}"
assert R.any((1, 2)).all(), f"{(~R.any((1, 2))).sum()} regions are empty"
order = np.random.default_rng(0).permutation(len(R))
assert (regions(*(part[order] for part in evidence)) == R[order]).all(), (
    "pairs in another order got other regions"
)
turned = regions(*(part[:, ::-1].copy() for part in evidence[:3]), others.finding)
assert (turned != R).any(), "turned maps gave the same regions: the images have no say"
ours = dice(R, others.truth).mean()
controls = {
    "the attention from half of its maximum": half_of_attention(others),
    "the class map from p = 0.5": others.S >= 0,
}
for name, region in controls.items():
    theirs = dice(region, others.truth).mean()
    assert ours >= theirs + 0.03, (
        f"mean Dice {ours:.3f}; {name} up has {theirs:.3f}, and 0.03 more was asked for"
    )
print("exercise 6: passed")

# %% mystnb={"image": {"alt": "Bars of the mean Dice of three rules, attention from half of its maximum, class map from one half and the solution, for all findings, for nodules and masses, and for diffuse findings; the solution is highest for all together and for the diffuse, and level with the attention for nodules and masses."}} tags=["expected", "hide-input"]
groups_of = {
    "all": FINDINGS,
    "nodule, mass": ("Nodule", "Mass"),
    "diffuse": ("Edema", "Pneumonia", "Infiltration", "Consolidation"),
}
rules = {
    "attention": half_of_attention(others),
    "class map": others.S >= 0,
    "yours": regions(*others[:4]),
}
bars = {name: {} for name in rules}
for title, names in groups_of.items():
    among = np.isin(others.finding, [FINDINGS.index(name) for name in names])
    for name, region in rules.items():
        bars[name][title] = dice(region, others.truth)[among].mean()
figures.bars(bars, "mean Dice")
plt.show()

# %% [markdown]
# Chosen on the images that are scored, a rule would flatter itself; that is why `tuning` and the check share no patient.

# %% [markdown]
# ## Quiz

# %% tags=["remove-input", "quiz"]
from cxrlib.quiz import display_quiz

display_quiz(
    [
        {
            "question": "Why does each finding get a token of its own?",
            "answers": [
                {
                    "answer": "So that the transformer has more parameters.",
                    "correct": False,
                    "feedback": "14 tokens are a few thousand numbers among millions.",
                },
                {
                    "answer": "So that what a token pays to the patches says where that finding is.",
                    "correct": True,
                    "feedback": "A single token has to look at everything that matters for any finding.",
                },
                {
                    "answer": "So that findings cannot occur together.",
                    "correct": False,
                    "feedback": "Each finding keeps its own probability; several can be present.",
                },
            ],
        },
        {
            "question": "A token's attention is even: it pays the same to every patch. What is the joined map over a sure foreground?",
            "answers": [
                {
                    "answer": "Empty, because the token looks nowhere.",
                    "correct": False,
                    "feedback": "$P A$ is 1 everywhere, and its logarithm is 0: the attention takes nothing away.",
                },
                {
                    "answer": "Even.",
                    "correct": False,
                    "feedback": "The class map still has its say; its odds are multiplied by 1.",
                },
                {
                    "answer": "The class map.",
                    "correct": True,
                    "feedback": "A factor of 1 in each cell leaves the odds as they are.",
                },
            ],
        },
        {
            "question": "Two tokens point in opposite directions. What does the orthogonality loss say of them?",
            "answers": [
                {
                    "answer": "That they are as bad as equal ones.",
                    "correct": True,
                    "feedback": "Their squared cosine is 1. Only right angles cost nothing.",
                },
                {
                    "answer": "That they are as different as possible, so the loss is 0.",
                    "correct": False,
                    "feedback": "So it would be with the cosine itself as a loss; here it is squared.",
                },
                {
                    "answer": "It depends on how long they are.",
                    "correct": False,
                    "feedback": "Tokens are brought to length 1 first.",
                },
            ],
        },
        {
            "question": "The suppression loss is the mean of $\\sigma(S_c)\\,(1 - \\sigma(F))$, and the foreground $F$ does not learn from it. Why not?",
            "answers": [
                {
                    "answer": "Because $F$ has no gradient.",
                    "correct": False,
                    "feedback": "It would have one; the library holds it back.",
                },
                {
                    "answer": "Because a foreground that learned from it would grow until nothing is background.",
                    "correct": True,
                    "feedback": "With $\\sigma(F) = 1$ everywhere the loss is 0 whatever the class map says: it would excuse the map instead of teaching it.",
                },
                {
                    "answer": "Because the prior is known exactly.",
                    "correct": False,
                    "feedback": "On radiographs it is a segmenter's guess. $F$ learns the prior by a loss of its own.",
                },
            ],
        },
        {
            "question": "A teacher's probabilities are softened with a temperature $\\tau = 2$ before the student learns from them. What does the student see better?",
            "answers": [
                {
                    "answer": "Where the finding is.",
                    "correct": False,
                    "feedback": "The teacher gives one number for each finding, and no map.",
                },
                {
                    "answer": "The labels of the dataset.",
                    "correct": False,
                    "feedback": "These come with a loss of their own, unsoftened.",
                },
                {
                    "answer": "Which absent findings the teacher almost saw.",
                    "correct": True,
                    "feedback": "Probabilities near 0 hardly differ from each other; with halved log-odds they do.",
                },
            ],
        },
    ]
)
