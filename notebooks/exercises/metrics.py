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
# # Exercises: measures
#
# After these exercises you can score a map by its peak without luck, compare boxes in any frame, say what a threshold that was chosen on the test
# set is worth, and put an interval on a number that comes from patients with several images. At the end you design a measure and
# find out what it rewards.
#
# *You should have read {doc}`../metrics`. About 80 minutes. Each exercise stands alone: write the function, run the cell below it,
# which says what is wrong or that you have passed, and compare the figure.*

# %%
import matplotlib.pyplot as plt
import numpy as np

from cxrlib.figures import COLOURS

SIDE = 64
rows, columns = np.mgrid[:SIDE, :SIDE]


def disc(x, y, radius):
    """Mask (64, 64) of a disc around column x and row y."""
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def blob(x, y, radius):
    """Map (64, 64) of a soft spot that has its peak, 1, at column x and row y."""
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / radius**2)


# %% [markdown]
# ## 1. Pointing, without luck
#
# *Recall, 10 minutes.*
#
# The pointing game asks whether the highest place of a map lies in the box. But which one, if several are equally high, as in a
# map of zeros and ones or in a constant one? `argmax` takes the first, at the upper left, which is luck.
#
# Write `pointing(map_, box)` for a map (h, w) and a box $(x_0, y_0, x_1, y_1)$ of pixel edges, half-open: columns $x_0$ to $x_1 - 1$, rows $y_0$ to
# $y_1 - 1$. Return the share of the highest places that lie in the box: 1 or 0 if there is only one.


# %% tags=["solution", "hide-cell"]
def pointing(map_, box):
    """Share of the highest places of a map (h, w) that lie in a box xyxy, 0 to 1."""
    # solution
    y, x = np.nonzero(map_ == map_.max())
    x0, y0, x1, y1 = box
    return float(np.mean((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)))


# %% tags=["check", "hide-input"]
box = (10, 20, 30, 28)  # 20 wide, 8 high
for y, x, true in ((20, 10, 1), (27, 29, 1), (20, 30, 0), (28, 10, 0), (12, 24, 0), (24, 12, 1)):
    one = np.zeros((40, 50))
    one[y, x] = 0.2
    found = pointing(one, box)
    assert found == true, f"the only peak is in row {y}, column {x}; box {box}: {found}, not {true}"
share = 20 * 8 / (40 * 50)
flat = pointing(np.full((40, 50), 0.5), box)
assert abs(flat - share) < 1e-9, f"a constant map must score the box's share {share}, not {flat}"
four = np.zeros((40, 50))
four[[5, 22, 23, 35], [3, 15, 16, 40]] = 1
assert pointing(four, box) == 0.5, (
    f"two of four peaks lie in the box: {pointing(four, box)}, not 0.5"
)
for seed in range(5):
    map_ = np.random.default_rng(seed).normal(size=(40, 50))
    before = pointing(map_, box)
    for name, other in {"map - 10": map_ - 10, "exp(map)": np.exp(map_)}.items():
        assert pointing(other, box) == before, f"{name} has the same order, and another score"
    whole = pointing(map_, (0, 0, 50, 40))
    assert whole == 1, f"a box around the whole image must be hit: {whole}"
print("exercise 1: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Three small maps with a box: one peak inside the box scores 1, two of four equal patches inside score one half, a constant map scores the box's share of the image."}}
box = (16, 16, 48, 40)
patches = np.zeros((SIDE, SIDE))
for x, y in ((20, 20), (40, 30), (4, 50), (54, 4)):
    patches[y : y + 6, x : x + 6] = 1
maps = {
    "one peak": blob(30, 28, 9),
    "four patches": patches,
    "constant": np.full((SIDE, SIDE), 0.5),
}
figure, axes = plt.subplots(1, 3, figsize=(6, 2.4), layout="constrained")
for axis, (name, map_) in zip(axes, maps.items(), strict=True):
    axis.imshow(map_, cmap="magma", vmin=0, vmax=1)
    x0, y0, x1, y1 = np.array(box) - 0.5  # pixel edges, not centres
    axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="#00e5ff")
    axis.set_title(f"{name}: {pointing(map_, box):.2f}", fontsize=9)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## 2. An overlap that survives a change of frame
#
# *Apply, 10 minutes.*
#
# Write `iou(a, b)`: the area that two boxes share, divided by the area that they cover together. Boxes are $(x_0, y_0, x_1, y_1)$, edges in any unit.
# Some released codes count pixels *inclusively*, $x_1 - x_0 + 1$. Find out what becomes of such an IoU when boxes of the 1024 frame are
# brought to 224 pixels.


# %% tags=["solution", "hide-cell"]
def iou(a, b):
    """Intersection over union of two boxes xyxy, 0 to 1."""
    # solution
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (sum(areas) - shared)


# %% tags=["check", "hide-input"]
chance = np.random.default_rng(0)
for _ in range(200):
    corners = np.sort(chance.integers(0, 33, (2, 2, 2)), axis=1)  # (box, corner, x and y)
    a, b = (box.ravel() for box in corners)
    if (corners[:, 1] == corners[:, 0]).any():
        continue  # a box without an area
    grids = np.zeros((2, 32, 32), bool)
    for grid, (x0, y0, x1, y1) in zip(grids, (a, b), strict=True):
        grid[y0:y1, x0:x1] = True
    counted = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
    found = iou(a, b)
    assert abs(found - counted) < 1e-9, (
        f"{a} and {b}: you say {found:.3f}, counted pixels {counted:.3f}"
    )
    assert abs(iou(b, a) - found) < 1e-9, f"{a} and {b}: the order of the boxes changes it"
    smaller = iou(a * 224 / 1024, b * 224 / 1024)
    assert abs(smaller - found) < 1e-9, f"in another frame {found:.3f} became {smaller:.3f}"
assert iou((0, 0, 1, 1), (5, 5, 6, 6)) == 0, "boxes apart along both axes must have 0"
assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0, "boxes that only touch must have 0"
print("exercise 2: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Line chart: the overlap of a square box with itself shifted sideways falls from 1; a box of 70 pixels, a nodule's, is below one half after 23 pixels, a box of 420 pixels, a heart's, after 140."}}
shifts = np.arange(0, 200, 4)
figure, axis = plt.subplots(figsize=(5.2, 2.8), layout="constrained")
for (name, side), colour, style in zip(
    {"nodule": 70, "mass": 125, "enlarged heart": 420}.items(),
    COLOURS,
    ("-", "--", "-."),
    strict=False,
):
    values = [iou((0, 0, side, side), (shift, 0, side + shift, side)) for shift in shifts]
    axis.plot(shifts, values, style, color=colour, label=f"{name}, {side} px")
axis.axhline(0.5, color="0.7", linewidth=0.8)
axis.set(xlabel="shift in pixels of the 1024 frame", ylabel="IoU")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 3. The threshold and who chose it
#
# *Apply, 15 minutes.*
#
# A map is cut at a threshold before it is scored. `scores` is an array (K, n): the score of each of $n$ lesions at each of $K$ thresholds. The *oracle*
# reports the highest of the $K$ means. An honest report chooses the threshold on some lesions and scores it on the others.
#
# Write `honest(scores, tuning)`: `tuning` (n,) says which lesions the threshold is chosen on, by the highest mean; return the mean score of
# the *other* lesions at that threshold. Then: if all thresholds are equally good, what does the oracle report, and when is its advantage largest?


# %% tags=["solution", "hide-cell"]
def honest(scores, tuning):
    """Mean score of the lesions that the threshold was not chosen on."""
    # solution
    chosen = scores[:, tuning].mean(axis=1).argmax()
    return float(scores[chosen, ~tuning].mean())


# %% tags=["check", "hide-input"]
reports, oracles = [], []
for seed in range(200):
    chance = np.random.default_rng(seed)
    scores = chance.random((20, 30))  # every threshold is worth 0.5
    tuning = chance.permutation(30) < 15
    report = honest(scores, tuning)
    reports.append(report)
    oracles.append(scores.mean(axis=1).max())
    at_each = scores[:, ~tuning].mean(axis=1)
    assert np.isclose(at_each, report).any(), (
        f"{report:.3f} is the mean of the other lesions at none of the thresholds"
    )
    spoilt = scores.copy()
    spoilt[:, ~tuning] = 0.25
    assert np.isclose(honest(spoilt, tuning), 0.25), "lesions of the tuning half were reported"
    best = scores.copy()
    best[7, tuning] += 1  # by far the best for the lesions it is chosen on
    assert np.isclose(honest(best, tuning), at_each[7]), "not the best threshold of the tuning half"
assert abs(np.mean(reports) - 0.5) < 0.02, (
    f"thresholds worth 0.5 are reported as {np.mean(reports):.3f}"
)
print(f"honest {np.mean(reports):.3f}, oracle {np.mean(oracles):.3f}, truth 0.500")
print("exercise 3: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Line chart against the number of thresholds from 1 to 100, all of them worth one half: the oracle's report rises to about 0.6 with 50 lesions, the honest one stays at 0.5."}}
counts = (1, 2, 5, 10, 20, 50, 100)
figure, axis = plt.subplots(figsize=(5.2, 2.7), layout="constrained")
lines = {"oracle": [], "honest": []}
for count in counts:
    drawn = [np.random.default_rng(seed).random((count, 50)) for seed in range(100)]
    lines["oracle"].append(np.mean([scores.mean(axis=1).max() for scores in drawn]))
    lines["honest"].append(np.mean([honest(scores, np.arange(50) < 25) for scores in drawn]))
for (name, values), colour, mark in zip(lines.items(), COLOURS, "os", strict=False):
    axis.plot(counts, values, f"{mark}-", color=colour, markersize=4, label=name)
axis.axhline(0.5, color="0.7", linewidth=0.8)
axis.set(
    xscale="log",
    xlabel="thresholds tried on 50 lesions",
    ylabel="reported score",
    ylim=(0.45, 0.65),
)
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4. An interval over patients
#
# *Analyse, 20 minutes.*
#
# A patient with ten images is not ten patients. Write `interval(values, patients, seed)`: `values` (n,) are scores of images, `patients` (n,) says whose they
# are, by any names. Draw patients with replacement, as many as there are, each with *all* their images; take the mean over the images drawn;
# repeat 1,000 times or more; return the 2.5th and the 97.5th percentile.
#
# Before you run the check: each image of a test set is entered five times. What must happen to the interval? What would a
# bootstrap over images do?


# %% tags=["solution", "hide-cell"]
def interval(values, patients, seed=0):
    """95 % interval of the mean from a bootstrap over patients: low, high."""
    # solution
    _, whose = np.unique(patients, return_inverse=True)
    sums, counts = np.bincount(whose, values), np.bincount(whose)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(2000, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return tuple(np.percentile(means, [2.5, 97.5]))


# %% tags=["check", "hide-input"]
for seed in range(3):
    chance = np.random.default_rng(seed)
    values, patients = chance.normal(0.6, 0.2, 150), np.array([f"P{k}" for k in range(150)])
    low, high = interval(values, patients, seed)
    assert low < values.mean() < high, f"{low:.3f} to {high:.3f} is not around {values.mean():.3f}"
    textbook = 2 * 1.96 * values.std() / 150**0.5
    width = high - low
    assert abs(width / textbook - 1) < 0.12, (
        f"150 patients with an image each: width {width:.4f}, the textbook says {textbook:.4f}"
    )
    low5, high5 = interval(np.tile(values, 5), np.tile(patients, 5), seed)
    assert abs((high5 - low5) / width - 1) < 0.2, (
        f"each image was entered five times, and the width went from {width:.4f} to {high5 - low5:.4f}"
    )
    assert interval(values, patients, seed) == (low, high), "the same seed gave another interval"
    # One patient in ten has 20 images, which score 0; the other patients have one, which scores 1.
    many = np.repeat(np.arange(200), np.where(np.arange(200) % 10 == 0, 20, 1))
    zeros = (many % 10 != 0).astype(float)
    low, high = interval(zeros, many, seed)
    assert low < zeros.mean() < high, (
        f"the mean over images is {zeros.mean():.3f}, the interval {low:.3f} to {high:.3f}"
    )
    by_images = 4 * (zeros.mean() * (1 - zeros.mean()) / len(zeros)) ** 0.5
    assert high - low > 1.5 * by_images, "some patients have many images, which adds to the width"
print("exercise 4: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Chart of interval widths against the number of images per patient from 1 to 16: over patients the width hardly changes, over images as if they were independent it shrinks to a quarter."}}
chance = np.random.default_rng(1)
of_patient = chance.normal(0.6, 0.2, 60)
each = (1, 2, 4, 8, 16)
widths = {"over patients": [], "over images": []}
for images in each:
    patients = np.repeat(np.arange(60), images)
    values = of_patient[patients] + chance.normal(0, 0.02, len(patients))
    widths["over patients"].append(np.ptp(interval(values, patients)))
    widths["over images"].append(np.ptp(interval(values, np.arange(len(values)))))
figure, axis = plt.subplots(figsize=(5.2, 2.7), layout="constrained")
for (name, width), colour, mark in zip(widths.items(), COLOURS, "os", strict=False):
    axis.plot(each, width, f"{mark}-", color=colour, markersize=4, label=name)
axis.set(
    xscale="log",
    xlabel="images of each of 60 patients",
    ylabel="width of the interval",
    ylim=(0, None),
)
axis.set_xticks(each, each)
axis.minorticks_off()
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 5. A measure of your own
#
# *Open, 25 minutes.*
#
# Design `score(map_, mask)`: how well does a map (64, 64), values from 0 to 1, show a lesion whose mask (64, 64) of booleans is known? A number from 0 to 1.
# No measure is right for every purpose, but this much is asked:
#
# - the mask itself, as a map, has at least 0.95, and a faint copy of a map scores as the map does;
# - a blob on the lesion beats a single bright place in it, a blob three times as wide, a blob beside the lesion, noise, and a constant map;
# - a blob on the other side of the chest has less than 0.1.
#
# Then try to cheat your own measure: which useless map scores best?


# %% tags=["solution", "hide-cell"]
def score(map_, mask):
    """How well a map shows a lesion, 0 to 1."""
    # solution
    # Dice without a threshold: the squares punish haze less than sums would.
    S = map_ / max(map_.max(), 1e-12)
    return float(2 * (S * mask).sum() / ((S**2).sum() + mask.sum()))


# %% tags=["check", "hide-input"]
def lineup(seed):
    """A mask and maps with one virtue or flaw each."""
    chance = np.random.default_rng(seed)
    radius = chance.uniform(4, 8)
    x, y = chance.uniform(8, 22), chance.uniform(14, 50)
    spot = np.zeros((SIDE, SIDE))
    spot[round(y), round(x)] = 1
    return disc(x, y, radius), {
        "the mask": disc(x, y, radius).astype(float),
        "a blob": blob(x, y, radius),
        "a single place": spot,
        "a wide blob": blob(x, y, 3 * radius),
        "a blob beside": blob(x + 2 * radius, y, radius),
        "noise": chance.random((SIDE, SIDE)),
        "a constant map": np.full((SIDE, SIDE), 0.5),
        "the other side": blob(SIDE - 1 - x, y, radius),
    }


for seed in range(10):
    mask, maps = lineup(seed)
    scores = {name: score(map_, mask) for name, map_ in maps.items()}
    for name, value in scores.items():
        assert 0 <= value <= 1, f"{name} scores {value:.3f}, which is not from 0 to 1"
        faint = score(0.3 * maps[name], mask)
        assert abs(faint - value) < 1e-6, (
            f"{name}, made faint, goes from {value:.3f} to {faint:.3f}"
        )
    assert scores["the mask"] >= 0.95, f"the mask itself scores only {scores['the mask']:.3f}"
    for name in ("a single place", "a wide blob", "a blob beside", "noise", "a constant map"):
        assert scores[name] < scores["a blob"], (
            f"{name} scores {scores[name]:.3f}, a blob on the lesion {scores['a blob']:.3f}"
        )
    other = scores["the other side"]
    assert other < 0.1, f"a blob on the other side of the chest scores {other:.3f}"
print("exercise 5: passed")

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "Horizontal bars of your measure for eight maps of one lesion: the mask scores 1, a blob on it next, and a single place, a wide blob, a blob beside, noise, a constant map and the other side less."}}
mask, maps = lineup(3)
figure, axis = plt.subplots(figsize=(5.4, 2.8), layout="constrained")
bars = axis.barh(list(maps), [score(map_, mask) for map_ in maps.values()], color=COLOURS[0])
axis.bar_label(bars, fmt="%.2f", padding=3)
axis.set(xlabel="your measure", xlim=(0, 1.15))
axis.invert_yaxis()
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
            "question": "A model returns the same constant map for every image. Its pointing score is computed with `argmax`. What does it measure?",
            "answers": [
                {
                    "answer": "The share of the image that boxes cover.",
                    "correct": False,
                    "feedback": "It would if ties were shared out. `argmax` always takes the first place, the upper left corner.",
                },
                {
                    "answer": "How often the upper left pixel lies in a box.",
                    "correct": True,
                    "feedback": "A tie that is broken by the order of pixels gives a number that is about the order of pixels.",
                },
                {
                    "answer": "Nothing, a constant map has no score.",
                    "correct": False,
                    "feedback": "It gets one all the same, and it goes into the mean.",
                },
            ],
        },
        {
            "question": "A paper reports IoU at the best of 100 thresholds, found on its test set of 50 lesions. What do you think of the number?",
            "answers": [
                {
                    "answer": "It is too high, by more the fewer lesions there are.",
                    "correct": True,
                    "feedback": "The best of many noisy means is above the mean of the best. Choose the threshold on other patients.",
                },
                {
                    "answer": "It is right: the threshold belongs to the model.",
                    "correct": False,
                    "feedback": "Then it must be chosen before the test lesions are looked at.",
                },
                {
                    "answer": "It is too low, since one threshold cannot suit all lesions.",
                    "correct": False,
                    "feedback": "Perhaps one threshold is a poor method, but the report of that method is still too high.",
                },
            ],
        },
        {
            "question": "Why are patients drawn in the bootstrap, and not images?",
            "answers": [
                {
                    "answer": "It is faster.",
                    "correct": False,
                    "feedback": "It is hardly faster, and that would be no reason.",
                },
                {
                    "answer": "It makes intervals narrower.",
                    "correct": False,
                    "feedback": "As a rule it makes them wider.",
                },
                {
                    "answer": "Images of one patient resemble each other, so they tell less than as many patients would.",
                    "correct": True,
                    "feedback": "The next test set will have other patients. The interval says how much the number would change then.",
                },
            ],
        },
        {
            "question": "A method beats another one in pointing, 0.50 to 0.45. A map without a model, the mean box of other patients, has 0.52. What is shown?",
            "answers": [
                {
                    "answer": "The first method localizes better than the second one.",
                    "correct": False,
                    "feedback": "It has the higher score, but neither shows that it looked at the image: the prior did not, and is better.",
                },
                {
                    "answer": "Neither score shows that anything was seen in the image.",
                    "correct": True,
                    "feedback": "Lesions have usual places. A control that knows only these must be beaten first.",
                },
                {
                    "answer": "The prior should be used in practice.",
                    "correct": False,
                    "feedback": "It shows the same place for each patient, which helps none of them.",
                },
            ],
        },
    ]
)
