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
# # Exercises: HAM
#
# After these exercises you can say in sets and in formulas what "attention inside attention" asks for, find maps that satisfy the constraints and show nothing, say whose weights a constraint may
# change and why, divide images so that no patient is on both sides, and measure what a few boxes add to maps that were learned from labels alone. Read {doc}`../ham` first.
#
# *Six exercises and a quiz, about two hours. Everything runs offline in seconds. A check tells you whether your function has the properties that it
# should have; many solutions pass.*

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import cxrlib
from cxrlib.findings import FINDINGS
from cxrlib.models import figures_exercises_maps as figures
from cxrlib.phantom.controls import controls_of
from cxrlib.phantom.population import patient_of, render, render_some

# %% [markdown]
# ## 1. Levels are sets
#
# *Recall, 15 minutes.*
#
# Every finding lies within the abnormal, and nothing is abnormal that is not a finding. Write `violations(findings, abnormal)`, which says how far sets of cells are from this. `findings` is a boolean array (C, h, w), the cells of
# each finding that the image has; `abnormal` is boolean (h, w). None of the sets is empty. Return two numbers from 0 to 1:
#
# - *bounded*: the share of a finding's cells that are not abnormal, averaged over the findings, each of which counts alike however large it is;
# - *union*: the share of the abnormal cells that belong to no finding.
#
# For which sets are both 0?


# %% tags=["solution", "hide-cell"]
def violations(findings, abnormal):
    """What the bounded and the union constraint say of sets: two numbers, 0 to 1."""
    # solution
    outside = (findings & ~abnormal).sum((1, 2)) / findings.sum((1, 2))
    empty = abnormal & ~findings.any(0)
    return outside.mean(), empty.sum() / abnormal.sum()


# %% tags=["check", "hide-input"]
for seed in range(8):
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.05, 0.6, (3, 1, 1))  # findings of very different size
    findings = rng.random((3, 9, 11)) < sizes
    findings[:, 0, 0] = True
    abnormal = rng.random((9, 11)) < 0.5
    abnormal[0, 0] = True
    bounded, union = violations(findings, abnormal)
    cells = [{tuple(cell) for cell in np.argwhere(one)} for one in findings]
    allowed = {tuple(cell) for cell in np.argwhere(abnormal)}
    shares = [len(one - allowed) / len(one) for one in cells]  # the definition, with Python's sets
    assert np.isclose(bounded, np.mean(shares)), (
        f"of the findings' cells {np.round(shares, 2)} are not abnormal, so bounded is {np.mean(shares):.3f}, not {bounded:.3f}"
    )
    wanted = len(allowed - set.union(*cells)) / len(allowed)
    assert np.isclose(union, wanted), f"union: {wanted:.3f} was expected, got {union:.3f}"
    exact = violations(findings, findings.any(0))
    assert exact == (0, 0), f"the abnormal is the union of the findings: 0 and 0, not {exact}"
    more = abnormal | (rng.random((9, 11)) < 0.3)
    assert violations(findings, more)[0] <= bounded, "more is abnormal, yet bounded has risen"
    everything = violations(findings, np.ones((9, 11), bool))
    assert everything[0] == 0 and everything[1] > 0, "all abnormal: bounded is 0 and union is not"
    again = violations(findings[[0, 0, 1, 2]], abnormal)
    assert np.isclose(again[1], union), "a finding twice does not change the union"
print("exercise 1: passed")

# %% mystnb={"image": {"alt": "Line chart against the radius of a disc of abnormality around the first of two findings: the bounded violation falls from nearly 1 in two steps to 0, the union violation is 0 at first and then rises; no disc brings both to 0."}} tags=["expected", "hide-input"]
rows, columns = np.indices((64, 64))


def disc(row, column, radius):
    return np.hypot(rows - row, columns - column) <= radius


findings = np.stack([disc(26, 22, 8), disc(38, 44, 8)])
radii = range(2, 43, 2)
said = np.array([violations(findings, disc(26, 22, radius)) for radius in radii])
curves = {"bounded": said[:, 0], "union": said[:, 1], "sum of both": said.sum(1)}
figures.lines(
    radii, curves, "radius of abnormality around one finding, cells", "violation", ylim=(-0.03, 1.5)
)
plt.show()

# %% [markdown]
# No disc satisfies both, because the union of two findings is no disc. Each constraint alone has an easy way out, a small set or a large one. Their sum is least where one of the findings alone is
# called abnormal and the other is forgotten.

# %% [markdown]
# ## 2. The same for maps
#
# *Apply, 20 minutes.*
#
# Maps are no sets. HAM asks which share of a map $A$ another map $B$ does not cover, and counts only cells where $A$ is active:
#
# $$\operatorname{outside}(A, B) = 1 - \frac{\sum_{ij} \min(A_{ij}, B_{ij}) \; T(A_{ij})}{\sum_{ij} A_{ij}},
# \qquad T(A) = \operatorname{sigmoid}(100 (A - \sigma)), \quad \sigma = 0.75.$$
#
# Write `outside(A, B, sigma)` for tensors (h, w) without negative values; return a scalar tensor that autograd can differentiate. Of an empty map ($A = 0$) nothing is outside: return 0, and let no gradient be NaN.
#
# What does the threshold do to maps that are perfectly nested, and weak?


# %% tags=["solution", "hide-cell"]
def outside(A, B, sigma=0.75):
    """Share of map A that map B does not cover, or that is too weak to count: 0 to 1."""
    # solution
    T = torch.sigmoid(100 * (A - sigma))
    covered = (torch.minimum(A, B) * T).sum()
    return (A.sum() - covered) / A.sum().clamp(min=1e-5)


# %% tags=["check", "hide-input"]
for seed in range(6):
    torch.manual_seed(seed)
    A, B = 2 * torch.rand(5, 6), 2 * torch.rand(5, 6)
    share = outside(A, B, 0.75)
    assert share.shape == (), f"one number was expected, not shape {tuple(share.shape)}"
    total = covered = 0.0
    for a, b in zip(A.flatten().tolist(), B.flatten().tolist(), strict=True):  # slowly
        total += a
        covered += min(a, b) / (1 + np.exp(-100 * (a - 0.75)))
    assert abs(float(share) - (1 - covered / total)) < 1e-4, (
        f"min(A, B) T(A), summed and divided by the sum of A, leaves {1 - covered / total:.4f}, "
        f"not {share:.4f}"
    )
    assert outside(A + 1, A + 1 + torch.rand(5, 6), 0.75) < 1e-6, "strong and covered everywhere: 0"
    assert outside(A, 0 * A, 0.75) > 1 - 1e-6, "nothing is covered by an empty map: 1"
    assert outside(A, B + 0.1, 0.75) <= share, "B has grown, and more of A is outside"
    half = outside(torch.full((5, 6), 0.3), torch.ones(5, 6), 0.3)
    assert abs(half - 0.5) < 1e-4, (
        f"all cells exactly at sigma = 0.3 and covered: 0.5, not {half:.3f}"
    )
    A, B = A.requires_grad_(), B.requires_grad_()
    to_A, to_B = torch.autograd.grad(outside(A, B, 0.75), (A, B))
    assert (to_B <= 0).all() and to_B.min() < 0, "where it acts on B, the loss asks B to grow"
    assert (to_B[A < B] == 0).all(), "where B covers A already, it gains nothing by growing"
    assert to_A.abs().max() > 0, "no gradient reaches A"
nothing = torch.zeros(5, 6, requires_grad=True)
empty = outside(nothing, B.detach(), 0.75)
assert empty == 0, f"of an empty map nothing is outside: 0, not {empty}"
(slope,) = torch.autograd.grad(empty, nothing)
assert slope.isfinite().all(), "the gradient at an empty map is not finite"
print("exercise 2: passed")

# %% mystnb={"image": {"alt": "Line chart of the loss of perfectly nested maps against their strength: 1 while they are weaker than sigma, one half at sigma, 0 above, for sigma 0.25 and 0.75."}} tags=["expected", "hide-input"]
A = torch.zeros(8, 8)
A[2:5, 2:6] = 1
strengths = np.linspace(0.05, 1.2, 47)
curves = {
    f"σ = {sigma}": [float(outside(s * A, s * A, sigma)) for s in strengths]
    for sigma in (0.25, 0.75)
}
figures.lines(strengths, curves, "value of both maps where they are not 0", "outside(A, A)")
plt.show()

# %% [markdown]
# Maps that are perfectly nested but weak cost as much as misplaced ones. And $\sigma$ is a number in the units of the logits, which have no upper bound and, early in training, no large values either.

# %% [markdown]
# ## 3. Satisfied, and useless
#
# *Analyse, 15 minutes.*
#
# Write `useless(lesions)`. `lesions` is a boolean array (C, h, w), where the findings of an image truly are; at least one cell belongs to no lesion. Return two float arrays, maps of the findings (C, h, w) and of abnormality (h, w), none
# negative, that satisfy both constraints (each loss below 0.01, with $\sigma = 0.75$), although every finding has a map and no finding's map has any of its mass inside a lesion.
#
# What would have to be added to the constraints to rule your maps out?


# %% tags=["solution", "hide-cell"]
def useless(lesions):
    """Maps of findings and of abnormality that are in order and nowhere near a lesion."""
    # solution
    elsewhere = 5.0 * ~lesions.any(0)
    return np.stack([elsewhere] * len(lesions)), elsewhere


# %% tags=["check", "hide-input"]
def constraints(A, B):
    """The bounded and the union loss of one image's maps, written out."""

    def lost(inner, outer):
        active = 1 / (1 + np.exp(-100 * (inner - 0.75)))
        return 1 - (np.minimum(inner, outer) * active).sum() / inner.sum()

    return np.mean([lost(one, B) for one in A]), lost(B, A.max(0))


for seed in range(5):
    rng = np.random.default_rng(seed)
    lesions = np.zeros((3, 12, 12), bool)
    for one, (i, j) in zip(lesions, rng.integers(0, 9, (3, 2)), strict=True):
        one[i : i + 3, j : j + 4] = True
    A, B = (np.asarray(maps, float) for maps in useless(lesions))
    assert A.shape == (3, 12, 12) and B.shape == (12, 12), (
        f"(3, 12, 12) and (12, 12), not {A.shape} and {B.shape}"
    )
    assert min(A.min(), B.min()) >= 0, "a map is never negative"
    assert A.sum((1, 2)).min() > 0, "a map of a finding is empty"
    inside = (A * lesions.any(0)).sum((1, 2)) / A.sum((1, 2))
    assert inside.max() == 0, f"{inside.max():.0%} of a finding's map is inside a lesion"
    with np.errstate(over="ignore"):
        bounded, union = constraints(A, B)
    assert bounded < 0.01, (
        f"bounded is {bounded:.2f}: a finding's map leaves the abnormality, or is too weak to count"
    )
    assert union < 0.01, (
        f"union is {union:.2f}: the abnormality leaves the findings, or is too weak to count"
    )
print("exercise 3: passed")

# %% mystnb={"image": {"alt": "A radiograph with two findings outlined, a mass and an effusion, and three maps, of both findings and of abnormality, which are dark in the lesions and bright outside them."}} tags=["expected", "hide-input"]
names = ["Mass", "Effusion"]
drawn = render(3, 64, seed=1, findings=names, lesion_contrast=4.0)
lesions = np.stack([drawn.masks[FINDINGS.index(name)] for name in names])
A, B = useless(lesions)
maps = {f"map of {names[0]}": A[0], f"map of {names[1]}": A[1], "abnormality": B}
figures.panels(maps, truth=lesions.any(0), image=drawn.pixels)
plt.show()

# %% [markdown]
# Order is not place. In the chapter's study networks found such a way out by themselves: with a strong constraint their maps are in perfect order along the border of the image. Only what the classifiers need
# can hold at least one of the levels where it belongs.

# %% [markdown]
# ## 4. Who may learn from a constraint?
#
# *Analyse, 25 minutes.*
#
# A class activation map is what a classifier says of each cell, without its negative part: $A_c = \max(0, w_c \cdot F_{ij})$. A loss on such a map can be lowered in two ways: by other features $F$, or by another classifier $w$. HAM
# forbids the second. Write `activation(features, weight)` for tensors (K, h, w) and (C, K), which returns the maps (C, h, w). A loss on the maps must teach the features as usual, and must not touch the weights; a
# classification loss on the *logits*, which someone else computes with the same `weight`, must still teach them.
#
# Before you look at the picture: if the weights of *abnormality* could learn from "every finding lies within the abnormal", what would they learn?


# %% tags=["solution", "hide-cell"]
def activation(features, weight):
    """Maps (C, h, w), 0 and above, through which the features learn but not the classifier."""
    # solution
    return torch.einsum("ck,khw->chw", weight.detach(), features).relu()


# %% tags=["check", "hide-input"]
for seed in range(5):
    torch.manual_seed(seed)
    features = torch.randn(6, 4, 5).requires_grad_()
    weight = torch.randn(3, 6).requires_grad_()
    A = activation(features, weight)
    assert A.shape == (3, 4, 5), f"maps (3, 4, 5) were expected, not {tuple(A.shape)}"
    free = (weight @ features.flatten(1)).relu().view(3, 4, 5)
    assert torch.allclose(A, free, atol=1e-6), "the maps are not max(0, w · F), cell by cell"
    assert weight.requires_grad, (
        "the weights have been frozen for good; they are to learn from the labels"
    )
    goal = torch.rand(3, 4, 5)
    (usual,) = torch.autograd.grad((free * goal).sum(), features, retain_graph=True)
    assert A.requires_grad, "the features do not learn either"
    (A * goal).sum().backward()
    assert weight.grad is None, "a loss on the maps has reached the weights"
    assert torch.allclose(features.grad, usual, atol=1e-6), (
        "the features learn otherwise than they would"
    )
    logits = weight @ features.mean((1, 2))
    (alone,) = torch.autograd.grad(logits.square().sum(), weight, retain_graph=True)
    both = logits.square().sum() + activation(features, weight).sum()
    (together,) = torch.autograd.grad(both, weight)
    assert torch.equal(alone, together), (
        "with a loss on the maps beside it, the labels teach the weights otherwise"
    )
print("exercise 4: passed")


# %% mystnb={"image": {"alt": "Four maps: of a finding and of abnormality before training, and of abnormality after 200 steps on the bounded loss: where the classifier's weights learned, it is bright in nearly all cells, with the exercise's function bright where the finding is."}} tags=["expected", "hide-input"]
def trained(maps_of, learns):
    """Maps after 200 steps on the bounded loss, of a finding and of abnormality."""
    torch.manual_seed(0)
    features, weight = torch.rand(12, 16, 16), torch.randn(2, 12)
    weight -= weight.mean(1, keepdim=True)  # no finding, no vote
    features[:, 4:9, 5:12] += 0.8 * weight[0, :, None, None].clamp(min=0)
    known = {"features": features.requires_grad_(), "weights": weight.requires_grad_()}
    descent = torch.optim.Adam([known[learns]], 0.01)
    before = maps_of(features, weight).detach()
    for _ in range(200):
        A = maps_of(features, weight)
        covered = (torch.minimum(A[0], A[1]) * torch.sigmoid(100 * (A[0] - 0.75))).sum()
        descent.zero_grad()
        (1 - covered / A[0].sum()).backward()
        descent.step()
    return before, maps_of(features, weight).detach()


def attached(features, weight):
    return torch.einsum("ck,khw->chw", weight, features).relu()


before, weights_learned = trained(attached, "weights")
_, features_learned = trained(activation, "features")
maps = {
    "a finding": before[0],
    "abnormality,\nbefore": before[1],
    "weights\nlearned": weights_learned[1],
    "features\nlearned": features_learned[1],
}
figures.panels({name: of.numpy() for name, of in maps.items()}, limits=(0, 3))
plt.show()

# %% [markdown]
# ## 5. Patients on both sides
#
# *Apply, 15 minutes.*
#
# The release of HAM divides boxed images into folds image by image; in its first fold 172 of the 184 patients who are tested on are also trained on. Write `tested(patients, share, seed)`. `patients` is an array (N,) of strings, whose
# image each row is; `share` is above 0 and below 1. Return a boolean array (N,), True for the images to test on, so that no patient is on both sides, about the given share of the **patients** is tested on (within half a patient), the same
# seed gives the same division, and over many seeds every patient gets a turn, whether he has one image or twenty.


# %% tags=["solution", "hide-cell"]
def tested(patients, share, seed):
    """Which images to test on: bool (N,), all or none of each patient."""
    # solution
    names = np.unique(patients)
    chosen = np.random.default_rng(seed).permutation(names)[: round(share * len(names))]
    return np.isin(patients, chosen)


# %% tags=["check", "hide-input"]
rng = np.random.default_rng(0)
images_of = rng.integers(1, 8, 40)
images_of[0] = 30  # one patient was there often
names = np.array([f"patient {k:02d}" for k in range(40)])
patients = rng.permutation(names.repeat(images_of))
turns = np.zeros(40)
for seed in range(300):
    test = np.asarray(tested(patients, 0.25, seed))
    assert test.shape == patients.shape and test.dtype == bool, (
        f"bool {patients.shape}, not {test.dtype} {test.shape}"
    )
    both = np.intersect1d(patients[test], patients[~test])
    assert len(both) == 0, (
        f"{len(both)} of {len(np.unique(patients[test]))} tested patients are trained on too"
    )
    count = len(np.unique(patients[test]))
    assert abs(count - 10) <= 0.5, f"a quarter of 40 patients is 10; {count} are tested on"
    assert (test == tested(patients, 0.25, seed)).all(), f"seed {seed} gave two divisions"
    turns += np.isin(names, patients[test])
expected = 300 * 0.25
rare, often = names[turns.argmin()], names[turns.argmax()]
assert turns.min() > 0.55 * expected, (
    f"{rare} was tested on {turns.min():.0f} times in 300, {expected:.0f} are fair"
)
assert turns.max() < 1.5 * expected, (
    f"{often} was tested on {turns.max():.0f} times in 300, {expected:.0f} are fair"
)
print("exercise 5: passed")

# %% mystnb={"image": {"alt": "Line chart of the share of tested patients who are trained on too, against images per patient from 1 to 10: by image it rises from 0 at one image to nearly 1 at 3 images, with the exercise's division it is 0."}} tags=["expected", "hide-input"]
counts = range(1, 11)
seen = {"divided by image": [], "divided by your function": []}
for count in counts:
    patients = np.repeat([f"{k:03d}" for k in range(200)], count)
    by_image = np.random.default_rng(count).random(len(patients)) < 0.2
    for curve, test in zip(seen.values(), (by_image, tested(patients, 0.2, count)), strict=True):
        who = np.unique(patients[test])
        curve.append(np.isin(who, patients[~test]).mean())
figures.lines(counts, seen, "images per patient", "tested patients also trained on")
plt.show()

# %% [markdown]
# ## 6. A few boxes
#
# *Open, 30 minutes.*
#
# HAM's second setting has boxes for some patients. Before a network learns from them, ask what boxes alone can add to maps that were learned without. Here is the library's HAM, trained on the phantom from labels, and 160 new images of it, whose
# patients are divided: some teach with their boxes, the others are scored.
#
# Write `improved(A, finding, taught, taught_finding)`. `A` (P, 8, 8) holds the network's maps of pairs of image and finding, 0 to 1, `finding` (P,) the finding's number, 0 to 13. `taught` (Q, 8, 8) says how much of each cell is covered in the boxed
# pairs of the *other* patients, 0 to 1, and `taught_finding` (Q,) their findings. Return maps (P, 8, 8).
#
# With the boxes of all teaching patients, the highest cell of your maps should be in the finding more often than that of the given maps, by 0.1 of all pairs or more; without any box ($Q = 0$) it should be where it was. A finding may have no box at all. And your maps
# must still depend on `A`.


# %%
images = render_some(
    range(160), 64, 1, controls_of(cooccurrence=0.0, lesion_contrast=4.0, prevalence=0.2)
)
with torch.no_grad():
    pixels = torch.tensor(np.stack([drawn.pixels for drawn in images]))[:, None] / 255
    attention = cxrlib.load_pretrained("ham")(pixels).maps.numpy()  # (160, 14, 8, 8)
image, finding = np.nonzero(np.stack([drawn.labels for drawn in images]))
A = attention[image, finding]
truth = np.stack(
    [
        images[i].masks[c].reshape(8, 8, 8, 8).mean((1, 3))
        for i, c in zip(image, finding, strict=True)
    ]
)  # how much of each cell the finding covers
patient = np.array([patient_of(int(i)) for i in image])
scored = patient % 3 == 0
teachers = np.unique(patient[~scored])


def pointing(maps):
    """How often the highest cell of the scored pairs' maps touches the finding."""
    highest = np.asarray(maps).reshape(len(maps), -1).argmax(1)
    return (truth[scored].reshape(len(maps), -1)[np.arange(len(maps)), highest] > 0).mean()


def with_boxes(rule, count):
    """Maps of the scored pairs by a rule that has the boxes of so many patients."""
    few = np.isin(patient, teachers[:count])
    return np.asarray(rule(A[scored].copy(), finding[scored], truth[few], finding[few]))


# %% tags=["solution", "hide-cell"]
def improved(A, finding, taught, taught_finding):
    """Maps (P, 8, 8) that know where the findings of other patients are."""
    # solution
    usual = np.ones((14, 8, 8))  # where nobody has a box, every place is as likely
    for c in np.unique(taught_finding):
        usual[c] = 0.02 + taught[taught_finding == c].mean(0)
    return (0.5 + A) * usual[finding]


# %% tags=["check", "hide-input"]
everyone = len(teachers)
maps, given = with_boxes(improved, everyone), A[scored]
assert maps.shape == given.shape, f"maps {given.shape} were expected, not {maps.shape}"
assert np.isfinite(maps).all(), "a map holds NaN or an infinite value"
unchanged = with_boxes(improved, 0)
same = unchanged.reshape(len(given), -1).argmax(1) == given.reshape(len(given), -1).argmax(1)
assert same.all(), f"without boxes {(~same).sum()} maps have moved their highest cell"
assert np.isfinite(with_boxes(improved, 3)).all(), (
    "with three patients, a finding without a box gives NaN"
)
gain = pointing(maps) - pointing(given)
assert gain >= 0.1, (
    f"pointing {pointing(maps):.2f}, that of the given maps {pointing(given):.2f}; 0.1 more was asked for"
)
upside = improved(given[:, ::-1].copy(), finding[scored], truth[~scored], finding[~scored])
assert not np.allclose(upside, maps), "turned maps gave the same answer: they have no say any more"
print("exercise 6: passed")


# %% mystnb={"image": {"alt": "Line chart of pointing against the number of patients with boxes from 0 to all: the maps alone stay level, the mean of the boxes alone rises from little to well above them, the solution's combination starts at the maps and ends at or above the mean of the boxes."}} tags=["expected", "hide-input"]
def boxes_alone(A, finding, taught, taught_finding):
    """The mean box of the finding, which never looks at the image."""
    return np.stack([taught[taught_finding == c].sum(0) for c in finding])


numbers = [0, 2, 5, 10, 20, 30, everyone]
rules = {"maps alone": lambda A, *_: A, "boxes alone": boxes_alone, "yours": improved}
curves = {name: [pointing(with_boxes(rule, n)) for n in numbers] for name, rule in rules.items()}
figures.lines(numbers, curves, "patients with boxes", "pointing, new patients", ylim=(0, 0.8))
plt.show()

# %% [markdown]
# What boxes teach first is where findings usually are, and that needs no network. A result "with boxes" should therefore stand beside a location prior made of the same boxes.

# %% [markdown]
# ## Quiz

# %% tags=["remove-input", "quiz"]
from cxrlib.quiz import display_quiz

display_quiz(
    [
        {
            "question": "All cells of the abnormality are bright and strong. Which constraint is violated?",
            "answers": [
                {
                    "answer": "Bounded: findings lie within the abnormal.",
                    "correct": False,
                    "feedback": "Everything lies within everything: a map that is bright everywhere is the easy way to satisfy this one.",
                },
                {
                    "answer": "Union: nothing is abnormal that is no finding.",
                    "correct": True,
                    "feedback": "Most of what is called abnormal belongs to no finding. Without this loss the abnormality could simply be large.",
                },
                {
                    "answer": "Both.",
                    "correct": False,
                    "feedback": "The bounded loss asks about the findings' maps only, and they are covered.",
                },
            ],
        },
        {
            "question": "Why are the weights $w$ detached in the maps on which the constraints act?",
            "answers": [
                {
                    "answer": "To save memory.",
                    "correct": False,
                    "feedback": "They are a few thousand numbers. It is a question of what may be taught.",
                },
                {
                    "answer": "Because a classifier has no gradient through a ReLU.",
                    "correct": False,
                    "feedback": "It has, wherever the map is above 0.",
                },
                {
                    "answer": "So that maps are nested by other features, not by changing what counts as the finding.",
                    "correct": True,
                    "feedback": "With free weights the abnormality would grow until it covers everything, and the classifier would no longer say what the labels ask.",
                },
            ],
        },
        {
            "question": "For binary maps $A$ and masks $M$, what is HAM's box loss, $\\sum (A - M)^2 / \\sum (A + M)$?",
            "answers": [
                {
                    "answer": "What their Dice lacks, $1 - \\text{Dice}$.",
                    "correct": True,
                    "feedback": "Squared differences count the cells in one set only, the denominator the cells of both sets: 1 minus twice the overlap over the sum of areas.",
                },
                {
                    "answer": "What their IoU lacks, $1 - \\text{IoU}$.",
                    "correct": False,
                    "feedback": "The denominator counts the overlap twice; that of the IoU counts it once.",
                },
                {
                    "answer": "The share of the box that is missed.",
                    "correct": False,
                    "feedback": "Cells outside the box that the map claims count as well.",
                },
            ],
        },
        {
            "question": "For the box loss a map is brought to 0 to 1 by its minimum and maximum and made nearly binary at 0.4. Which of its cells learn?",
            "answers": [
                {
                    "answer": "All cells outside the box.",
                    "correct": False,
                    "feedback": "A cell at 0.9 is 1 to nearly all digits after the steep sigmoid; its gradient is nearly 0, wherever it lies.",
                },
                {
                    "answer": "Those near 0.4 of the range, and the lowest and the highest cell.",
                    "correct": True,
                    "feedback": "The sigmoid of steepness 100 is flat elsewhere; the minimum and the maximum set the scale for all others.",
                },
                {
                    "answer": "None: a threshold has no gradient.",
                    "correct": False,
                    "feedback": "This one is a steep sigmoid, and has one within some hundredths of the threshold.",
                },
            ],
        },
        {
            "question": "A dataset has four images of each patient, and a fifth of the images is drawn at random to test on. How many of the tested patients are trained on too?",
            "answers": [
                {
                    "answer": "About a fifth.",
                    "correct": False,
                    "feedback": "A fifth of the images is tested on. The question is where the other three images of such a patient are.",
                },
                {
                    "answer": "About half.",
                    "correct": False,
                    "feedback": "For that all three other images would have to be in the test part with a chance of one half.",
                },
                {
                    "answer": "Nearly all.",
                    "correct": True,
                    "feedback": "That the other three are all in the test part too has a chance of about $0.2^3$, less than one in a hundred.",
                },
            ],
        },
    ]
)
