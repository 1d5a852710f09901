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
# With preset `quick` the maps point better than the location prior at a few findings only, mostly small ones or such that change a whole lung;
# at others they hardly point at all. A network that overlooks most of the image need not look at the lesion to know of it. This is where mining starts.
#
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
# Two things to see. Where $f_0$ is on the lesion, as at the heart, the next networks look at its rim: the lesion is filled from the
# inside. Where $f_0$ looks elsewhere, as below the diaphragm for an infiltration, they look at the rim of *that*.
#
# The same for one image, in motion:

# %%
display(HTML(mining_figures.animation(split.test, truth, steps_of_pairs, "Cardiomegaly")))

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
    name: name for name in ("Infiltration", "Cardiomegaly", "Nodule")
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

# %% [markdown]
# ## The ablation
#
# Four arms, three seeds each, with this page's preset `quick`: a seed draws the phantom, the weights and the order of training, and arms are
# compared within a seed. **CAM** reads the coarsest features, **+ MSA** all of them, **+ AM** mines without preservation ($\lambda = 0$), **+ AM + KP** is the
# method. Both mine from the same base network, that of + MSA. The runs are kept in `results/attention_mining_variants.csv`; `snakemake --cores 2
# attention_mining` computes them again.

# %% mystnb={"image": {"alt": "Three dot plots over the four arms with 95 % intervals over seeds: mean AUROC, pointing and continuous Dice, the last two with the location prior and the grid ceiling of each arm."}}
import pandas as pd

from cxrlib import studies
from cxrlib.models import figures as model_figures

study = runs.committed("attention_mining_variants.csv")
names = {"cam": "CAM", "msa": "+ MSA", "am": "+ AM", "am_kp": "+ AM + KP"}
rows = {
    "AUROC": ("auroc", ["mean"], "classification"),
    "pointing": ("pointing", ["macro"], "localization"),
    "continuous Dice": ("continuous_dice", ["macro"], "localization"),
}
model_figures.arms(study, "variant", rows, names)
plt.show()

# %%
claims = {
    "MSA: with − without": ("msa", "cam"),
    "AM: with − without": ("am", "msa"),
    "KP: with − without": ("am_kp", "am"),
    "AM + KP − base network": ("am_kp", "msa"),
}
studies.compared(study, "variant", rows, claims)

# %% [markdown]
# **The labels survive.** Mining changes the mean AUROC by less than 0.01 with every seed, up or down, with preservation and without: little is
# forgotten that would have to be preserved.
#
# **The maps gain little.** With preservation continuous Dice is higher than the base network's with every seed, by less than 0.01 on average, and the interval just
# excludes zero; without, it is higher too, but by how much varies. Pointing does not move: where a map is highest, more maps do not help. Both stay below the
# location prior with every seed.
#
# **MSA points better.** The aggregated network points better than CAM with every seed, once by a hair: its grid of 24 × 24 cells can hold what one of 6 × 6
# cannot, as the grid ceilings show. By Dice and on labels neither is better with every seed.
#
# ## What goes wrong without preservation
#
# Both arms start from the same base network (step 0), so what differs is what mining does to it. First the labels: by how much the mean
# AUROC changes from step 0, over seeds.

# %%
by_steps = runs.committed("attention_mining_steps.csv")


def step_numbers(arm, metric, findings, part):
    """One number of each seed (rows) and step (columns)."""
    of_arm = by_steps[by_steps["variant"] == arm]
    return studies.by_seed(of_arm, "step", metric, findings, part)


changes = {}
for arm in ("am", "am_kp"):
    numbers = step_numbers(arm, "auroc", ["mean"], "classification")
    rows = studies.differences(numbers, 0).iterrows()
    changes[names[arm]] = {
        f"step {t}": "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**row) for t, row in rows
    }
pd.DataFrame(changes).T

# %% [markdown]
# Then what the union finds, beside as many cells of the controls. *Diffuse* is the mean of infiltration, edema, pneumonia and consolidation, of which
# the first network should see a part only.

# %% mystnb={"image": {"alt": "Line charts by mining step with 95 % intervals over seeds, for mining without and with preservation, for all findings and for the diffuse ones: share of the true area found by the union, the same for the location prior and for random cells of equal number, and the grid ceiling."}}
groups = {
    "all findings": ["macro"],
    "diffuse": ["Infiltration", "Edema", "Pneumonia", "Consolidation"],
}


def found_by_step(arm, findings):
    """Rows for the figure: every part of the table, over seeds."""
    parts = []
    for part in mining_figures.CONTROLS:
        numbers = studies.over_seeds(step_numbers(arm, "found", findings, part))
        parts.append(numbers.rename_axis("step").reset_index().assign(part=part))
    return pd.concat(parts)


mining_figures.by_step(
    {
        f"{names[arm]}, {group}": found_by_step(arm, findings)
        for group, findings in groups.items()
        for arm in ("am", "am_kp")
    },
    "share of the true area found",
)
plt.show()

# %%
gains = {}
for arm in ("am", "am_kp"):
    for group, findings in groups.items():
        found, area = (
            step_numbers(arm, "found", findings, part) for part in ("localization", "random")
        )
        gains[names[arm], group] = {
            "found, step 0": studies.show(studies.over_seeds(found).loc[0]),
            "found, gained": studies.show(studies.differences(found, 0).iloc[-1]),
            "area, gained": studies.show(studies.differences(area, 0).iloc[-1]),
        }
pd.DataFrame(gains).T

# %% [markdown]
# **More is found with every step**, in every seed, also of the diffuse findings: this much of the claim holds. **More is claimed, too.** Over all findings
# the true area is found faster than the image is claimed, so what is added is better than random cells, with seed 0 barely. But the location prior finds more with as
# many cells, at every step and with every seed: where the finding usually is would still have been the better guess.
#
# **Preservation is a brake.** With it the maps grow less than half as much as without, in what they find as in what they claim, and with every seed
# the claimed area stays cleaner. On labels it had nothing to save.
#
# **Mining multiplies what the base network knows.** With seed 0 the base network looks for diffuse findings below the diaphragm, and finds less than random
# cells would; after two steps it still does. With seeds 1 and 2 it starts at chance or above, and ends well above. Nothing in the method tells the one from the other.
#
# ## By the protocol of the field
#
# {cite:t}`wang2017` put a box around each region of a map and ask whether it lies in a true box: IoBB, the share of the predicted box that is
# inside, above $T$. *Accuracy* is the share of the findings for which some box does; *AFP* the number of false boxes for
# each image and finding. Only the two together say something: many boxes find much. On the phantom, mean of findings, over seeds:

# %%
Ts = [0.1, 0.25, 0.5, 0.75, 0.9]


def wang(arm, part, metric):
    """A number for each T, over seeds."""
    tables = {T: studies.by_seed(study, "variant", f"{metric}@{T}", part=part)[[arm]] for T in Ts}
    return {
        f"T = {T}": "{value:.2f} [{low:.2f}, {high:.2f}]".format(
            **studies.over_seeds(table).loc[arm]
        )
        for T, table in tables.items()
    }


sources = {names[arm]: (arm, "localization") for arm in names}
sources |= {
    "location prior": ("am_kp", "location_prior"),
    "random map": ("am_kp", "random"),
    "grid ceiling": ("am_kp", "grid_ceiling"),
}
accuracy, false_boxes = (
    pd.DataFrame({name: wang(*source, metric) for name, source in sources.items()}).T
    for metric in ("wang_iobb", "wang_afp_iobb")
)
pd.concat({"accuracy": accuracy, "AFP": false_boxes})

# %% [markdown]
# Noise wins: the random map has the highest accuracy at every $T$, because it breaks into some sixty boxes for each finding and image, and its AFP gives it away.
# The same effect, smaller, is at work in mining: with every seed a step's new regions are new boxes, which raise the accuracy at $T = 0.1$ and the AFP at every $T$, most
# without preservation.
#
# ## On real radiographs
#
# The same preset on a small sample of ChestX-ray14 (1,105 training images; 814 test images with 601
# official boxes), one seed, kept in `results/attention_mining_nih_mini.csv`; intervals are over patients. Parts other than `classification` and
# `localization` are the controls.

# %%
real = runs.committed("attention_mining_nih_mini.csv")
real["number"] = [metrics.show(row) for row in real.to_dict("records")]
overview = real.query(
    "finding in ('mean', 'macro') and metric in ('auroc', 'pointing', 'continuous_dice')"
)
overview.pivot(index=["metric", "part"], columns="variant", values="number")[list(names)]

# %% [markdown]
# And by Wang's protocol, beside what Wang et al. published for CAM in a ResNet-50 with ImageNet's weights, trained on the official split of all of ChestX-ray14 and
# scored on all its 984 boxes (means of the eight findings, computed from their table):

# %%
from cxrlib import literature

published = literature.published("wang2017")
rows = {}
for metric, label in (("wang_iobb", "T(IoBB) Acc"), ("wang_afp_iobb", "T(IoBB) AFP")):
    theirs = published[published["metric"] == label].groupby("threshold")["value"].mean()
    rows[label, "Wang 2017, published"] = {f"T = {T}": f"{theirs[T]:.2f}" for T in Ts}
    for arm, part in sources.values():
        of_arm = real.query("variant == @arm and part == @part and finding == 'macro'")
        of_metric = of_arm.set_index("metric")["number"]
        name = names[arm] if part == "localization" else part.replace("_", " ")
        rows[label, name] = {f"T = {T}": of_metric[f"{metric}@{T}"] for T in Ts}
pd.DataFrame(rows).T

# %% [markdown]
# **All four arms fail**, as the other methods of this book do on a thousand radiographs: an AUROC barely above chance, and maps that point into the box a third as often as
# the location prior and hardly more often than noise. Mining cannot add what the base network does not know: no arm's Dice reaches the prior's, and by Wang's
# protocol every arm is less accurate than the prior at every $T$. The published row is of another training altogether, so nothing here is comparable with it, but its
# AFP shows what is missing: one false box for every second image and finding, where ours draw three to five.
#
# ## Harvest
#
# The stated purpose is boxes to learn from. Here are those mined from the test images of this run, one around each region of a present finding's
# union map from half of its range up; the score is the image's probability times the highest value of the region. `cxrlib harvest` writes the same for any labelled
# folder, as CSV and as COCO JSON with the run's provenance.

# %%
from cxrlib.findings import FINDINGS
from cxrlib.harvest import harvest

boxes = harvest(predictions, split.test)
boxes["finding"] = [FINDINGS[finding] for finding in boxes["finding"]]
print(f"{len(boxes):,} boxes in {boxes['image_id'].nunique()} images")
boxes.sort_values("score", ascending=False).head(5).round(2)

# %% [markdown]
# ## What is the paper's and what is ours
#
# The abstract names the three ideas. Nearly everything else on this page is our reading of them; no number of the paper is known to us, so none is
# compared.

# %%
with pd.option_context("display.max_colwidth", None):
    display(literature.fidelity("attention_mining").style.hide(axis="index"))

# %% [markdown]
# **To take away.** Mining makes a network say more. Whether it then says more that is *true* depends on where it looked at first, so measure what is
# claimed beside what is found, and put the location prior beside both.
#
# **Try it yourself.** {doc}`exercises/attention_mining`: six exercises that check themselves, and a quiz.
