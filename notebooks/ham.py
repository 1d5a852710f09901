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
# # HAM: attention inside attention
#
# A radiologist first sees the lungs, then that something is wrong, then what it is. {cite:t}`ouyang2021` build a network that
# looks in this order: a **foreground** map reweighs its features, a map of **abnormality** says where anything is wrong, and a
# map for each **finding** says where that finding is. Two losses order the maps like sets: every finding lies within the
# abnormal, and nothing is abnormal that is not a finding. If a few images have boxes, a third loss uses them.
#
# The authors published their code, so every detail is known, traps included: some of its lists of images train on the
# patients that are tested on, and its checkpoints are chosen on the test images. This page builds the network, draws the
# losses, tries whether they do what they are for, and measures what such a leak is worth.
#
# *Reading time 20 minutes, running time about four on a laptop without a graphics card. You need the symbols of
# {doc}`../book/notation`.*

# %% [markdown]
# ## Parameters
#
# `papermill notebooks/ham.ipynb out.ipynb -p ordinal 0 -p seed 1` sets any of these. Where a value is `None`, the preset
# chooses; with `box_share=None` no box is learned from.

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds), quick (4 min on a laptop), gpu (one GPU), paper (512 px)
dataset: str = "phantom"  # phantom (drawn by this library), nih, chexpert, vindr or folder
data_dir: str = None  # folder of the dataset, unless it is the phantom
run_dir: str = None  # folder of the results; None: runs/ham/<key>
ordinal: float = 0.001  # weight of each ordinal constraint; 0 leaves both out
box_share: float = None  # learn from this share of the boxes of four folds; None: from none
pretrained: bool = False  # start from ImageNet's weights, which are downloaded; presets gpu, paper
seed: int = 0  # of the data, the weights and the order of training
image_size: int = None  # pixels per side, a multiple of 8
epochs: int = None  # passes over the training images
batch_size: int = None  # images per step
learning_rate: float = None  # of Adam, at the start
accelerator: str = "auto"  # auto, cpu, gpu or mps; one device
num_workers: int = 0  # processes that read images; 2 to 8 for nih

# %%
from cxrlib.models.ham_presets import PRESETS, HAMParameters
from cxrlib.parameters import read_parameters, settings_of

params = read_parameters(HAMParameters, globals())
settings = settings_of(params, PRESETS[params.preset])
settings

# %% [markdown]
# ## Three levels from one network
#
# The encoder is a ResNet {cite}`he2016` whose last two stages do not shrink the image further; their convolutions are
# *dilated* instead, so that they see as far. Its features $e_4$ therefore have stride 8: 64 × 64 cells of an image of 512 px.
#
# 1. **Foreground.** A gate of channels and a gate of places give one number for each cell, which is added to the features
#    with a factor $\gamma$ that starts at 0. No loss acts on this map: it learns what helps the other two.
# 2. **Abnormality** and 3. **findings.** Both kinds of features go through one convolution to 512 channels $F_k$. Each is pooled by
#    log-sum-exp with a sharpness of $r = 6$, nearer to its maximum than to its mean, and two linear layers without bias give
#    one logit for "anything abnormal" and one for each finding.
#
# The published network, part by part:

# %%
import pandas as pd

from cxrlib.models import create_model

published = create_model("ham")
parts = {
    "encoder, ResNet-50 at stride 8": published.encoder,
    "foreground attention": published.foreground,
    "classification head": published.head,
    "abnormality": published.abnormal,
    "findings": published.classes,
}
weights = {name: sum(w.numel() for w in part.parameters()) for name, part in parts.items()}
pd.Series(weights | {"all": sum(weights.values())}, name="weights").to_frame().style.format("{:,}")

# %% [markdown]
# These are the released network's numbers, each of them. The attention of levels 2 and 3 is the class activation map of the two
# linear layers, cut off at zero:
#
# $$A_c = \operatorname{ReLU}\Big(\sum_k \bar w_{ck} F_k\Big).$$
#
# The bar means that the weights are *detached*: a loss on $A_c$ changes the features, never the classifier. Otherwise
# the easiest way to nest two maps would be to change what counts as the finding.
#
# ## The constraints are statements about sets
#
# Both losses ask which share of a map another one does not cover. For a map $A$ that should lie inside $B$:
#
# $$\operatorname{outside}(A, B) = 1 - \frac{\sum_{ij} \min(A_{ij}, B_{ij}) \; T(A_{ij})}{\sum_{ij} A_{ij}},
# \qquad T(A) = \operatorname{sigmoid}(100 (A - \sigma)), \quad \sigma = 0.75.$$
#
# The **bounded** loss is its mean over the findings of an image, with $B$ the abnormality. The **union** loss turns it round: $A$ is the
# abnormality, and $B$ the highest of the maps of the findings that the image has.

# %% mystnb={"image": {"alt": "Four panels with two coloured discs, the findings, and a grey one, the abnormality. Nested: both losses are 0. A finding outside: bounded is one half. Abnormality too large: union is large. Elsewhere: both are near 1."}}
import matplotlib.pyplot as plt

from cxrlib.models import figures_ham

figures_ham.ordinal_sets()
plt.show()

# %% [markdown]
# Each loss forbids one kind of error, and only together do they say that the abnormality *is* the union of its findings.
#
# Two things are worth knowing before we train. The weight of each constraint is 0.001, beside 1 for the cross-entropy of the
# findings. And $T$ is a threshold on a map that has no upper bound, in the units of the logits: a cell below
# 0.75 counts as outside wherever it lies. While maps are weak, the loss can only fall if they grow.
#
# The whole loss, with weights as released:
#
# $$L = 0.01\, L_\text{abnormality} + L_\text{findings} + 0.001\, (L_\text{bounded} + L_\text{union}) + 0.5\, L_\text{box}.$$
#
# $L_\text{box}$ counts only where boxes may be learned from: the squared distance between a map and the mask of its box,
# relative to the size of both. For it each map is enlarged, brought to 0 to 1 and made nearly binary at 0.4.
#
# What the constraints cost beside the network: one step at the published size, 512 px, on one core of a CPU, and the highest memory of that
# process (`benchmarks/ham_step.py`; mind the ratio, the rest is of one machine on one day).

# %%
from cxrlib import runs

runs.committed("ham_step.csv", "benchmarks")[["quantity", "value", "unit"]].style.format(
    {"value": "{:.3g}"}
)

# %% [markdown]
# ## The images and the runs
#
# The phantom's findings are those of {doc}`lse_lba`, at 64 px. With `box_share`, the boxed patients are divided into five folds: one is tested on,
# and this share of the patients of the other four teaches with boxes.

# %%
from cxrlib import datasets
from cxrlib.datasets.boxed import teach_boxes

options = settings.get(params.dataset, {})
split = datasets.load(
    params.dataset, params.data_dir, settings["image_size"], seed=params.seed, **options
)
if params.box_share is not None:
    split = teach_boxes(split, share=params.box_share, seed=params.seed)
for name, part in split.parts.items():
    print(f"{name:5} {len(part):6} images of {len(set(part.patient_ids)):5} patients")
print(*split.notes, f"data {split.data_hash}, split {split.split_hash}", sep="\n")
print(f"any finding: {(split.train.labels == 1).any(1).mean():.0%} of the training images")

# %% [markdown]
# The last line matters for this method. Where almost every image has some finding, the label of abnormality says almost nothing, and
# its map is free to be large.

# %%
run = runs.start("ham", params, settings, split)
print("finished before" if run.finished else "new or interrupted", "-", run.folder.name)

# %% [markdown]
# ## Training
#
# Adam with a learning rate that falls to a tenth in steps, as released; a small network, a larger rate and fewer epochs in the small presets.

# %%
import time

import torch

from cxrlib import training

torch.manual_seed(params.seed)
model = create_model(
    "ham",
    ordinal=params.ordinal,
    pretrained=params.pretrained,
    learning_rate=settings["learning_rate"],
    **settings["network"],
)
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

# %% mystnb={"image": {"alt": "Small line charts by epoch: cross-entropy of the findings in training and validation, that of abnormality, the bounded and the union loss, the share of cells above the threshold, and the mass of class maps outside abnormality."}}
figures_ham.loss_curves(history)
plt.show()

# %% [markdown]
# Look at the two constraints beside the share of cells above $\sigma$: as long as hardly a cell is active, both losses stay near 1.
# The last chart is the same question without the threshold: how much of the class maps' mass is outside the abnormality,
# at findings that the validation images have.
#
# ## How loud is each loss?
#
# A weight says little before one knows the gradient that it weighs. Here is the length of the gradient that each weighted loss sends into the
# encoder, on eight validation images after training, relative to that of the findings' cross-entropy; the constraints with the weight
# that was released.

# %%
from cxrlib.datasets.base import scaled
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models import ham
from cxrlib.models.ham_losses import any_finding, bounded_loss, union_loss

batch = split.val.__getitems__(range(8))
levels = model.cpu().levels(scaled(batch.images))
maps = levels.A, levels.A_abnormal, batch.labels == 1
abnormal = multilabel_cross_entropy(levels.abnormal, any_finding(batch.labels))
losses = {
    "findings": ham.CLASSES * multilabel_cross_entropy(levels.logits, batch.labels),
    "abnormality": ham.ABNORMALITY * abnormal,
    "bounded": ham.ORDINAL * bounded_loss(*maps),
    "union": ham.ORDINAL * union_loss(*maps),
}


def gradient(loss):
    of = torch.autograd.grad(loss, [*model.encoder.parameters()], retain_graph=True)
    return torch.stack([part.norm() for part in of]).norm().item()


loud = pd.Series({name: gradient(loss) for name, loss in losses.items()}, name="gradient")
(loud / loud["findings"]).to_frame().style.format("{:.2%}")

# %% [markdown]
# With the released weight a constraint is a whisper beside the cross-entropy, and a training as short as this one cannot hear it. The
# study below therefore asks what the constraints do with a weight of 0.1, `-p ordinal 0.1`.
#
# ## The three maps side by side
#
# One test image for each finding, the first in the list, whatever its maps look like. Each map is shown from its own minimum
# to its own maximum.

# %% mystnb={"image": {"alt": "Rows of images for eight findings: radiographs with the true boxes in cyan, and under each the foreground map, the abnormality map and the map of the finding in coarse cells."}}
import numpy as np

from cxrlib import figures
from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS

truth = Truth(split.test)
first = [figures.first_pair(truth, name) for name in FINDINGS[:8]]
few = split.test.subset(np.unique([truth.image[pair] for pair in first if pair is not None]))
with torch.no_grad():
    images = torch.stack([few[i].image for i in range(len(few))])
    attention = model.cpu().attention(images)
figures_ham.attention_levels(few, Truth(few), attention, FINDINGS[:8])
plt.show()

# %% [markdown]
# ## Results
#
# Every number has its 95 % interval over *patients*, and every localization score its controls: a random
# map, the place where other patients have the finding, and the best that the map's grid allows.

# %%
from cxrlib import metrics
from cxrlib.inference import predict
from cxrlib.models.ham_nesting import nesting, summarise_nesting

reading = {
    "batch_size": settings["batch_size"],
    "accelerator": params.accelerator,
    "num_workers": params.num_workers,
}
start = time.monotonic()
predictions = predict(model, split.test, **reading)
results = metrics.evaluate(predictions, split.test, seed=params.seed)
nested = nesting(model, split.test, **reading)
results["attention"] = summarise_nesting(nested, seed=params.seed)
seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - start}
metrics.table(results, "pointing")

# %% mystnb={"image": {"alt": "Dot plot of the pointing score of each finding with its 95 % interval, beside location prior, centre prior, random map and grid ceiling."}}
figures.localization_by_finding(results, "pointing")
plt.show()

# %% [markdown]
# The paper asks for areas. It brings a map to 0 to 1, makes it nearly binary, keeps what exceeds 0.999 (which is 0.469 of the
# map), and counts how often the overlap with the box reaches a threshold $T$: of the union of both (**TIoU**), or of what
# was predicted (**TIoR**). Means over the findings that have boxes:

# %%
from cxrlib.metrics.conventions import TIOBB, TIOU

titles = {f"ham_tiou@{T}": f"TIoU ≥ {T}" for T in TIOU}
titles |= {f"ham_tior@{T}": f"TIoR ≥ {T}" for T in TIOBB}
sources = {"HAM": results["localization"]}
sources |= {figures.CONTROLS[key]: of for key, of in results["controls"].items()}
pd.DataFrame(
    {
        source: {title: metrics.show(of[name]["macro"]) for name, title in titles.items()}
        for source, of in sources.items()
    }
)

# %% [markdown]
# The share of the class maps' mass outside the abnormality, on the test images:

# %%
metrics.show(results["attention"]["outside_abnormality"]["micro"])

# %%
folder = run.finish(results, seconds, predictions)

# %% [markdown]
# ## Do the constraints nest the maps?
#
# This page's run without the constraints, and with a hundred times their released weight, over three seeds; a seed draws
# the phantom, the weights and the order of training, and arms are compared within a seed. The runs are kept in `results/ham_ordinal.csv` and their
# epochs in `results/ham_history.csv`; `snakemake --cores 2 ham` computes them again.

# %% mystnb={"image": {"alt": "Line chart of the class maps' mass outside the abnormality on validation images by epoch: thin lines for single runs, thick ones for the mean of each weight of the constraints."}}
histories = runs.committed("ham_history.csv")
weights = {0.1: "0.1", 0.0: "0, without"}
figures_ham.nesting_by_epoch(histories, "ordinal", weights)
plt.show()

# %% [markdown]
# With the weight of 0.1 hardly any mass is outside. Before we rejoice, the mean of all class maps on the test images, whatever
# the image and the finding:

# %% mystnb={"image": {"alt": "Two rows of square mean maps, a column for each seed: with the constraints weighted 0.1 the outermost cells are brighter than the inside, without them the cells of lungs and heart are brighter than the outermost."}}
figures_ham.mean_maps(runs.committed("ham_mean_maps.csv"), weights)
plt.show()

# %% [markdown]
# And the scores, as means over these seeds and their differences within a seed:

# %%
from cxrlib import studies

study = runs.committed("ham_ordinal.csv")
rows = {
    "mass outside abnormality": ("outside_abnormality", ["micro"], "attention"),
    "AUROC": ("auroc", ["mean"], "classification"),
    "pointing": ("pointing", ["macro"], "localization"),
    "TIoU ≥ 0.1": ("ham_tiou@0.1", ["macro"], "localization"),
    "TIoR ≥ 0.25": ("ham_tior@0.25", ["macro"], "localization"),
}
controls = {"prior": "location_prior", "random map": "random", "grid ceiling": "grid_ceiling"}
comparison = {}
for title, (metric, findings, part) in rows.items():
    values = studies.by_seed(study, "ordinal", metric, findings, part)
    comparison[title] = {
        name: metrics.show(studies.over_seeds(values).loc[weight].to_dict())
        for weight, name in weights.items()
    }
    comparison[title]["0.1 − 0"] = studies.show(studies.differences(values, 0.0).loc[0.1])
    for name, control in controls.items() if part == "localization" else ():
        of = studies.by_seed(study, "ordinal", metric, findings, control)
        comparison[title][name] = f"{of[0.0].mean():.2f}"
pd.DataFrame(comparison).T.fillna("–")

# %% [markdown]
# **They nest.** With a weight of 0.1, about a twentieth of the class maps' mass lies outside the abnormality, without the constraints about a
# fifth. It is less with every seed from the second epoch on.
#
# **And they point nowhere.** The same networks classify only a little less well, but their maps point into the box about as often as
# noise does, or less: they are brightest along the border of the image, where hardly a finding lies. That satisfies both losses ({doc}`exercises/ham`, 3), and
# costs the classifiers little, whose weights the constraints cannot touch. The constraints order the levels; they do not say where any of them
# should be. With their released weight the cross-entropy has the say: see the gradients above.
#
# Without the constraints too the maps point less often into the box than the location prior, with every seed: six epochs from scratch on a grid of
# 8 × 8 cells. The paper trains from ImageNet's weights at 512 px, and nothing here contradicts what it reports.
#
# ## What a leak is worth
#
# For its second setting the release divides the boxed images of ChestX-ray14 into five folds, image by image. A patient with
# several images is then on both sides: in the first fold, 172 of the 184 patients who are tested on are also trained on. In its setting without
# boxes 668 of the 726 boxed patients have other images in training. Only its split for classification is free of this.
# These counts are of the lists in the authors' repository; our splits are by patient, and the released folds are there under the
# name `released_fold_with_leaks`, for comparison only.
#
# Their lists need the whole of ChestX-ray14, so here we make a leak of the same kind ourselves. Of each test patient with several
# images one is tested on. The other images of *half* of these patients are trained on, with their boxes, by one model; those of the
# other half, and as many, by a second. So every test image has one model that has seen its patient and one, as well taught,
# that has not. `python -m cxrlib.models.ham_leak` does this.

# %% mystnb={"image": {"alt": "Dot plots of AUROC, pointing and TIoU for models that have seen the test patients and models that have not, with 95 % intervals, one row for each dataset, and the location prior as a dotted line."}}
leaks = runs.committed("ham_leak_nih_mini.csv")
charts = {"auroc": "AUROC", "pointing": "pointing, all pairs", "ham_tiou@0.1": "TIoU ≥ 0.1"}
figures_ham.leak_worth(leaks, charts)
plt.show()

# %%
differences = leaks[leaks["arm"] == "difference"]
differences = differences.assign(
    shown=[metrics.show(row) for row in differences.to_dict("records")]
)
differences.pivot(index=["dataset", "seed", "siblings"], columns="metric", values="shown")

# %% [markdown]
# The models that have seen the patients score a little more in everything but one measure, and all intervals include zero: on real radiographs, where this network has
# hardly learned anything, one seed and 171 pairs cannot tell what the leak is worth. That is no acquittal. A network that learns patients can use
# a leak; what speaks against it is that nobody can tell afterwards.
#
# ## On real radiographs
#
# The preset `quick` on a small sample of ChestX-ray14 (1,105 training images), one seed each, kept in `results/ham_nih_mini.csv`:
# without boxes, scored on all 601 official boxes of the sample; and with none and with 80 % of the boxed patients of four
# folds, scored on the 114 boxes of the fifth's patients. The columns after `localization` are the controls.

# %%
real = runs.committed("ham_nih_mini.csv").query("finding in ('mean', 'macro')")
settings_of_boxes = {0.0: "fold, no boxes", 0.8: "fold, boxes"}
real["setting"] = real["box_share"].map(settings_of_boxes).fillna("all, no boxes")
real["number"] = [metrics.show(row) for row in real.to_dict("records")]
table = real.pivot(index=["setting", "metric"], columns="part", values="number").fillna("–")
table[["classification", "attention", "localization", *figures.CONTROLS]]

# %% [markdown]
# Without boxes it fails, as the other chapters' networks do: an AUROC barely above chance, maps that point into the box about as often as noise
# and a third as often as the location prior. A thousand images are too few to learn radiographs from scratch.
#
# On the test images of one fold the boxes of 346 images of other patients take pointing from 0.11 to 0.29, which is about where the location prior is: what boxes
# teach first is where findings usually are.

# %% [markdown]
# ## What is the paper's and what is ours
#
# The authors' code is public, and the network, its losses and its scoring follow it; of the paper itself we had the abstract, and we quote none of its
# numbers. Where its code would let a test image choose or teach, we do not follow it.

# %%
from IPython.display import display

from cxrlib import literature

with pd.option_context("display.max_colwidth", None):
    display(literature.fidelity("ham").style.hide(axis="index"))

# %% [markdown]
# **To take away.** An order of attention can be written as a loss on sets, but a loss says nothing
# about where. Look at the maps, not only at the loss that they satisfy. And a list of images is part of a method: look who is on both sides of it.
#
# **Try it yourself.** {doc}`exercises/ham`: six exercises that check themselves, and a quiz.
