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
# # Exercises: attention mining
#
# After these exercises you can say what a step of attention mining hides and why the hidden set can only grow, measure what a trained network still
# finds when its favourite cells are gone, say which sizes of lesion profit when scales are combined, and construct the two cases in which the
# method fails: knowledge that is "preserved" while the map moves away, and a classifier that gets worse because something was hidden. Read
# {doc}`../attention_mining` first.
#
# *Six exercises and a quiz, about two hours. Everything runs offline in seconds. A check tells you whether your function has the properties that it
# should have; many solutions pass.*

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

import cxrlib
from cxrlib.findings import FINDINGS
from cxrlib.models import figures_exercises_maps as figures
from cxrlib.phantom.population import render

# %% [markdown]
# ## 1. What each step hides
#
# *Recall, 10 minutes.*
#
# Networks $f_0, f_1, \dots$ give one map each, here all of the same finding. Step $t$ hides what any network before it looked at:
#
# $$E_t = E_{t-1} \cup \{ M^{t-1} \ge \tau \}, \qquad E_0 = \{\}.$$
#
# Write `erased(maps, tau)`. `maps` is a float array (T, h, w) from 0 to 1, the maps of $f_0$ to $f_{T-1}$, each with its maximum at 1; `tau` is a share
# above 0, at most 1. Return a boolean array (T, h, w) that holds $E_1$ to $E_T$, True where a cell is hidden.
#
# Before you write: which of the sets depend on the order of the maps, and which does not?


# %% tags=["solution", "hide-cell"]
def erased(maps, tau):
    """The hidden cells of steps 1 to T."""
    # solution
    return np.maximum.accumulate(maps >= tau)


# %% tags=["check", "hide-input"]
for seed in range(5):
    rng = np.random.default_rng(seed)
    maps = rng.random((4, 6, 7))
    maps /= maps.max((1, 2), keepdims=True)
    given = maps.copy()
    E = np.asarray(erased(maps, 0.8))
    assert E.shape == maps.shape, f"a set for each step, (4, 6, 7), was expected; got {E.shape}"
    assert E.dtype == bool, f"True and False were expected, not {E.dtype}"
    assert (maps == given).all(), "the maps that were given have been changed"
    assert (E[0] == (maps[0] >= 0.8)).all(), "E_1 holds the cells where M^0 is at least tau"
    assert not (E[:-1] & ~E[1:]).any(), "a hidden cell came back: E_t contains E_(t-1)"
    for t, i, j in np.ndindex(E.shape):  # the definition, slowly
        seen = any(earlier[i, j] >= 0.8 for earlier in maps[: t + 1])
        assert E[t, i, j] == seen, (
            f"E_{t + 1}, cell {(i, j)}: {seen} was expected, got {E[t, i, j]}"
        )
    assert (E[-1] == erased(maps[::-1], 0.8)[-1]).all(), "E_T does not depend on the order"
    assert not (erased(maps, 0.9) & ~E).any(), "a stricter tau hid more"
    highest = maps == 1
    assert (erased(maps, 1)[0] == highest[0]).all(), "at tau = 1 the highest cell is still hidden"
print("exercise 1: passed")

# %% mystnb={"image": {"alt": "Three small maps of a toy lesion with three parts, with 0, 3 and 5 percent of their cells hidden, black, and the cells that step 3 hides: the three parts."}} tags=["expected", "hide-input"]
x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
parts = ((-0.5, -0.4, 0.06), (0.1, 0.1, 0.04), (0.5, 0.55, 0.03))  # x, y, width
blobs = np.stack([np.exp(-((x - u) ** 2 + (y - v) ** 2) / w) for u, v, w in parts])
looks = np.tensordot([[1, 0.4, 0.2], [0.4, 1, 0.4], [0.1, 0.4, 1]], blobs, 1)
looks /= looks.max((1, 2), keepdims=True)
hidden = [np.zeros((32, 32), bool), *erased(looks, 0.5)]
titles = [f"$M^{t}$, {E.mean():.0%} hidden" for t, E in enumerate(hidden)]
shown = [*np.where(hidden[:3], 0, looks), 1.0 * ~hidden[3]]
titles[3] = f"$1 - E_3$, {hidden[3].mean():.0%} hidden"
figures.panels(dict(zip(titles, shown, strict=True)), limits=(0, 1))
plt.show()

# %% [markdown]
# ## 2. Hide it, and ask again
#
# *Apply, 20 minutes.*
#
# `f` is a network of the attention mining that comes with the library, its base network $f_0$, trained on the phantom. `f(images)` gives features (B, K, h, w), and
# `f.answer(features)` what it makes of them: `.logits` (B, C), the log-odds, and `.M` (B, C, h, w), what each cell votes for each finding, of either sign.
#
# Write `look_again(f, image, c, tau)`, which hides from $f$ the cells that vote most for finding `c` and asks it again, **without any training**.
# `image` is float (1, H, W). Cells whose vote is above 0 and reaches `tau` times the highest vote are hidden: all their *features* become 0. Return the two log-odds of the finding,
# tensor (2,), and the two maps of votes, tensor (2, h, w), before and after.
#
# What do you expect: must the log-odds fall? Can a cell vote differently because *another* one was hidden?


# %%
def radiograph(name, index, size=96):
    """A phantom's image (1, size, size) with one finding, and the finding's mask (size, size)."""
    drawn = render(index, size, seed=1, findings=[name], lesion_contrast=4.0)
    pixels = torch.tensor(drawn.pixels)[None] / 255
    return pixels, drawn.masks[FINDINGS.index(name)]


f_0 = cxrlib.load_pretrained("attention_mining").networks[0]


# %% tags=["solution", "hide-cell"]
def look_again(f, image, c, tau):
    """Log-odds (2,) and votes (2, h, w) of finding c, before and after hiding where f looks."""
    # solution
    with torch.no_grad():
        A = f(image[None])  # (1, K, h, w)
        before = f.answer(A)
        votes = before.M[0, c]
        hidden = (votes > 0) & (votes >= tau * votes.max())
        after = f.answer(A.masked_fill(hidden, 0))
    log_odds = torch.stack([before.logits[0, c], after.logits[0, c]])
    return log_odds, torch.stack([votes, after.M[0, c]])


# %% tags=["check", "hide-input"]
for name, index in (("Cardiomegaly", 901), ("Effusion", 901), ("Nodule", 902)):
    image, _ = radiograph(name, index)
    with torch.no_grad():
        whole = f_0.answer(f_0(image[None]))
    for c in range(14):
        z, M = look_again(f_0, image, c, 0.5)
        assert z.shape == (2,) and M.shape == (2, 24, 24), (
            f"(2,), (2, 24, 24), not {z.shape}, {M.shape}"
        )
        same = torch.allclose(z[0], whole.logits[0, c]) and torch.allclose(M[0], whole.M[0, c])
        assert same, (
            "first comes what f answers to the whole image; was something hidden too early?"
        )
        hide = (M[0] > 0) & (M[0] >= 0.5 * M[0].max())
        if not hide.any():
            assert torch.equal(M[0], M[1]), "no cell votes for it, so nothing was to be hidden"
            continue
        assert (M[1][hide] == 0).all(), (
            "a cell without features has no vote: hide features, not pixels"
        )
        assert (M[1][~hide] != 0).all(), "cells below tau times the highest vote were hidden"
        moved = (M[0] - M[1])[~hide].abs().max()
        assert moved < 1e-5, f"a cell that was not hidden votes otherwise, by {moved:.2g}"
        assert z[1] < z[0], "votes for the finding were taken away; the log-odds had to fall"
        less, more = look_again(f_0, image, c, 0.9)[0], look_again(f_0, image, c, 0.2)[0]
        assert less[1] >= z[1] >= more[1], "a lower tau hides more, so less evidence remains"
print("exercise 2: passed")

# %% mystnb={"image": {"alt": "A radiograph with an enlarged heart, outlined, and two maps of votes: the whole image's with its peak in the heart, and what remains after hiding, again with a peak in the heart; the probability falls."}} tags=["expected", "hide-input"]
image, mask = radiograph("Cardiomegaly", 901)
z, M = look_again(f_0, image, FINDINGS.index("Cardiomegaly"), 0.5)
titles = [f"{when}\np = {p:.2f}" for when, p in zip(("before", "after"), z.sigmoid(), strict=True)]
maps = dict(zip(titles, M.clamp(min=0).numpy(), strict=True))
figures.panels(maps, truth=mask, image=image[0].numpy())
plt.show()

# %% [markdown]
# What is left of the map is left of *this* classifier's evidence: hiding alone finds its second choice. Training $f_1$ is there to make more of it.

# %% [markdown]
# ## 3. Which sizes profit from several scales?
#
# *Apply, 25 minutes.*
#
# Multi-scale aggregation adds features of several strides. Here is its simplest case: the only feature is the brightness of an area. Write `aggregate(x, cells)`. `x` is a float
# array (N, H, W) of images; `cells` lists sides of cells in pixels, each of which divides H and W. For every side $s$
#
# 1. take the mean of each $s \times s$ cell,
# 2. bring these means to mean 0 and standard deviation 1, image by image, so that scales can be compared,
# 3. enlarge them to H × W by repeating each cell's value in all of its pixels,
#
# and return the sum over all sides, (N, H, W). Then look at the picture: lesions are squares of some side in noise. Which scale is best for which size, and who gains from
# the sum?


# %% tags=["solution", "hide-cell"]
def aggregate(x, cells):
    """The sum of an image's standardized cell means over several sides of cells."""
    # solution
    n, h, w = x.shape
    total = np.zeros((n, h, w))
    for s in cells:
        means = x.reshape(n, h // s, s, w // s, s).mean((2, 4))
        means = means - means.mean((1, 2), keepdims=True)
        means = means / means.std((1, 2), keepdims=True)
        total += means.repeat(s, axis=1).repeat(s, axis=2)
    return total


# %% tags=["check", "hide-input"]
for seed in range(3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 16, 24))
    for cells in ((1,), (2,), (8,), (2, 4, 8)):
        m = np.asarray(aggregate(x, cells))
        assert m.shape == x.shape, f"a map as large as the image was expected, not {m.shape}"
        assert abs(m.mean((1, 2))).max() < 1e-9, (
            "each scale has mean 0, so the sum has, in each image"
        )
        brighter = aggregate(2.5 * x + 7, cells)
        assert np.allclose(m, brighter), "brightness or contrast of an image changed its map"
        alone = np.concatenate([aggregate(one[None], cells) for one in x])
        assert np.allclose(m, alone), "an image's map depends on the other images"
        mirrored = aggregate(x[:, :, ::-1], cells)[:, :, ::-1]
        assert np.allclose(m, mirrored), (
            "of the mirrored image the mirrored map was expected: did cells shift?"
        )
        s = min(cells)
        blocks = m.reshape(3, 16 // s, s, 24 // s, s)
        assert np.ptp(blocks, axis=(2, 4)).max() < 1e-9, f"pixels of a {s} x {s} cell differ"
    sd = aggregate(x, (4,)).std((1, 2))
    assert np.allclose(sd, 1), f"one scale alone has standard deviation 1 in each image, not {sd}"
    parts = aggregate(x, (2,)) + aggregate(x, (8,))
    assert np.allclose(aggregate(x, (2, 8)), parts), "scales are added up"
    planted = np.zeros((1, 16, 24))
    planted[0, 4:8, 8:12] = 1
    top = aggregate(planted, (4,))[0]
    bright = np.argwhere(top > top.max() - 1e-9)
    assert bright.min(0).tolist() == [4, 8] and len(bright) == 16, (
        "a bright cell at rows 4 to 7, columns 8 to 11 should light up these 16 pixels, "
        f"not {len(bright)} from {bright.min(0)} to {bright.max(0)}"
    )
print("exercise 3: passed")

# %% mystnb={"image": {"alt": "Line chart of pointing against the side of the lesion from 2 to 32 pixels: cells of 2, 4 and 16 pixels alone, each good for some sizes, and the sum of 2, 4, 8 and 16, which is best or close to it at every size."}} tags=["expected", "hide-input"]
sides = (2, 3, 4, 6, 8, 12, 16, 24, 32)
choices = {
    "2 px alone": (2,),
    "4 px alone": (4,),
    "16 px alone": (16,),
    "2 + 4 + 8 + 16": (2, 4, 8, 16),
}
curves = {name: [] for name in choices}
for side in sides:
    rng = np.random.default_rng(side)
    lesion = np.zeros((200, 64, 64), bool)
    for one, (i, j) in zip(lesion, rng.integers(0, 65 - side, (200, 2)), strict=True):
        one[i : i + side, j : j + side] = True
    noisy = lesion + rng.normal(size=lesion.shape)
    for name, cells in choices.items():
        m = aggregate(noisy, cells)
        top = m > m.max((1, 2), keepdims=True) - 1e-9  # a coarse map has many highest pixels
        curves[name].append(((top & lesion).sum((1, 2)) / top.sum((1, 2))).mean())
figures.lines(
    sides, curves, "side of the lesion, pixels", "highest pixels in the lesion", ylim=(0, 1)
)
plt.show()

# %% [markdown]
# A fine cell sees little of the lesion and all of the noise; a coarse one averages the noise away, and the small lesion with it. The sum is not a compromise between the
# two: noise peaks in different places at different scales, the lesion always in the same. Small lesions gain most beside the coarsest scale, which is what CAM reads.

# %% [markdown]
# ## 4. What preservation does not preserve
#
# *Analyse, 20 minutes.*
#
# Knowledge preservation compares the *mean* features and the logits of $f_t$ and $f_0$:
#
# $$L_{KP} = \tfrac{1}{K} \lVert g_t - g_0 \rVert^2 + \tfrac{1}{C} \lVert z_t - z_0 \rVert^2, \qquad g = \operatorname{mean}_{ij} A_{ij}, \qquad z = w \cdot g + b.$$
#
# Write `look_elsewhere(A, w, cell)`. `A` is a tensor (K, h, w) of features, none negative; `w` (K,) is a finding's classifier; `cell` = (i, j). Return features of the same shape, none negative, with
# **the same mean features** whose map of votes $w \cdot A'_{ij}$ has its highest value at `cell`. Whatever the classifiers are, the loss $L_{KP}$ between the two is then 0.
#
# Then answer: what can KP prevent at all?


# %% tags=["solution", "hide-cell"]
def look_elsewhere(A, w, cell):
    """Features with the same means, whose highest vote is in another cell."""
    # solution
    votes = torch.einsum("k,khw->hw", w, A)
    i, j = divmod(int(votes.argmax()), votes.shape[1])
    return A.roll((cell[0] - i, cell[1] - j), dims=(1, 2))


# %% tags=["check", "hide-input"]
for seed in range(6):
    torch.manual_seed(seed)
    A = torch.randn(8, 6, 7).relu()
    w = torch.randn(8)
    cell = (int(torch.randint(6, ())), int(torch.randint(7, ())))
    given = A.clone()
    other = look_elsewhere(A, w, cell)
    assert other.shape == A.shape, f"features (8, 6, 7) were expected, not {tuple(other.shape)}"
    assert torch.equal(A, given), "the features that were given have been changed"
    assert other.min() >= 0, f"features are never negative, yours reach {other.min():.2f}"
    g, g_0 = other.mean((1, 2)), A.mean((1, 2))
    gap = float((g - g_0).abs().max())
    assert gap < 1e-5, (
        f"the mean features changed by up to {gap:.2g}: what one cell gains another has to lose"
    )
    W, b = torch.randn(14, 8), torch.randn(14)
    kp = F.mse_loss(g, g_0) + F.mse_loss(W @ g + b, W @ g_0 + b)
    assert kp < 1e-9, f"KP of 14 other classifiers is {kp:.2g}; 0 was expected"
    votes = torch.einsum("k,khw->hw", w, other)
    assert votes[cell] == votes.max(), f"the highest vote is not in cell {cell}"
    others = votes.clone()
    others[cell] = -torch.inf
    assert others.max() < votes[cell], "the highest vote has to be in one cell only"
print("exercise 4: passed")

# %% mystnb={"image": {"alt": "Two maps of votes of the same radiograph, the network's with its peak in the outlined heart and another with its peak in the upper left corner, with the same probability and a preservation loss of 0."}} tags=["expected", "hide-input"]
image, mask = radiograph("Cardiomegaly", 901)
c = FINDINGS.index("Cardiomegaly")
with torch.no_grad():
    A = f_0(image[None])[0]
    w = f_0.head.weight[c, :, 0, 0]
    pair = torch.stack([A, look_elsewhere(A, w, (2, 3))])
    answers = f_0.answer(pair)
    kp = float((answers.features[1] - answers.features[0]).square().mean())
titles = [
    f"{name}\np = {z.sigmoid():.2f}"
    for name, z in zip(("$f_0$", f"KP = {kp:.0e}"), answers.logits[:, c], strict=True)
]
maps = dict(zip(titles, answers.M[:, c].clamp(min=0).numpy(), strict=True))
figures.panels(maps, truth=mask, image=image[0].numpy())
plt.show()

# %% [markdown]
# KP keeps the *answer*; where the network looks for it is free. That is the point, for were the maps preserved as well, nothing could be mined. But then KP does not keep a network from
# looking at unrelated places either, as long as they let it answer alike.

# %% [markdown]
# ## 5. Why hiding can make a classifier worse
#
# *Analyse, 30 minutes.*
#
# In a hospital, patients with the finding mostly have a tube, and others seldom. A linear classifier sees three cues of an image, 0 or 1: the lesion, a fainter part of it, and the tube.
# Write the loss of attention mining for it, `mining_loss(w, b, x, y, hidden)`, a tensor without dimensions that autograd can differentiate:
#
# $$L = L\big(y, w \cdot x + b\big) + L\big(y, w \cdot \tilde x + b\big),$$
#
# where $L$ is the mean binary cross-entropy of log-odds and $\tilde x$ is $x$ with the `hidden` cues set to 0 **in images that have the finding**; in the others nothing is hidden. `w` (K,), `b` scalar, `x` (N, K) and `y` (N,) are
# float tensors, `hidden` is boolean (K,). Log-odds can be large: $\log(1 + e^{100})$ must not be infinite.
#
# The check then trains with and without hiding the lesion and asks both classifiers in a second hospital, where tubes have nothing to do with the finding. Which two things go wrong?


# %%
def hospital(n, tube_if, tube_else, seed):
    """Cues (n, 3), lesion, faint part and tube, and labels (n,) of images of a hospital."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.3
    chances = np.where(y[:, None], [0.85, 0.6, tube_if], [0.05, 0.2, tube_else])
    x = rng.random((n, 3)) < chances
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def fitted(loss, hidden):
    """Weights (3,) and bias of the classifier that has the least loss in the first hospital."""
    x, y = hospital(4000, 0.7, 0.1, seed=0)
    w, b = torch.zeros(3, requires_grad=True), torch.zeros((), requires_grad=True)
    descent = torch.optim.LBFGS([w, b], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        descent.zero_grad()
        value = loss(w, b, x, y, torch.tensor(hidden))
        value.backward()
        return value

    descent.step(closure)
    return w.detach(), b.detach()


def auroc(w, tube_if, tube_else):
    """Of new images of a hospital: how often a finding scores above none, ties count half."""
    x, y = hospital(4000, tube_if, tube_else, seed=1)
    score = x @ w
    first, second = score[y == 1][:, None], score[y == 0][None]
    return float(((first > second).float() + 0.5 * (first == second)).mean())


# %% tags=["solution", "hide-cell"]
def mining_loss(w, b, x, y, hidden):
    """Cross-entropy of whole images and of images with cues hidden where the finding is."""
    # solution
    gone = hidden & (y == 1)[:, None]
    whole = F.binary_cross_entropy_with_logits(x @ w + b, y)
    without = F.binary_cross_entropy_with_logits(x.masked_fill(gone, 0) @ w + b, y)
    return whole + without


# %% tags=["check", "hide-input"]
nothing, lesion = [False, False, False], [True, False, False]
for seed in range(4):
    x, y = hospital(200, 0.7, 0.1, seed)
    torch.manual_seed(seed)
    w, b = torch.randn(3, requires_grad=True), torch.randn((), requires_grad=True)
    given = x.clone()
    none = mining_loss(w, b, x, y, torch.tensor(nothing))
    mining_loss(w, b, x, y, torch.tensor(lesion))
    assert torch.equal(x, given), "the cues that were given have been changed"
    assert none.shape == (), f"one number was expected, not shape {tuple(none.shape)}"
    p = (x @ w + b).sigmoid()
    plain = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert torch.allclose(none, 2 * plain, rtol=1e-4), (
        f"nothing hidden: twice the mean cross-entropy, {2 * plain:.3f}, not {none:.3f}"
    )
    absent = mining_loss(w, b, x, 0 * y, torch.tensor([True, True, True]))
    unhidden = mining_loss(w, b, x, 0 * y, torch.tensor(nothing))
    assert torch.allclose(absent, unhidden), "in images without the finding nothing is hidden"
    blind = mining_loss(w, b, x, torch.ones_like(y), torch.tensor([True, True, True]))
    expected = -(p.log().mean() + b.sigmoid().log())
    assert torch.allclose(blind, expected, rtol=1e-4), (
        "with all cues hidden only b can answer, in the second term alone"
    )
    (slope,) = torch.autograd.grad(mining_loss(w, b, x, y, torch.tensor(lesion)), w)
    assert slope.abs().min() > 0, "the loss does not teach all three weights"
far = mining_loss(torch.full((3,), 100.0), torch.tensor(-400.0), x, y, torch.tensor(lesion))
assert far.isfinite(), f"log-odds of -400 gave a loss of {far}; use a form that cannot overflow"
(w_plain, _), (w_mined, _) = fitted(mining_loss, nothing), fitted(mining_loss, lesion)
assert w_mined[2] > w_plain[2], "hiding the lesion should have made the tube weigh more"
assert w_mined[0] < w_plain[0], "hiding the lesion should have made the lesion weigh less"
worse = auroc(w_plain, 0.25, 0.25) - auroc(w_mined, 0.25, 0.25)
assert worse > 0.02, f"in the other hospital mining should cost AUROC, it costs {worse:.3f}"
print("exercise 5: passed")

# %% mystnb={"image": {"alt": "Grouped bars of the weights of lesion, faint part and tube and of the AUROC in both hospitals, without and with hiding: with hiding the lesion weighs less and the tube more, and the AUROC in the other hospital is lower."}} tags=["expected", "hide-input"]
groups = {}
for name, hidden in (("nothing hidden", nothing), ("lesion hidden", lesion)):
    w, _ = fitted(mining_loss, hidden)
    weights = dict(zip(("w of\nlesion", "w of\nfaint part", "w of\ntube"), w.tolist(), strict=True))
    here, there = auroc(w, 0.7, 0.1), auroc(w, 0.25, 0.25)
    groups[name] = weights | {"AUROC\nhere": here, "AUROC\nelsewhere": there}
figures.bars(groups, "weight, or AUROC")
plt.show()

# %% [markdown]
# Two things go wrong at once. The classifier turns to what is left, and what is left tells more of the hospital than of the finding. And because only images *with* the finding lose their lesion, the hidden images teach
# that a visible lesion speaks against it. The labels of its own hospital hardly betray either.

# %% [markdown]
# ## 6. When to stop
#
# *Open, 30 minutes.*
#
# Mining adds the second best, then the third; at some step it adds noise, or another finding. Write `mined(votes)`: `votes` is a float array (32, 32), what the cells of an image vote for a finding that it has. The lesion
# has one to four parts in a row, each weaker than the one before; something else in the image gets votes too, and everywhere there is smooth noise. Return a boolean array (32, 32), the region that you claim.
#
# On new scenes your mean Dice should be higher than that of the first look alone (cells from half of the maximum up) by 0.05, and higher than that of a second step without any rule by 0.1. `scene(seed)` draws as many
# scenes to try on as you like; those of the check have seeds from 1,000 up. What tells the next part of the lesion from something else?


# %%
def scene(seed):
    """Votes (32, 32) of a scene and its lesion (32, 32)."""
    rng = np.random.default_rng([6, seed])
    cells = np.indices((32, 32))
    start, step = rng.uniform(8, 24, 2), rng.normal(size=2)
    step *= 5 / np.hypot(*step)

    def distance(place):
        return np.hypot(*(cells - place[:, None, None]))

    votes, lesion = np.zeros((32, 32)), np.zeros((32, 32), bool)
    for k in range(rng.integers(1, 5)):
        away = distance(start + k * step)
        votes = np.maximum(votes, 0.7**k * np.exp(-((away / 4) ** 2)))
        lesion |= away < 3.5
    other = rng.uniform(4, 28, 2)
    while distance(other)[lesion].min() < 9:
        other = rng.uniform(4, 28, 2)
    votes = np.maximum(votes, 0.6 * np.exp(-((distance(other) / 3) ** 2)))
    noise = ndimage.gaussian_filter(rng.normal(size=(32, 32)), 1.5, mode="wrap")
    return votes + rng.uniform(0.04, 0.14) * noise / noise.std(), lesion


def first_look(votes):
    """Cells from half of the maximum up."""
    return votes >= votes.max() / 2


def second_step(votes):
    """What is found at once, and what is found when that is hidden."""
    found = first_look(votes)
    return found | first_look(np.where(found, 0, votes))


def mean_dice(rule, seeds):
    """Of the regions that a rule claims, over scenes."""
    pairs = [(np.asarray(rule(votes)), lesion) for votes, lesion in map(scene, seeds)]
    return np.mean([2 * (R & L).sum() / (R.sum() + L.sum()) for R, L in pairs])


# %% tags=["solution", "hide-cell"]
def mined(votes):
    """The region that is claimed: bool (32, 32)."""
    # solution
    # A small step beyond the first look, its size chosen on scenes 0 to 199; and what is found
    # next has to touch what was found before.
    parts, _ = ndimage.label(votes >= 0.35 * votes.max())
    return parts == parts.flat[votes.argmax()]


# %% tags=["check", "hide-input"]
votes, _ = scene(1000)
R = np.asarray(mined(votes.copy()))
assert R.shape == (32, 32), f"a region (32, 32) was expected, not {R.shape}"
assert R.dtype == bool, f"True and False were expected, not {R.dtype}"
assert (np.asarray(mined(votes.copy())) == R).all(), "asked twice, it claims two regions"
ours = mean_dice(mined, range(1000, 1120))
for control, more in ((first_look, 0.05), (second_step, 0.1)):
    theirs = mean_dice(control, range(1000, 1120))
    name = control.__name__.replace("_", " ")
    assert ours >= theirs + more, (
        f"mean Dice {ours:.3f}; {more} above the {name}'s {theirs:.3f} was asked for"
    )
print("exercise 6: passed")

# %% mystnb={"image": {"alt": "Votes of a toy scene with a lesion of several parts outlined and something else beside it, and the regions that three rules claim: the first look covers part of the lesion, the second step adds the rest and more of the other thing, the solution grows along the lesion only and has the highest mean Dice over a hundred scenes."}} tags=["expected", "hide-input"]
votes, lesion = scene(1001)
rules = {"first look": first_look, "second step": second_step, "yours": mined}
maps = {"votes of one scene": votes}
for name, rule in rules.items():
    mean = mean_dice(rule, range(100))
    maps[f"{name},\nmean Dice {mean:.2f}"] = 1.0 * rule(votes)
figures.panels(maps, truth=lesion)
plt.show()

# %% [markdown]
# Without a rule the second step makes the mean *worse* here. Connectedness helps because these lesions hang together; a finding in both lungs does not, and such a rule would lose its other half.

# %% [markdown]
# ## Quiz

# %% tags=["remove-input", "quiz"]
from cxrlib.quiz import display_quiz

display_quiz(
    [
        {
            "question": "The map of $f_0$ is computed, then its cells from half of the maximum up are hidden. What does $f_1$ look at, if nothing but the hidden images teaches it?",
            "answers": [
                {
                    "answer": "At the rest of the lesion.",
                    "correct": False,
                    "feedback": "That is the hope. Nothing in the loss says that what is found next belongs to the lesion.",
                },
                {
                    "answer": "At whatever else tells the finding from its absence, in these images.",
                    "correct": True,
                    "feedback": "The rest of the lesion if it tells most; a tube, a posture or another finding if that does.",
                },
                {
                    "answer": "At nothing, for the evidence is gone.",
                    "correct": False,
                    "feedback": "The label is still demanded, and a network that is trained finds some way to give it.",
                },
            ],
        },
        {
            "question": "$\\tau$ is raised from 0.5 to 0.8. What is certain?",
            "answers": [
                {
                    "answer": "Given the same maps, each step hides at most as many cells as before.",
                    "correct": True,
                    "feedback": "A cell that reaches 0.8 of the maximum reaches 0.5 too, at every step.",
                },
                {
                    "answer": "The union of all maps after training is smaller.",
                    "correct": False,
                    "feedback": "Networks that are trained with other hidden cells have other maps; their union can be larger.",
                },
                {
                    "answer": "Preservation costs more.",
                    "correct": False,
                    "feedback": "KP asks about whole images only. It never sees what is hidden.",
                },
            ],
        },
        {
            "question": "Two networks have the same mean features and the same logits for every image. What does KP, as this book reads it, say of them?",
            "answers": [
                {
                    "answer": "That they look at the same places.",
                    "correct": False,
                    "feedback": "A mean forgets where: any rearrangement of the cells leaves it as it is.",
                },
                {
                    "answer": "It depends on $\\lambda$.",
                    "correct": False,
                    "feedback": "$\\lambda$ multiplies a loss that is 0.",
                },
                {
                    "answer": "Nothing: it is 0, wherever they look.",
                    "correct": True,
                    "feedback": "It keeps the answer. Were the maps kept as well, nothing could be mined.",
                },
            ],
        },
        {
            "question": "After three steps the union of maps covers twice as much of the lesion. What has to stand beside this number?",
            "answers": [
                {
                    "answer": "How many more cells it claims, and what a random or usual region of as many cells covers.",
                    "correct": True,
                    "feedback": "A union can only grow, and all of the image covers every lesion. In the chapter's study the location prior finds more with as many cells.",
                },
                {
                    "answer": "The AUROC of the last network.",
                    "correct": False,
                    "feedback": "It says whether labels survive, not whether what was added belongs to the lesion.",
                },
                {
                    "answer": "The accuracy of its boxes by Wang's protocol alone.",
                    "correct": False,
                    "feedback": "More regions are more boxes, and more boxes find more: a random map has the highest accuracy of all. Without the number of false boxes it says little.",
                },
            ],
        },
        {
            "question": "Multi-scale aggregation turns a grid of 6 × 6 cells into one of 24 × 24. Which finding has most to gain?",
            "answers": [
                {
                    "answer": "Cardiomegaly, because it is large.",
                    "correct": False,
                    "feedback": "A heart fills many coarse cells; there is little that a finer grid could add.",
                },
                {
                    "answer": "A nodule, because one coarse cell is mostly not nodule.",
                    "correct": True,
                    "feedback": "The mean over a cell dilutes what fills a small part of it, and its map cannot be smaller than the cell.",
                },
                {
                    "answer": "All alike.",
                    "correct": False,
                    "feedback": "What a cell's mean loses depends on the share of the cell that the finding fills.",
                },
            ],
        },
    ]
)
