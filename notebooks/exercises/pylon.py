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
# # Exercises: PYLON
#
# After these exercises you can read a map off a classifier, say where its cells really look, find out which cells of a network hear of a
# change and which ones learn, and tell how much of a pointing score is resolution alone. At the end you make a coarse map finer
# without training anything.
#
# *You should have read {doc}`../pylon`. About 95 minutes. Each exercise stands alone: write the function, run the cell below it,
# which says what is wrong or that you have passed, and compare the figure.*

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cxrlib import load_pretrained
from cxrlib.figures import COLOURS
from cxrlib.findings import FINDINGS
from cxrlib.phantom.controls import controls_of
from cxrlib.phantom.population import render_some

strong = controls_of(lesion_contrast=4.0, prevalence=0.2, cooccurrence=0.0)
radiographs = render_some(range(40), 96, 7, strong)  # 40 images of 96 px
images = torch.stack([torch.tensor(of.pixels)[None] / 255 for of in radiographs])  # (40, 1, 96, 96)
masks = torch.tensor(np.stack([of.masks for of in radiographs]))  # (40, 14, 96, 96)
pylon = load_pretrained("pylon")

# %% [markdown]
# ## 1. The map in the classifier
#
# *Recall, 5 minutes.*
#
# A classifier takes the mean of its features $F$ over the grid and then a linear layer with weights $w$ and bias $b$. Write
# `cam(features, weight, bias)`: from features (B, k, h, w), weights (C, k) and biases (C) to maps (B, C, h, w) whose mean *is* the
# classifier's logit.


# %% tags=["solution", "hide-cell"]
def cam(features, weight, bias):
    """Class activation maps, (B, k, h, w) -> (B, C, h, w)."""
    # solution
    return torch.einsum("bkhw,ck->bchw", features, weight) + bias[:, None, None]


# %% tags=["check", "hide-input"]
for seed in range(4):
    chance = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 6, 4, 5 + seed, generator=chance)
    weight, bias = torch.randn(7, 6, generator=chance), torch.randn(7, generator=chance)
    maps = cam(features, weight, bias)
    expected = (3, 7, 4, 5 + seed)
    assert maps.shape == expected, f"maps of {tuple(maps.shape)}, expected {expected}"
    logits = F.linear(features.mean((-2, -1)), weight, bias)
    gap = (maps.mean((-2, -1)) - logits).abs().max()
    assert gap < 1e-5, f"the mean of a map is not the logit: they differ by up to {gap:.3g}"
    assert not maps.isnan().any()
    altered = features.clone()
    altered[..., 0, 0] += 1
    moved = (cam(altered, weight, bias) - maps).abs().amax((0, 1)) > 1e-6
    assert moved[0, 0], "the map does not depend on the features of its own cell"
    assert moved.sum() == 1, f"one cell of features changed, and {int(moved.sum())} of the map did"
print("exercise 1: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Three small images: two channels of features, one with a bright spot at the upper left, one at the lower right, and their class activation map, in which the first spot is bright and the second dark; its mean is the logit."}}
rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
spots = [torch.exp(-((rows - at) ** 2 + (columns - at) ** 2) / 5) for at in (3, 8)]
features = torch.stack(spots)[None]  # (1, 2, 12, 12)
weight, bias = torch.tensor([[3.0, -2.0]]), torch.tensor([0.2])
map_ = cam(features, weight, bias)[0, 0]
logit = F.linear(features.mean((-2, -1)), weight, bias).item()
figure, axes = plt.subplots(1, 3, figsize=(6, 2.2), layout="constrained")
for axis, shown, title in zip(
    axes,
    (*spots, map_),
    ("channel 1, w = 3", "channel 2, w = -2", f"CAM, mean {map_.mean():.3f}\nlogit {logit:.3f}"),
    strict=True,
):
    axis.imshow(shown, cmap="PuOr", vmin=-3, vmax=3)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## 2. Where does a cell look?
#
# *Apply, 15 minutes.*
#
# After layers whose strides multiply to $s$, cell 0 of the map *stands for* the pixels 0 to $s - 1$, whose centre is at $(s-1)/2$. It
# *looks at* pixels around some other centre, if padding and kernel do not fit. Follow one axis: a layer of kernel $k$, stride $t$ and padding $q$
# looks from its own cell 0 at the cells $-q$ to $k - 1 - q$ of the layer before.
#
# Write `lean(layers)`: for a list of tuples (kernel, stride, padding), first layer first, the centre of what the last cell 0 looks at, minus
# the centre of what it stands for, in pixels of the image. Then: a ResNet leans by how much at stride 32?


# %% tags=["solution", "hide-cell"]
def lean(layers):
    """How many pixels to the right of what it stands for a cell looks (negative: to the left)."""
    # solution
    looks_at, jump = 0.0, 1
    for kernel, stride, padding in layers:
        looks_at += ((kernel - 1) / 2 - padding) * jump  # a cell before is `jump` pixels wide
        jump *= stride
    return looks_at - (jump - 1) / 2


# %% tags=["check", "hide-input"]
def looked_at(layers, size=256):
    """The same, from the gradient of a cell in the middle of a stack of convolutions of ones."""
    x = torch.ones(1, 1, size, dtype=torch.float64, requires_grad=True)
    y, stride = x, 1
    for kernel, step, padding in layers:
        y = F.conv1d(y, torch.ones(1, 1, kernel, dtype=torch.float64), stride=step, padding=padding)
        stride *= step
    middle = y.shape[-1] // 2
    (weights,) = torch.autograd.grad(y[0, 0, middle], x)
    centre = (weights[0, 0] * torch.arange(size)).sum() / weights.sum()
    return float(centre) - (middle * stride + (stride - 1) / 2)


stacks = {
    "nothing changes size": [(3, 1, 1), (5, 1, 2)],
    "one halving, 3 wide": [(3, 2, 1)],
    "three halvings, 3 wide": [(3, 2, 1)] * 3,
    "three halvings, 4 wide": [(4, 2, 1)] * 3,
    "two halvings, 2 wide": [(2, 2, 0)] * 2,
    "no padding": [(5, 1, 0), (3, 2, 0)],
    "mixed": [(7, 2, 3), (3, 1, 1), (4, 2, 1), (3, 2, 0), (1, 2, 0)],
}
for name, layers in stacks.items():
    found, true = lean(layers), looked_at(layers)
    assert abs(found - true) < 1e-6, (
        f"{name}, {layers}: you say {found:.3g}, the gradient {true:.3g}"
    )
print("exercise 2: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Line chart: how far a cell looks beside what it stands for, against the stride from 2 to 32; with the layers of a ResNet it falls to minus 15.5 pixels, with kernels of 4 it stays at 0."}}
usual, even = [(7, 2, 3), *[(3, 2, 1)] * 4], [(6, 2, 2), *[(4, 2, 1)] * 4]
strides = [2, 4, 8, 16, 32]
figure, axis = plt.subplots(figsize=(5.2, 2.7), layout="constrained")
for label, layers, mark in (
    ("ResNet: 7, then 3 wide", usual, "o-"),
    ("6, then 4 wide", even, "s--"),
):
    leans = [lean(layers[:depth]) for depth in range(1, 6)]
    axis.plot(strides, leans, mark, color=COLOURS["os".index(mark[0])], label=label)
axis.set(xscale="log", xlabel="stride", ylabel="lean in pixels", ylim=(-17, 2))
axis.set_xticks(strides, strides)
axis.minorticks_off()
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 3. Who hears of it?
#
# *Apply, 15 minutes.*
#
# Write `hears(module, x, row, column)`. A `module` makes features (1, k', h', w') from features `x` (1, k, h, w). Which cells of what
# it makes change when the features of *one* cell of `x` change? Return a mask (h', w') of booleans. Use the module as it is: do
# not switch it between training and evaluation. A ReLU can swallow a change, so one trial, or a small change, is not enough; and
# a cell that does not depend on the changed one must come out exactly as before.
#
# Before you look at the figure: which of PYLON's parts, PA, UP, a global average and group normalization, tell every cell?


# %% tags=["solution", "hide-cell"]
def hears(module, x, row, column):
    """Cells of the output that change with one cell of the input, bool (h', w')."""
    # solution
    heard = False
    with torch.no_grad():
        for seed in range(8):
            altered = x.clone()
            chance = torch.Generator().manual_seed(seed)
            altered[..., row, column] += 3 * torch.randn(x.shape[1], generator=chance)
            heard = heard | (module(altered) != module(x)).any(1)[0]
    return heard


# %% tags=["check", "hide-input"]
class AddAverage(nn.Module):
    """Features plus their mean over the grid."""

    def forward(self, x):
        """(B, k, h, w) -> (B, k, h, w)."""
        return x + x.mean((-2, -1), keepdim=True)


torch.manual_seed(0)
x = torch.randn(1, 8, 12, 12)
around = torch.zeros(12, 12, dtype=torch.bool)
around[4:7, 6:9] = True  # 3 x 3 cells around row 5, column 7
itself = torch.zeros(12, 12, dtype=torch.bool)
itself[5, 7] = True
block = torch.zeros(6, 6, dtype=torch.bool)
block[2, 3] = True
everywhere = torch.ones(12, 12, dtype=torch.bool)
shut = nn.Conv2d(8, 8, 1)  # its first channel hears nothing, the others are far below 0
with torch.no_grad():
    shut.weight.copy_(torch.eye(8)[:, :, None, None])
    shut.weight[0] = 0
    shut.bias.fill_(-4)
cases = {
    "the identity": (nn.Identity(), itself),
    "a 1 x 1 convolution and a ReLU": (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), itself),
    "a ReLU that only a large change opens": (nn.Sequential(shut, nn.ReLU()), itself),
    "a 3 x 3 convolution": (nn.Conv2d(8, 4, 3, padding=1), around),
    "a mean of 2 x 2": (nn.AvgPool2d(2), block),
    "batch normalization, evaluating": (nn.BatchNorm2d(8).eval(), itself),
    "batch normalization, training": (nn.BatchNorm2d(8).train(), everywhere),
    "group normalization": (nn.GroupNorm(2, 8), everywhere),
    "an added global average": (AddAverage(), everywhere),
}
for name, (module, expected) in cases.items():
    training = module.training
    before = x.clone()
    found = hears(module, x, 5, 7)
    assert found.dtype == torch.bool, f"a mask of booleans was expected, not {found.dtype}"
    assert found.shape == expected.shape, (
        f"{name}: shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    )
    assert module.training == training, f"{name}: the module was switched to another mode"
    assert torch.equal(x, before), f"{name}: you changed x itself; alter a copy"
    count, true = int(found.sum()), int(expected.sum())
    assert torch.equal(found, expected), f"{name}: {count} cells hear of it, expected were {true}"
print("exercise 3: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Four square maps of the cells that hear of a change in one cell left of the middle: with PA a ragged square around it, with a global average all cells, with UP the cell alone, with group normalization all cells."}}
from cxrlib.models.encoders import normalize_with
from cxrlib.models.pylon import PA, UP

torch.manual_seed(1)
x, coarse_part = torch.randn(1, 16, 64, 64), torch.randn(1, 16, 32, 32)
up, up_group = UP(16, 16, "2layer"), UP(16, 16, "2layer")
normalize_with("group", up_group)
parts = {"PA": PA(16, 16, 1, gap=False), "PA + global average": PA(16, 16, 1, gap=True)}
parts = {name: part.eval() for name, part in parts.items()}
parts["UP"] = lambda x: up.eval()(x, coarse_part)
parts["UP, group norm."] = lambda x: up_group.eval()(x, coarse_part)
figure, axes = plt.subplots(1, 4, figsize=(6.4, 2), layout="constrained")
for axis, (name, part) in zip(axes, parts.items(), strict=True):
    heard = hears(part, x, 24, 24)
    axis.imshow(heard, cmap="cividis", vmin=0, vmax=1)
    axis.set_title(f"{name}\n{heard.float().mean():.1%} hear", fontsize=8)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## 4. Who learns?
#
# *Analyse, 15 minutes.*
#
# A pooling $P$ makes the image's logit from the map of logits of a finding. Cell $(i, j)$ learns in proportion to
# $g_{ij} = |\partial P / \partial S_{ij}|$. Let $q_{ij} = g_{ij} / \sum g$ be its share. The *effective number* of cells that learn is $1 / \sum q_{ij}^2$: it is
# $n$ when $n$ cells share alike, whatever else is zero, and it counts small shares little.
#
# Write `cells_that_learn(pooling, scores)`: for maps of logits (B, C, h, w) and a pooling, a function from them to (B, C), the effective number for
# each map, (B, C). Use autograd. Then think: PYLON's maximum teaches one cell. Why is that good for a nodule, and what is lost when a finding covers
# half of a lung?


# %% tags=["solution", "hide-cell"]
def cells_that_learn(pooling, scores):
    """Effective number of cells that get the gradient of a map's logit, (B, C, h, w) -> (B, C)."""
    # solution
    leaf = scores.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pooling(leaf).sum(), leaf)
    share = gradient.abs() / gradient.abs().sum((-2, -1), keepdim=True)
    return 1 / share.square().sum((-2, -1))


# %% tags=["check", "hide-input"]
def highest(number):
    """A pooling: the mean of the highest cells."""
    return lambda scores: scores.flatten(-2).topk(number).values.mean(-1)


def weighted(scores):
    """A pooling of three cells that share 2 : 1 : 1, one of them with a minus."""
    return 6 * scores[..., 0, 0] - 3 * scores[..., 1, 1] + 3 * scores[..., 2, 2]


for seed in range(4):
    scores = torch.randn(2, 5, 6, 4 + seed, generator=torch.Generator().manual_seed(seed))
    cells = 6 * (4 + seed)
    poolings = {
        "the maximum": (lambda S: S.amax((-2, -1)), 1),
        "the mean": (lambda S: S.mean((-2, -1)), cells),
        "the sum": (lambda S: S.sum((-2, -1)), cells),
        "the mean of the highest 5": (highest(5), 5),
        "a pooling with shares 2 : 1 : 1": (weighted, 1 / (1 / 4 + 1 / 16 + 1 / 16)),
    }
    for name, (pooling, true) in poolings.items():
        found = cells_that_learn(pooling, scores)
        assert found.shape == (2, 5), (
            f"shape {tuple(found.shape)}, one number for each map is (2, 5)"
        )
        assert torch.allclose(found, torch.full((2, 5), float(true)), rtol=1e-4), (
            f"{name}, maps of {cells} cells: you say {float(found[0, 0]):.3g}, it is {true:.3g}"
        )
assert not scores.requires_grad, "you changed the scores that were given; work on a copy"
print("exercise 4: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Horizontal bars on a logarithmic scale: median number of cells that learn in PYLON's maps of 576 cells: one with the maximum, then log-sum-exp, and all of them with the mean."}}
from cxrlib.pooling import logit_pooling

kept = []
hook = pylon.head.register_forward_hook(lambda head, given, scores: kept.append(scores))
with torch.no_grad():
    pylon(images[:8])
hook.remove()
names = {"max": "maximum", "lse": "log-sum-exp, r = 5", "mean": "mean"}
counts = [float(cells_that_learn(logit_pooling(name), kept[0]).median()) for name in names]
figure, axis = plt.subplots(figsize=(5.4, 2), layout="constrained")
bars = axis.barh(list(names.values()), counts, color=COLOURS[0])
axis.bar_label(bars, [f"{count:.0f}" for count in counts], padding=3)
axis.set(xscale="log", xlim=(0.7, 2000), xlabel=f"cells that learn, of {kept[0][0, 0].numel()}")
axis.invert_yaxis()
plt.show()

# %% [markdown]
# ## 5. What resolution alone is worth
#
# *Analyse, 15 minutes.*
#
# A map points with its brightest cell, and we take the centre of that cell as the place. With stride $s$ the centres lie on a square lattice,
# $s$ pixels apart. A box of width $w$ and height $h$ lies anywhere, each position as likely as the next. Even a perfect map cannot point into the box if no
# centre lies in it.
#
# Write `ceiling(width, height, stride)`: the probability that at least one centre lies in the box, far from the image's border. Numbers in pixels,
# not necessarily whole. Then: which part of the step from CAM (stride 32) to PYLON (stride 4) could come from this alone, for a nodule and for
# an enlarged heart?


# %% tags=["solution", "hide-cell"]
def ceiling(width, height, stride):
    """Chance that a box at a random place holds the centre of a cell, 0 to 1."""
    # solution
    # Along one axis, an interval of length w holds a point of a lattice of spacing s with
    # probability min(1, w / s); the two axes are independent.
    return min(1, width / stride) * min(1, height / stride)


# %% tags=["check", "hide-input"]
chance = np.random.default_rng(0)
for width, height, stride in (
    (3, 3, 4),
    (17.4, 17.4, 32),
    (40, 10, 16),
    (10, 40, 16),
    (90, 80, 32),
    (0.5, 64, 8),
):
    start = chance.uniform(0, 10 * stride, (200_000, 2))
    end = start + np.array([width, height])
    # The lattice s/2, 3s/2, ...: is there a point from start to end, along both axes?
    inside = np.floor(end / stride - 0.5) > np.floor(start / stride - 0.5)
    tried = inside.all(1).mean()
    found = ceiling(width, height, stride)
    assert 0 <= found <= 1, f"ceiling({width}, {height}, {stride}) = {found:.3g} is no probability"
    assert abs(found - tried) < 0.01, (
        f"box {width} x {height}, stride {stride}: you say {found:.3f}, 200,000 boxes say {tried:.3f}"
    )
print("exercise 5: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Line chart against the stride from 4 to 64: the highest possible pointing score in images of 256 pixels stays at 1 for an enlarged heart, falls from stride 32 on for a mass and from stride 16 on for a nodule."}}
areas = {"nodule": 0.0046, "mass": 0.0148, "enlarged heart": 0.1709}  # share of the image
strides = np.geomspace(4, 64, 80)
figure, axis = plt.subplots(figsize=(5.6, 2.8), layout="constrained")
for (name, area), colour, style in zip(areas.items(), COLOURS, ("-", "--", "-."), strict=False):
    side = 256 * area**0.5
    values = [ceiling(side, side, stride) for stride in strides]
    axis.plot(strides, values, style, color=colour, label=f"{name}, {side:.0f} px")
axis.set(
    xscale="log",
    xlabel="stride in images of 256 px",
    ylabel="highest pointing score",
    ylim=(0, 1.05),
)
axis.set_xticks([4, 8, 16, 32, 64], [4, 8, 16, 32, 64])
axis.minorticks_off()
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 6. Fine maps for free?
#
# *Open, 30 minutes.*
#
# Below, `coarse(images)` gives maps (n, 14, 3, 3) of images (n, 1, 96, 96): PYLON's, blunted to one cell per 32 pixels, of which
# the highest value is kept. It points badly. Suppose it is all you have, and nothing may be trained.
#
# Write `fine_maps(coarse, images)`: maps (n, 14, 96, 96) from 0 to 1 of the same images, made by calling `coarse` as often as you like, on whatever images
# you like. On the 40 images at the top of this page they must point into the finding's mask in at least 10 of 100 cases more than the coarse map
# does. When you have it: what did it cost, for which findings does it help, and would it help a network whose cells hear of the whole image?


# %%
def coarse(images):
    """The highest value of PYLON's maps in each square of 32 px, (n, 14, H/32, W/32)."""
    with torch.no_grad():
        return F.max_pool2d(pylon(images).maps, 8)


def pointing(maps):
    """Share of (image, finding) pairs whose map has its maximum inside the finding's mask."""
    place = F.interpolate(maps, size=96, mode="bilinear").flatten(-2).argmax(-1, keepdim=True)
    hit = masks.flatten(-2).gather(-1, place)[..., 0]
    return float(hit[masks.any((-2, -1))].float().mean())


# %% tags=["solution", "hide-cell"]
def fine_maps(coarse, images):
    """Maps at the image's resolution from a coarse one, (n, 1, H, W) -> (n, 14, H, W)."""
    # solution
    # Move the image by every eighth pixel, so that the borders of the cells fall elsewhere, move
    # the maps back, and take the mean: a place is bright if it was in a bright cell each time.
    shifts = [(down, right) for down in range(-16, 16, 8) for right in range(-16, 16, 8)]
    total = 0
    for down, right in shifts:
        maps = coarse(images.roll((down, right), (-2, -1)))
        enlarged = F.interpolate(maps, size=images.shape[-2:])
        total = total + enlarged.roll((-down, -right), (-2, -1))
    return total / len(shifts)


# %% tags=["check", "hide-input"]
before = images.clone()
finer = fine_maps(coarse, images)
assert torch.equal(images, before), "you changed the images themselves; work on a copy"
expected = (len(images), len(FINDINGS), 96, 96)
assert finer.shape == expected, f"maps of {tuple(finer.shape)}, expected {expected}"
low, high = float(finer.min()), float(finer.max())
assert low >= 0 and high <= 1, f"values from {low:.3g} to {high:.3g}, expected were 0 to 1"
bar, yours = pointing(coarse(images)) + 0.1, pointing(finer)
assert yours >= bar, (
    f"your maps point into the finding in {yours:.1%} of cases, the bar is {bar:.1%}"
)
own = pointing(pylon(images).maps)
print(f"coarse {bar - 0.1:.1%}, yours {yours:.1%}, PYLON's own maps {own:.1%}")
print("exercise 6: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Three small images of one radiograph with the outline of a mass in the left lung: alone, under the coarse map of nine squares, whose brightest place is marked beside the mass, and under the finer map, whose brightest place is marked inside the mass."}}
finding = FINDINGS.index("Mass")
one = int(masks[:, finding].any((-2, -1)).nonzero()[0])
shown = images[one : one + 1]
maps = {"the coarse map": coarse(shown), "made finer": fine_maps(coarse, shown)}
figure, axes = plt.subplots(1, 3, figsize=(6.2, 2.4), layout="constrained")
for axis, name in zip(axes, ("a mass, outlined", *maps), strict=True):
    axis.imshow(shown[0, 0], cmap="gray", vmin=0, vmax=1)
    if name in maps:
        of = maps[name][:, [finding]]
        place = F.interpolate(of, size=96, mode="bilinear").flatten().argmax()
        axis.imshow(F.interpolate(of, size=96)[0, 0], cmap="magma", alpha=0.6)
        axis.plot(place % 96, place // 96, "+", color="white", markersize=10)
    axis.contour(masks[one, finding], [0.5], colors="#00e5ff", linewidths=1)
    axis.set_title(name, fontsize=9)
    axis.set_axis_off()
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
            "question": "For which classifier is the class activation map exact: its mean is the logit?",
            "answers": [
                {
                    "answer": "One that takes the maximum over the grid and then a linear layer.",
                    "correct": False,
                    "feedback": "The maximum is not linear, so it cannot change places with the layer. The sum of that map says nothing.",
                },
                {
                    "answer": "One that takes the mean over the grid and then a linear layer.",
                    "correct": True,
                    "feedback": "Both are linear, so the layer can be applied to each cell first and the mean be taken last.",
                },
                {
                    "answer": "Any classifier, if the map is enlarged bilinearly.",
                    "correct": False,
                    "feedback": "Enlarging makes the map smooth to look at and changes nothing about where it comes from.",
                },
            ],
        },
        {
            "question": "A finding is at the lower left, and a cell at the upper right lights up for it. Which part of a network makes that possible, however small the kernels are?",
            "answers": [
                {
                    "answer": "Group normalization, which divides by the standard deviation of the image.",
                    "correct": True,
                    "feedback": "That number is an average over all cells, so every cell hears of every other one.",
                },
                {
                    "answer": "Batch normalization during evaluation.",
                    "correct": False,
                    "feedback": "It uses numbers stored during training. In training it averages over images and cells; afterwards a cell hears of itself only.",
                },
                {
                    "answer": "A 1 x 1 convolution with many channels.",
                    "correct": False,
                    "feedback": "It mixes the channels of one cell and never looks at another one.",
                },
            ],
        },
        {
            "question": "PYLON pools a map by its maximum. Which cells learn from the label of one image and finding?",
            "answers": [
                {
                    "answer": "All cells inside the finding.",
                    "correct": False,
                    "feedback": "That would need a mask or a pooling that shares. The label does not say where the finding is.",
                },
                {
                    "answer": "All cells, in equal parts.",
                    "correct": False,
                    "feedback": "That is what the mean does, and why its maps spread.",
                },
                {
                    "answer": "The brightest one.",
                    "correct": True,
                    "feedback": "It is the only one the logit depends on. Its neighbours learn as far as they share weights with it.",
                },
            ],
        },
        {
            "question": "A halving by a 3 x 3 convolution with padding 1 shifts where a cell looks by half a pixel. By how much do three such halvings shift it?",
            "answers": [
                {
                    "answer": "By 1.5 pixels of the image.",
                    "correct": False,
                    "feedback": "The second half pixel is one of a grid that is twice as coarse, the third of one four times as coarse.",
                },
                {
                    "answer": "By 3.5 pixels of the image.",
                    "correct": True,
                    "feedback": "0.5 + 1 + 2: each halving is counted in cells that are twice as wide as before.",
                },
                {
                    "answer": "Not at all, if the map is enlarged again.",
                    "correct": False,
                    "feedback": "Enlarging puts the cells where they stand, not where they looked.",
                },
            ],
        },
        {
            "question": "A map with stride 4 points better at nodules than one with stride 32. What follows?",
            "answers": [
                {
                    "answer": "The finer network understands nodules better.",
                    "correct": False,
                    "feedback": "Perhaps, but the coarse map could not have pointed into most nodules even if it were perfect.",
                },
                {
                    "answer": "Nothing, as long as AUROC is the same.",
                    "correct": False,
                    "feedback": "The pointing score is real: someone who looks at the map is led to the nodule more often.",
                },
                {
                    "answer": "First compare with each grid's ceiling: resolution alone may explain it.",
                    "correct": True,
                    "feedback": "That is why every table of localization in this book has the grid ceiling beside the score.",
                },
            ],
        },
    ]
)
