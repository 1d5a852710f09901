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
# # LSE-LBA: a pooling that keeps its sharpness
#
# {cite:t}`yao2018` asked for two things that pull against each other: a network trained on nothing but
# image labels, and heat maps sharp enough to show a nodule. Their answer has two parts. A
# **multi-resolution network** gives each finding a map at a quarter of the image's side. A **pooling**
# turns that map into one probability, and its sharpness is learned but can never fall below a bound
# $r_0$ that we choose. This page derives the pooling, trains the network from scratch, scores its maps
# and looks at what $r_0$ does.
#
# *Reading time 20 minutes, running time about two on a laptop without a graphics card. You need the
# symbols of {doc}`../book/notation`.*

# %% [markdown]
# ## Parameters
#
# `papermill notebooks/lse_lba.ipynb out.ipynb -p r0 5` sets any of these. Where a value is `None`, the
# preset chooses.

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds), quick (2 min on a laptop), gpu (one GPU), paper (512 px)
dataset: str = "phantom"  # phantom (drawn by this library), nih, chexpert, vindr or folder
data_dir: str = None  # folder of the dataset, unless it is the phantom
run_dir: str = None  # folder of the results; None: runs/lse_lba/<key>
r0: float = 5.0  # sharpness prior, the lower bound of r, from 0 to 10000
seed: int = 0  # of the data, the weights and the order of training
image_size: int = None  # pixels per side, a multiple of 16 (smoke, quick) or 64 (gpu, paper)
epochs: int = None  # passes over the training images
batch_size: int = None  # images per step
learning_rate: float = None  # peak of Adam's one-cycle schedule
accelerator: str = "auto"  # auto, cpu, gpu or mps; one device
num_workers: int = 0  # processes that read images; 2 to 8 for nih

# %% [markdown]
# The next cell refuses a parameter that does not exist or has the wrong type, before any work is done.

# %%
from cxrlib.models.lse_lba import PRESETS, LSELBAParameters
from cxrlib.parameters import read_parameters, settings_of

params = read_parameters(LSELBAParameters, globals())
settings = settings_of(params, PRESETS[params.preset])
settings

# %% [markdown]
# ## From a map to a probability
#
# The network ends in a map $S$ of $w \times h$ probabilities for each finding, $S_{ij} \in (0, 1)$:
# *does this place show it?* We only know whether the *image* shows it. So $S$ is pooled to one number
# $p$, and only $p$ meets the label. Two poolings come to mind, and both fail:
#
# - **The mean.** A nodule covers about 0.5 % of an image. Even a perfect map of it has the mean 0.005,
#   so the network can only say "nodule" by lighting up places that show none.
# - **The maximum.** Now a single place decides. It is also the only one that learns, so the network
#   finds the most telling spot of a large finding and ignores the rest of it.
#
# *Log-sum-exp* pooling lies between the two:
#
# $$p = \frac{1}{r} \log \Big[ \frac{1}{wh} \sum_{ij} e^{r S_{ij}} \Big], \qquad
# \lim_{r \to 0} p = \operatorname{mean}(S), \quad \lim_{r \to \infty} p = \max(S).$$
#
# **LSE-LBA**, log-sum-exp with a *lower-bounded adaptation*, lets the network choose the sharpness $r$
# but not give it up:
#
# $$r = r_0 + e^{\beta}, \qquad \beta \text{ learned}, \quad r_0 \ge 0 \text{ fixed.}$$
#
# $r_0$ is the *sharpness prior*. To see what it buys, take a **perfect** map: 1 on the finding, 0
# elsewhere. If the finding covers a share $a$ of the image, then $p = \log(1 + a(e^r - 1)) / r$.

# %% mystnb={"image": {"alt": "Line chart: pooled probability of a perfect map against sharpness r from 0.1 to 1000, one rising curve each for nodule, mass, effusion and heart; small findings need a much larger r to reach one half."}}
import matplotlib.pyplot as plt
import numpy as np
import torch

from cxrlib import figures

areas = {"nodule": 0.0046, "mass": 0.0148, "effusion": 0.0557, "enlarged heart": 0.1709}
figures.pooled_perfect_maps(areas, np.geomspace(0.1, 1000, 60))
plt.show()

# %% [markdown]
# The areas are the medians of the official boxes of ChestX-ray14. At $r = 5$ a perfect map of an
# enlarged heart pools to 0.65, a perfect map of a nodule to 0.10. This **ceiling** has two consequences.
# A network that wants $p \approx 1$ at a low $r$ must spread its map beyond the finding: $r_0$ sets how
# far. And $p < 0.5$ is no mistake here; we compare findings by their *ranking* (AUROC), not at 0.5.
#
# ## Who learns? The gradient is a softmax
#
# $$\frac{\partial p}{\partial S_{ij}} = \frac{e^{r S_{ij}}}{\sum_{kl} e^{r S_{kl}}}
# = \operatorname{softmax}(r S)_{ij}.$$
#
# The shares add up to one: $r$ decides how they are dealt out. Below, a map with one strong and one weak
# bump; brightness is each place's share of the gradient.

# %% mystnb={"image": {"alt": "Five small images: a map with one strong and one weak bump, then the share of the gradient of every place for r = 0.5, 5, 20 and 100; it shrinks from everywhere to the top of the strong bump."}}
x, y = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="xy")
strong = 0.9 * torch.exp(-((x + 0.35) ** 2 + (y + 0.3) ** 2) / 0.05)
weak = 0.6 * torch.exp(-((x - 0.4) ** 2 + (y - 0.35) ** 2) / 0.08)
figures.pooling_gradients(torch.maximum(strong, weak), [0.5, 5, 20, 100])
plt.show()

# %% [markdown]
# *Top 1 %* is the share of the gradient that goes to one place in a hundred. At $r = 0.5$ everything
# learns alike, the background too. At $r = 5$ both bumps learn, the strong one more. From $r = 20$ on only
# the very top of the strong bump does, and the second lesion gets nothing.
#
# In the library this is a function of a few lines, `cxrlib.pooling.lse_lba_pool`, which stays finite
# for $r$ from 0 to infinity. The loss never clamps $p$: with $1 - p$ written as a sum of two positive
# terms, cross-entropy is exact even where $p$ rounds to 1.

# %%
import inspect

from cxrlib import pooling

print(inspect.getsource(pooling.lse_pool).split('"""')[2])
print(inspect.getsource(pooling.lse_lba_pool).split('"""')[2])

# %% [markdown]
# ## The images
#
# By default we use a *digital phantom*: chests that the library draws, with known anatomy, physics and
# findings. Training sees image labels only; the test images also carry the true extent of every finding.
# Patients are split, not images. In preset `quick` findings are four times as dense as in life, each is on one
# image in five, and they come independently of each other, so that two minutes of training are enough to
# see the method at work; {doc}`phantom` shows them as in life. With `-p dataset nih` the same cells run on
# ChestX-ray14.

# %%
from cxrlib import datasets

options = settings.get(params.dataset, {})
split = datasets.load(
    params.dataset, params.data_dir, settings["image_size"], seed=params.seed, **options
)
for name in ("train", "val", "test"):
    part = getattr(split, name)
    print(f"{name:5} {len(part):6} images of {len(set(part.patient_ids)):5} patients")
print(*split.notes, f"data {split.data_hash}, split {split.split_hash}", sep="\n")

# %% mystnb={"image": {"alt": "Chest radiographs of the test set, one for each finding that has a box, with the true boxes drawn in cyan."}}
from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS

truth = Truth(split.test)
figures.examples(split.test, truth, FINDINGS)
plt.show()

# %% [markdown]
# ## The run folder
#
# Everything this notebook computes goes to one folder, named after all that decides the numbers:
# parameters, code, data, versions. If training is interrupted, running the same command again goes on
# where it stopped. If the run is finished, its weights are shown, not trained again.

# %%
from cxrlib import runs

run = runs.start("lse_lba", params, settings, split)
print("finished before" if run.finished else "new or interrupted", "-", run.folder.name)

# %% [markdown]
# ## The network
#
# An encoder of residual blocks {cite}`he2016` halves the resolution again and again; dense blocks
# {cite}`huang2017` work at each resolution without changing it. The decoder doubles the resolution
# (nearest neighbour), concatenates what the encoder knew at that resolution, and refines. A 1 x 1
# convolution and a sigmoid give one map per finding at stride 4.
#
# Two details decide how well maps point. *Halving without a lean*: the usual 3 x 3 convolution of stride 2
# looks half a pixel to the upper left of the pixels that its cell stands for, and each further halving doubles
# that; after three, a map lies 3.5 pixels too low and too far right, half a nodule at this size. Ours are 4 x 4.
# *How much a place sees*: image labels do not say where, and a place that overlooks the whole chest may collect its
# evidence for an effusion anywhere, for instance in the even grey of the abdomen. With `quick` the
# encoder halves once, so that a place sees its surroundings best.

# %%
from cxrlib.models import create_model

torch.manual_seed(params.seed)
model = create_model(
    "lse_lba", r0=params.r0, learning_rate=settings["learning_rate"], **settings["network"]
)
output = model(torch.zeros(2, 1, settings["image_size"], settings["image_size"]))
print(f"{sum(weights.numel() for weights in model.parameters()):,} weights")
print("logits", tuple(output.logits.shape), " maps", tuple(output.maps.shape))

# %% [markdown]
# ## Training
#
# Cross-entropy between the pooled probabilities and the labels is the whole supervision. No box, no
# mask, no pretrained weights.

# %%
from cxrlib import training

history = training.fit(
    model,
    split,
    run.workspace,
    epochs=settings["epochs"],
    batch_size=settings["batch_size"],
    seed=params.seed,
    accelerator=params.accelerator,
    num_workers=params.num_workers,
)

# %% mystnb={"image": {"alt": "Two line charts by epoch: training and validation loss, with the kept epoch marked, and the learned sharpness r."}}
figures.training_curves(history, "r", r"sharpness $r = r_0 + e^\beta$")
plt.show()

# %% [markdown]
# The epoch with the lowest validation loss is kept. On the right, $r$ starts at $r_0 + 1$; where it goes
# is the network's own choice, and it cannot go below $r_0$. $\beta$ learns at 0.3 of the other weights' rate: Adam moves
# every number by about its rate, however small the gradient, and would take the one scalar that is always pulled
# the same way to an $r$ of 30, where maps are points.
#
# ## Results
#
# Every number has its 95 % interval over *patients*, and every localization score its controls: a random
# map, the place where other patients have the finding, and the best that the map's grid allows. A score
# that does not beat the location prior does not show that the method saw anything in the image.

# %%
import time

from cxrlib import metrics
from cxrlib.inference import predict

start = time.monotonic()
predictions = predict(
    model,
    split.test,
    batch_size=settings["batch_size"],
    accelerator=params.accelerator,
    num_workers=params.num_workers,
)
results = metrics.evaluate(predictions, split.test, seed=params.seed)
seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - start}
folder = run.finish(results, seconds, predictions)
metrics.table(results, "pointing")

# %% [markdown]
# *Pointing* asks whether the map's maximum lies in a true box. The table of continuous Dice, which asks
# how well the whole map covers the finding, follows. With preset `quick` the maps point far better than the location
# prior, and cover a little better: one sharpness for all findings, and one that training likes high, leaves most of a
# large heart or a hazy lung outside the map.

# %%
metrics.table(results, "continuous_dice").drop(columns=["AUROC", "AP", "images"])

# %% mystnb={"image": {"alt": "Dot plot of the pointing score of each finding with its 95 % interval, beside the location prior, the random map and the grid ceiling."}}
figures.localization_by_finding(results, "pointing")
plt.show()

# %% [markdown]
# ## Looking at the maps
#
# One test image for each finding, the first in the list, whatever its map looks like. Above, the
# radiograph with its true boxes; below, the map laid over it, with a cross at its maximum. Read the
# colours together with *max S*: a map can have the right shape and be faint.

# %% mystnb={"image": {"alt": "Pairs of images for each finding: a radiograph with the true boxes in cyan, and the same with the saliency map as a colour overlay and a cross at its maximum."}}
figures.saliency_panels(split.test, truth, predictions, FINDINGS)
plt.show()

# %% [markdown]
# ## What $r_0$ does
#
# The same training for several $r_0$, with preset `quick`. These runs are kept in `results/lse_lba_r0.csv`;
# `snakemake --cores 2 lse_lba` computes them again.

# %% mystnb={"image": {"alt": "Three line charts against r0 with 95 % intervals: mean AUROC, macro pointing and macro continuous Dice, the last two beside the location prior."}}
from cxrlib import literature

study = runs.committed("lse_lba_r0.csv")
figures.sensitivity(study, "r0")
plt.show()

# %%
study[
    study["finding"].isin(["mean", "macro"])
    & study["part"].isin(["classification", "localization"])
].pivot(index="r0", columns="metric", values="value").round(3)

# %% [markdown]
# One seed and a phantom, so read the trend and not the third digit. Pointing is best at $r_0 = 5$, nearly as good at 10, and worse on
# both sides: at 0 and 1 maps spread, and a nodule is pointed at half as often; at 20 they are points, and nodules are lost again.
# Continuous Dice is the same from 0 to 5, above the location prior, and falls beyond; but that mean hides a trade. The Dice of an enlarged heart falls
# all the way, from 0.52 at $r_0 = 0$ to 0.18 at 20, while that of a nodule rises from 0.06 to 0.10 at 5 before it falls. The AUROC hardly
# moves. The summaries of the paper report the same: classification is robust,
# localization is best at a moderate $r_0$ (they say about 5) and degrades for diffuse findings when it is large.
#
# ## On real radiographs
#
# The same preset on a small sample of ChestX-ray14 (1,105 training images; 814 test images with 601
# official boxes), one seed, kept in `results/lse_lba_nih_mini.csv`. Parts other than `classification` and
# `localization` are the controls.

# %%
real = runs.committed("lse_lba_nih_mini.csv").query("finding in ('mean', 'macro', 'micro')")
real.set_index(["metric", "finding", "part"])[["value", "low", "high", "n"]].sort_index().round(3)

# %% [markdown]
# This is a failure, and worth seeing: an AUROC barely above chance, and maps that point less often into the
# box than the location prior does. A thousand images are too few to learn radiographs from scratch; the official
# training set has 86,524. A good score on the phantom does not carry over by itself.
#
# ## What is the paper's and what is ours
#
# No official code was released, and we could read the paper only through its abstract and published
# summaries. The ledger says for each element how surely it is known.

# %%
import pandas as pd
from IPython.display import display

with pd.option_context("display.max_colwidth", None):
    display(literature.fidelity("lse_lba").style.hide(axis="index"))

# %% [markdown]
# The one published number that we can quote is a mean AUROC of 0.761 on the official split of
# ChestX-ray14, from two secondary sources that agree. It was reached with 512 px images and the full
# training set; nothing on this page is comparable with it unless it was run with `-p dataset nih
# -p preset paper`.
#
# **To take away.** Pooling decides what a map may look like. $r_0$ is a statement about size: how small
# a finding may be and still be worth a confident answer.
#
# **Try it yourself.** {doc}`exercises/lse_lba`: five exercises that check themselves, and a quiz.
