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
# # One map, many numbers
#
# Every paper in this book reports how well its maps find a lesion, and hardly two of them count in the same way. One
# asks whether the peak is in the box, one cuts the map at half of its maximum, one at 0.469 of its range, one at the best of
# a hundred thresholds *chosen on the test set*. Boxes are drawn around regions or not; denominators are boxes, images or
# pixels. This page puts the same maps through all of them, with one scorer, and asks of each convention: *what does it reward?*
#
# *Reading time 20 minutes, running time about one.*

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds) or quick (1 min on a laptop)
data_dir: str = None  # folder of ChestX-ray14 or its tables: score its boxes anew
seed: int = 0  # of the phantom's patients, the noise and the bootstrap

# %%
from cxrlib.metrics.experiments import PRESETS, MetricsParameters
from cxrlib.parameters import read_parameters

params = read_parameters(MetricsParameters, globals())
settings = PRESETS[params.preset]
settings

# %% [markdown]
# ## Nine maps of known flaws
#
# A trained network has all flaws at once. To see what a convention rewards we make maps from the true boxes of the
# {doc}`phantom <phantom>`, each with one virtue or flaw: the *perfect* box; a *blob* as wide as the box; a *spot*; one three times as
# *wide*; a blob *beside* the lesion, with its peak on the edge of the box; one *mirrored* to the other lung; a
# *speckled* one; a *faint* one; and a *hazy* one that stands on a floor of one half. The truth is the box, as it is for
# ChestX-ray14.

# %%
from cxrlib.metrics import experiments
from cxrlib.phantom import dataset as phantom

split = phantom.load(128, n_train=10, n_val=10, n_test=settings["images"], seed=params.seed)
truth = experiments.single_boxes(split.test, seed=params.seed)
maps = experiments.lineup(truth, seed=params.seed)
print(f"{len(truth)} boxes of {len(set(truth.patient))} patients; maps of {maps['blob'].shape[1:]}")

# %% mystnb={"image": {"alt": "Two rows of nine heat maps, of a large and a small finding, each with the true box in cyan: perfect, blob, spot, wide, beside, mirrored, speckled, faint, hazy."}}
import matplotlib.pyplot as plt

from cxrlib.metrics import figures

figures.lineup(truth, maps, ["Cardiomegaly", "Nodule"])
plt.show()

# %% [markdown]
# ## Every protocol, the same maps
#
# `measure` compares each map with its truth once, `estimate` makes of it every protocol's number, with an
# interval over patients. The four controls come with it: they are what a number must be held against.

# %%
scores = experiments.score_lineup(
    truth, maps, settings["size"], replicates=settings["replicates"], seed=params.seed
)
table = experiments.tidy(scores, ("macro",))
print(f"{len(scores)} sources of maps x {table['protocol'].nunique()} protocols")

# %% mystnb={"image": {"alt": "Table of scores on colours: a row for each protocol, a column for each of the nine maps and the four controls."}}
shown = [
    "pointing", "continuous_dice", "continuous_dice_squared", "iou@0.5",
    "pylon_pointing", "pylon_iobb_or_iou@0.25", "pylon_iobb_or_iou@0.5",
    "ham_tiou@0.1", "ham_tiou@0.3", "ham_tiou@0.5", "ham_tior@0.5",
    "chexlocalize_hit_rate", "chexlocalize_miou_otsu", "chexlocalize_miou_tuned",
    "maxboxacc", "maxboxacc_v2", "pxap",
    "clarity_iou@0.3", "clarity_iou@0.5",
    "wang_iou@0.1", "wang_iou@0.5", "wang_iobb@0.5", "wang_iobb@0.9",
]  # fmt: skip
figures.by_protocol(table, shown, list(scores))
plt.show()

# %% [markdown]
# Read it by column, and each flaw is a sin in one paper and none in the next.
#
# - A **spot** a few pixels wide, which says nothing about the extent of the lesion, is perfect for the pointing game and for every
#   measure that divides by the *predicted* area (IoBB, IoR). The same spot is next to nothing for IoU and Dice.
# - A map three times too **wide** is perfect for everything with an oracle or a tuned threshold: somewhere on its slope is the
#   right outline. At a fixed threshold it is too large.
# - A **faint** map loses everything under continuous Dice and nothing elsewhere: all others divide by the maximum or the range first. Whether
#   that is right depends on whether the height of a map means something to its reader.
# - A **hazy** map is perfect for all that take min-max first, and nothing for PYLON's mask, which divides by the maximum only: with
#   a floor of one half the whole image is "found".
# - A **mirrored** finding, the wrong lung nearly as bright as the right one, costs nothing in pointing and nothing in boxes *if
#   any box may match*. Only measures that count the predicted area or false boxes see it.
#
# And read the last four columns. **Noise** scores above 0.9 in `wang_iobb@0.9`: its boxes are tiny, and a tiny box that lies in the truth has
# an IoBB of 1. The same noise draws hundreds of false boxes per image, which is why Wang et al. print both numbers
# {cite}`wang2017`; papers that copy the accuracy and drop the false positives report nothing. (The nine maps are empty where their finding is absent, as a
# perfect classifier would have it. The controls are not.)

# %%
afp = table[table["protocol"] == "wang_afp_iobb@0.9"].set_index("source")["value"]
afp.rename("false boxes per image and finding").to_frame().T.round(2)

# %% [markdown]
# ## Only the convention changes
#
# Now hold the map and "IoU of one half" fixed, and change nothing but the convention: how the region is cut, whether a box is drawn
# around it, who chooses the threshold.

# %% mystnb={"image": {"alt": "Dot plot: nine ways of asking whether IoU reaches one half, for the blob, the wide and the speckled map and the location prior, with intervals."}}
at_half = [
    "ham_tiou@0.5", "pylon_iobb_or_iou@0.5", "wang_iou@0.5", "wang_iobb@0.5", "wang_iobb_or_iou@0.5",
    "clarity_iou@0.5", "maxboxacc", "maxboxacc_v2@0.5",
]  # fmt: skip
labels = {name: name.replace("_", " ") for name in ("blob", "wide", "speckled", "location_prior")}
figures.dots(table, at_half, labels)
plt.show()

# %%
of_blob = table[(table["source"] == "blob") & table["protocol"].isin(at_half)]
print(f"the same map scores from {of_blob['value'].min():.2f} to {of_blob['value'].max():.2f}")

# %% [markdown]
# The same blob is a complete failure and a complete success. Three switches do it.
#
# **The threshold policy.** *Fixed* thresholds (HAM, PYLON, Wang) judge the map as it is, calibration of its heights included. *Tuned*
# ones are chosen on other patients (`boxval`) and scored on the rest (`boxtest`): that is allowed as long as it is said, because it
# uses boxes. An *oracle* (wsolevaluation) chooses on what it scores, and is an upper bound. Every protocol of the
# library states its policy, and every result repeats it:

# %%
import pandas as pd

from cxrlib.metrics import PROTOCOLS

pd.DataFrame(
    [(name, PROTOCOLS[name].threshold, PROTOCOLS[name].boxes) for name in at_half],
    columns=["protocol", "threshold", "box convention"],
).style.hide(axis="index")

# %% [markdown]
# **The denominator.** IoU divides by the union, IoBB and IoR by the prediction alone. The second is no measure of localization by
# itself.
#
# **The frame.** A threshold and an overlap are taken in pixels, so the side of the frame matters, most for what is small. This is
# a *perfect* box, and all that changes is how many pixels it is drawn with; the conventions differ in how they round.

# %% mystnb={"image": {"alt": "Line charts of the score of a perfect box against the side of the frame, for all findings together and for nodules alone."}}
sides = (32, 64, 128, 224)
effect = experiments.frames(truth, sides)
rounding = ["iou@0.5", "chexlocalize_miou_otsu", "ham_tior@0.9", "ham_tiou@0.7", "maxboxacc_v2@0.7"]
figures.frame_effect(effect, rounding, ["macro", "Nodule"])
plt.show()

# %% [markdown]
# ## Is A better than B?
#
# Two methods scored on the same patients share their luck: a patient who is easy for one is easy for the other. Their difference has
# to be taken *replicate by replicate*, on the same resamples. Here are the location prior and the centre prior under Otsu's threshold: a
# patient with a large heart is easy for both.

# %%
from cxrlib.metrics import Estimate

metric, macro = "chexlocalize_miou_otsu", -2
compared = ("location_prior", "centre_prior")
one, two = (scores[name].replicates[metric][macro] for name in compared)
n = len(truth)
alone = [Estimate.of(replicates, n) for replicates in (one, two)]
paired = Estimate.of(one - two, n)
for name, number in zip((*compared, "difference, paired"), [*alone, paired], strict=True):
    print(f"{name:20} {number.value:.3f} [{number.low:.3f}, {number.high:.3f}]")
unpaired = sum((number.high - number.low) ** 2 for number in alone) ** 0.5
print(f"width of the interval {paired.high - paired.low:.3f}; as if unpaired {unpaired:.3f}")

# %% [markdown]
# `Scores.minus` does this for every protocol, `cxrlib score a.npz --against b.npz` for two files, and `delong` compares two AUROCs without
# resampling {cite}`delong1988,obuchowski1997`, patients being clusters.
#
# ## Small lesions, large lesions
#
# One number over all findings hides what decides in the clinic. The strata of size are shares of the image: below 2 %, to 6 %, and above.

# %%
from cxrlib.metrics import estimate, measure
from cxrlib.metrics.localization import of_pairs
from cxrlib.metrics.scorer import strata

narrow = maps["spot"]
measured = measure({"spot": of_pairs(narrow, truth, settings["size"])}, truth, settings["size"])
rows = {}
for name, among in strata(truth)["size"].items():
    part = estimate(measured["spot"], ["iou@0.5", "ham_tiou@0.1"], replicates=0, among=among)
    rows[name] = {protocol: part.replicates[protocol][-1, 0] for protocol in part.replicates}
    rows[name]["pairs"] = int(among.sum())
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# ## Real boxes
#
# What do maps score that have seen no image? These are the controls on official boxes of ChestX-ray14 in their frame of 1024 px, by
# every protocol: the 601 boxes of a small sample in the table (macro, 95 % interval over patients), all 984 in the chart. Random maps and the
# ceiling are on a grid of 64 × 64.

# %%
import numpy as np
from IPython.display import display

from cxrlib import runs

if params.data_dir is None:
    real = runs.committed("protocol_controls.csv")
else:
    real = experiments.control_table(params.data_dir, seed=params.seed)
macro = real[real["finding"] == "macro"]
fewest = macro[macro["boxes"] == macro["boxes"].min()].set_index(["protocol", "source"])
text = fewest.apply(lambda N: f"{N['value']:.2f} [{N['low']:.2f}, {N['high']:.2f}]", axis=1)
columns = ["random", "centre_prior", "location_prior", "grid_ceiling"]
listed = text.unstack("source").loc[list(PROTOCOLS), columns]
listed["n"] = fewest["n"].unstack("source")["random"]
with pd.option_context("display.max_rows", None):
    display(listed)

# %% mystnb={"image": {"alt": "Dot plot of the location prior, the centre prior and noise on real boxes, by protocol, with intervals."}}
boxes = real["boxes"].max()
of_all = real[(real["boxes"] == boxes) & (real["finding"] == "macro")]
priors = {
    "location_prior": "location prior",
    "centre_prior": "centre prior",
    "random": "random map",
}
figures.dots(of_all, shown, priors)
plt.show()

# %% [markdown]
# Four things to keep.
#
# - The **location prior** has seen no pixel of the image that it is scored on, points into the right box in 37 % of the cases and, by
#   Wang's boxes, has an IoU above 0.1 in 74 %. That is where learning begins. For comparison, the abstract of PYLON reports a point accuracy of 0.62, and 0.45
#   for ordinary class activation maps {cite}`preechakul2022`.
# - Under MaxBoxAccV2 at an IoU of 0.3, where any contour at the best of a hundred thresholds may match, **noise scores what the prior
#   scores** (0.42 and 0.44). A number of this protocol without its controls cannot be read.
# - Under IoBB noise beats everything (0.96 at 0.9), at some 470 false boxes for each image and finding.
# - A grid of 64 × 64 limits hardly any protocol. One of 16 × 16 would: see the grid ceiling in {doc}`the data chapter <data>`.
#
# ## A trained network
#
# LSE-LBA on the phantom, preset `quick` ({doc}`its page <lse_lba>`), by the same protocols beside its location prior. It is kept in `results/lse_lba_protocols.csv`.

# %% mystnb={"image": {"alt": "Dot plot of a trained LSE-LBA and of its location prior on the phantom, by protocol, with intervals."}}
run = runs.committed("lse_lba_protocols.csv").query("finding == 'macro'")
trained = run.assign(source=run["part"], protocol=run["metric"])
sources = {"localization": "LSE-LBA", "location_prior": "location prior", "random": "random map"}
figures.dots(trained, shown, sources)
plt.show()

# %% [markdown]
# Does the network beat its prior? It depends on whom you ask. It points far better (0.72 against 0.42), and where each finding may
# have a threshold of its own it is ahead, too (0.57 against 0.39 in `clarity_iou@0.3`). Under HAM's fixed threshold it is *behind*
# (0.28 against 0.33 at 0.3), at half maximum (0.21 against 0.23) and under MaxBoxAccV2 (0.36 against 0.38) the two are about equal, and with
# Wang's boxes at an IoBB of 0.5 it is ahead of the prior (0.68 against 0.59) and behind noise (0.79).
# The maps are the same in every row: they point well and cover badly. A paper that printed any one
# of these rows would tell a true story, and the next paper the opposite.
#
# ## Your own maps
#
# Any model's scores and maps can be written as a {doc}`predictions file <../book/predictions>` and scored from the command line:
#
# ```bash
# cxrlib score predictions.npz --dataset nih --data-dir /data/nih --html report.html
# ```
#
# In Python it is `metrics.score(predictions, dataset)`. In a training loop or on several processes, use the classes of
# `cxrlib.metrics.modules`; they give the same numbers.
#
# ## Exercises
#
# **1.** Which protocol would you choose to compare two networks if you care about *where* and not about *how large*, and want no box
# to be used at any point? Find those of `PROTOCOLS` whose policy uses no box, and that the wide map and the spot both pass.

# %% tags=["hide-cell"]
passed = table[table["source"].isin(["wide", "spot"])].groupby("protocol")["value"].min() > 0.95
free = [name for name in passed[passed].index if "boxval" not in PROTOCOLS[name].threshold]
free = [name for name in free if "oracle" not in PROTOCOLS[name].threshold]
assert "pointing" in free and "ham_tior@0.5" not in free
free

# %% [markdown]
# **2.** Make a map that scores 1 in `ham_tior@0.9` and 0 in `ham_tiou@0.1`, without knowing where the lesion is but for its centre. How small must it be?

# %% tags=["hide-cell"]
centre = truth.boxes[:, 0].reshape(-1, 2, 2).mean(axis=1)  # (P, 2), x and y
cell = (centre * 64).astype(int)
dot = np.zeros((len(truth), 64, 64), np.float32)
dot[np.arange(len(truth)), cell[:, 1], cell[:, 0]] = 1
result = measure({"dot": of_pairs(dot, truth, 256)}, truth, 256, ["ham"])["dot"]
large = truth.area() > 0.06
answer = estimate(result, ["ham_tior@0.9", "ham_tiou@0.1"], replicates=0, among=large)
assert answer.replicates["ham_tior@0.9"][-1, 0] > 0.99
assert answer.replicates["ham_tiou@0.1"][-1, 0] < 0.01
print("one cell of the grid: all of it in the box, and hardly any of the box in it")

# %% [markdown]
# **3.** The oracle of wsolevaluation chooses one threshold for all pairs. How much does a *tuned* threshold lose against it on
# the location prior? Compare `clarity_iou@0.5` with `maxboxacc` in the chart of real boxes, and say which part of the difference is the
# oracle and which the box convention.

# %% tags=["hide-cell"]
pair = of_all[of_all["source"] == "location_prior"].set_index("protocol")["value"]
print(pair[["clarity_iou@0.5", "maxboxacc", "maxboxacc_v2@0.5"]].round(3).to_dict())
print("both draw one box around the largest region; +1 and truncation change little at 1024 px, ")
print("so most of the difference is who chose the threshold, and on which patients")

# %% [markdown]
# ## What is theirs and what is ours
#
# The ledger says for each convention how surely it is known. The released evaluation codes of PYLON, HAM, CheXlocalize and
# wsolevaluation were reproduced on 160 maps: counts and rates exactly, means to within 0.0001.

# %%
from IPython.display import display

from cxrlib import literature

with pd.option_context("display.max_colwidth", None):
    display(literature.fidelity("protocols").style.hide(axis="index"))

# %% [markdown]
# **To take away.** A localization score is a statement about a map *and* a convention. Before comparing two numbers ask: which
# threshold, chosen by whom, on which patients; divided by what; in which frame; and what do noise and the location prior score?
#
# **Try it yourself.** {doc}`exercises/metrics`: five exercises that check themselves, and a quiz.
