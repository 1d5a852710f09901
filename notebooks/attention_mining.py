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
# # Attention mining: hide what was found, and look again
#
# A classifier has no reason to find all of a lesion. It is paid for the right label, and the most telling part of the lesion is
# enough for that; what its class activation map (CAM) {cite}`zhou2016` shows is that part. {cite:t}`cai2018` turn this round: *hide what the network
# looks at, and demand the right label again*. Now it has to find something else that tells, and again, until the parts add up to the lesion.
# This is **attention mining (AM)**. Two more ideas keep it in bounds: **knowledge preservation (KP)** keeps the network from
# forgetting what it knew while it looks at ever less telling regions, and **multi-scale aggregation (MSA)** gives it features fine enough
# for small findings. What comes out is meant to be *mined*: boxes from labels, for a detector to learn from (`cxrlib harvest`).
#
# No code was ever released, and of the paper we could read the abstract. This page builds the method from it, says where it had to choose,
# and takes it apart: CAM, + MSA, + AM, + KP.
#
# *Reading time 20 minutes, running time about three on a laptop without a graphics card. You need the symbols of
# {doc}`../book/notation`.*

# %% [markdown]
# ## Parameters
#
# `papermill notebooks/attention_mining.ipynb out.ipynb -p variant am -p steps 3` sets any of these. Where a value is `None`, the
# preset chooses.

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds), quick (3 min on a laptop), gpu (one GPU), paper (512 px)
dataset: str = "phantom"  # phantom (drawn by this library), nih, chexpert, vindr or folder
data_dir: str = None  # folder of the dataset, unless it is the phantom
run_dir: str = None  # folder of the results; None: runs/attention_mining/<key>
variant: str = "am_kp"  # the method, or an ablation: am, msa, cam
steps: int = None  # T, how often to hide and look again; variants msa and cam: 0
tau: float = 0.5  # hide cells from this share of a map's maximum up, above 0 to 1
kp_weight: float = 1.0  # lambda, of knowledge preservation; variant am: 0
base: str = None  # a finished run's folder: mine from its base network; None: train one
pretrained: bool = False  # start from ImageNet's weights, which are downloaded; preset paper
seed: int = 0  # of the data, the weights and the order of training
image_size: int = None  # pixels per side, a multiple of 32
epochs: int = None  # passes over the training images, of the base network
mining_epochs: int = None  # passes in every mining step
batch_size: int = None  # images per step of the optimizer
learning_rate: float = None  # peak of Adam's one-cycle schedule, of the base network
accelerator: str = "auto"  # auto, cpu, gpu or mps; one device
num_workers: int = 0  # processes that read images; 2 to 8 for nih

# %%
from cxrlib.models.mining_stages import (
    PRESETS,
    AttentionMiningParameters,
    create_variant,
    fit_stages,
    load_base,
)
from cxrlib.parameters import read_parameters, settings_of

params = read_parameters(AttentionMiningParameters, globals())
settings = settings_of(params, PRESETS[params.preset])
settings

# %% [markdown]
# ## The idea, one step at a time
#
# Let $A$ be the features of an image on a grid of cells, and let each cell vote for finding $c$ with a linear classifier $w_c$. The mean of the
# votes is the image's logit, and their map, without what speaks against the finding and relative to its maximum, is the CAM:
#
# $$\operatorname{logit}(p_c) = \operatorname{mean}_{ij}\big(w_c \cdot A_{ij}\big) + b_c, \qquad
# M_c = \frac{\max(w_c \cdot A, 0)}{\max_{ij} w_c \cdot A_{ij}}.$$
#
# The network that learns this from labels is $f_0$. Step $t = 1 \dots T$ starts a copy $f_t$ of its predecessor and freezes what came before. The
# cells that any predecessor looked at are the **erased set**, which can only grow:
#
# $$E_t = E_{t-1} \cup \{\, M_c^{t-1} \ge \tau \,\}, \qquad E_0 = \{\}, \qquad \tau = 0.5.$$
#
# $f_t$ must name the finding with the whole image and also without $E_t$, and must answer to the whole image as $f_0$ does:
#
# $$L_t = \underbrace{L\big(y, f_t(x)\big)}_{\text{whole}} + \underbrace{L\big(y, f_t(x \odot (1 - E_t))\big)}_{\text{hidden}}
# + \lambda \underbrace{\Big[ \tfrac{1}{K} \lVert g_t - g_0 \rVert^2 + \tfrac{1}{C} \lVert z_t - z_0 \rVert^2 \Big]}_{\text{KP}}$$
#
# with the mean features $g$ and the logits $z$. In training $c$ is one of the findings that the image has, drawn anew each time; nothing
# is hidden in an image without findings. The final map is the **union**, cell by cell the highest of $M^0 \dots M^T$.
#
# The mean is what makes the map a CAM, and what the presets `gpu` and `paper` use. Under it all cells learn alike, which a network
# that trains for two minutes cannot afford: preset `quick` pools as {doc}`lse_lba` does, so that the cells that answer also learn.
#
# A toy shows the bookkeeping. A lesion has three parts; each network sees one of them best:

# %% mystnb={"image": {"alt": "Four small maps of a toy lesion of three blobs: three networks in turn see one blob each, with what the ones before have found darkened, and the union shows all three blobs."}}
import matplotlib.pyplot as plt
import torch

from cxrlib.models import figures_attention_mining as mining_figures

x, y = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 24), indexing="xy")
parts = ((-0.5, -0.4, 0.06), (0.1, 0.1, 0.04), (0.5, 0.55, 0.03))  # x, y, width
blobs = torch.stack([torch.exp(-((x - u) ** 2 + (y - v) ** 2) / w) for u, v, w in parts])
toy = torch.stack(
    [
        (blobs * strength[:, None, None]).sum(0)
        for strength in torch.tensor([[1.0, 0.4, 0.2], [0.4, 1.0, 0.4], [0.1, 0.4, 1.0]])
    ]
).clamp(max=1)
mining_figures.toy(toy.numpy())
plt.show()

# %%
from cxrlib.models.attention_mining import erased_sets

E = erased_sets(toy[:, None, None], torch.tensor([0]), tau=0.5)  # (3, 1, 1, 24, 24): E_1 to E_3
[f"E_{t} hides {float(hidden.float().mean()):.1%}" for t, hidden in enumerate(E, 1)]

# %% [markdown]
# Nothing in the method says that what is found next belongs to the lesion. If the finding comes with something else, a tube, a
# posture, another finding, then that is what $f_1$ will find. Remember this when you read the results.
#
# **Multi-scale aggregation.** A ResNet's features come at strides 4, 8, 16 and 32. CAM reads the coarsest, where a nodule is lost; MSA takes each
# through a 1 × 1 convolution, enlarges it to the finest grid and adds. On which strides, and with what after the sum, the abstract does not say: ours
# stand in the ledger below.
#
# ## The images and the run
#
# The phantom as in {doc}`lse_lba`: plain findings, on one image in five each, independent of each other.

# %%
from cxrlib import datasets, runs

options = settings.get(params.dataset, {})
split = datasets.load(
    params.dataset, params.data_dir, settings["image_size"], seed=params.seed, **options
)
for name in ("train", "val", "test"):
    part = getattr(split, name)
    print(f"{name:5} {len(part):6} images of {len(set(part.patient_ids)):5} patients")
print(*split.notes, f"data {split.data_hash}, split {split.split_hash}", sep="\n")

# %% [markdown]
# The base network is the long part. `-p base <folder of a finished run>` mines from that run's $f_0$ instead; that it was trained on the
# same images is checked.

# %%
torch.manual_seed(params.seed)
model = create_variant(
    params.variant,
    steps=settings["steps"],
    tau=params.tau,
    kp_weight=params.kp_weight,
    pretrained=params.pretrained,
    learning_rate=settings["learning_rate"],
    **settings["network"],
)
weights = sum(weight.numel() for weight in model.parameters())
base = None if params.base is None else load_base(params.base, split)
made = settings if base is None else settings | {"base": base.key}
# Each stage keeps two checkpoints of all networks, and Adam's two moments.
run = runs.start("attention_mining", params, made, split, room=200_000_000 + 40 * weights)
print(f"{len(model.networks)} networks, {weights:,} weights together")
print("finished before" if run.finished else "new or interrupted", "-", run.folder.name)

# %% [markdown]
# ## Training, stage by stage
#
# Each stage has its own checkpoints: a run that is interrupted in step 2 goes on in step 2. In mining steps batch normalization keeps the
# statistics of $f_0$, so that $f_t$ starts out answering exactly as its predecessor.

# %%
reading = {
    "batch_size": settings["batch_size"],
    "accelerator": params.accelerator,
    "num_workers": params.num_workers,
}
history = fit_stages(
    model,
    split,
    run.workspace,
    epochs=settings["epochs"],
    mining_epochs=settings["mining_epochs"],
    seed=params.seed,
    base=base and base.model,
    **reading,
)

# %% mystnb={"image": {"alt": "Two line charts by epoch over all stages: validation loss of each stage in its own colour, and in mining steps the three terms of the loss, of whole images, of hidden cells and of preservation."}}
mining_figures.stages(history)
plt.show()

# %% [markdown]
# The losses of the stages are not of one kind: that of a mining step has two or three terms. *Hidden* is the price of not
# seeing what the earlier networks looked at; *preservation* starts at 0 and says how far $f_t$ has moved away from $f_0$.
#
# ## Results
#
# Scores are those of $f_T$, maps the union. Every number has its 95 % interval over *patients*, and every localization score its controls: a random
# map, the place where other patients have the finding, and the best that the map's grid allows.

# %%
import time

from IPython.display import HTML, display

from cxrlib import figures, metrics
from cxrlib.inference import predict

start = time.monotonic()
predictions = predict(model, split.test, **reading)
results = metrics.evaluate(predictions, split.test, seed=params.seed)
seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - start}
metrics.table(results, "pointing")

# %% mystnb={"image": {"alt": "Dot plot of the pointing score of each finding with its 95 % interval, beside location prior, centre prior, random map and grid ceiling."}}
figures.localization_by_finding(results, "pointing")
plt.show()

# %% [markdown]
# The method is about covering a lesion rather than pointing at it, so continuous Dice is the number to watch:

# %%
metrics.table(results, "continuous_dice").drop(columns=["AUROC", "AP", "images"])

# %% [markdown]
# ## Step by step
#
# One test image for each of five findings, the first in the list, whatever its maps look like. Every map is relative to its own maximum; cells that
# are hidden from a network are dark. A network is asked here about the whole image, so it may look at dark cells too: it has not unlearned them.

# %% mystnb={"image": {"alt": "Rows of images, one finding each: the radiograph with the true boxes, the map of every network in turn with the cells hidden from it darkened, and the union of the maps."}}
import numpy as np

from cxrlib.datasets.base import Truth
from cxrlib.models.mining_steps import TABLE, measure_steps, predict_steps

truth = Truth(split.test)
alone = predict_steps(model, split.test, **reading)
steps_of_pairs = np.stack([of.pairs(truth) for of in alone]).astype(np.float32)  # (T + 1, P, h, w)
five = ["Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule"]
mining_figures.mined(split.test, truth, steps_of_pairs, five)
plt.show()

# %% [markdown]
# The same for one image, in motion:

# %%
display(HTML(mining_figures.animation(split.test, truth, steps_of_pairs, "Effusion")))

# %% [markdown]
# ## Does the union find more of the lesion?
#
# A union can only grow, and a map that claims the whole image covers every lesion. So *found*, the share of the true area that is
# claimed (cells from half of a map's maximum up), stands beside three regions that claim **just as many cells**: cells at random, the
# cells where other patients have the finding, and the cells that the truth covers most. Only what rises faster than these is mined from the image.

# %%
from cxrlib.files import write_csv

measured = measure_steps(alone, split.test, seed=params.seed)
if not run.finished:
    write_csv(run.workspace / TABLE, measured)
folder = run.finish(results, seconds, predictions)

# %% mystnb={"image": {"alt": "Line charts by mining step: share of the true area found by the union of maps, the same for the location prior and for random cells of equal number, and the grid ceiling, for all findings together and for single ones."}}
shown = {"mean of findings": "macro"} | {
    name: name for name in ("Infiltration", "Effusion", "Mass")
}
mining_figures.by_step(
    {
        title: measured.query("metric == 'found' and finding == @name")
        for title, name in shown.items()
    },
    "share of the true area found",
)
plt.show()

# %%
rows = measured.query("finding in ('macro', 'mean')").copy()
rows["number"] = [metrics.show(row) for row in rows.to_dict("records")]
rows.pivot(index=["metric", "part"], columns="step", values="number")
