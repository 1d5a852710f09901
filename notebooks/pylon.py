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
# # PYLON: fine maps, and what spoils them
#
# A *class activation map* (CAM) is read off a classifier for free, and it is coarse: a cell of the last features of a
# ResNet stands for 32 × 32 pixels, about as much as a nodule covers ten times over. {cite:t}`preechakul2022` ask for a map at a
# quarter of the image's side instead, from the same labels, and report that the highest point of the map lies in the
# radiologist's box for 0.62 of the findings of ChestX-ray14, where CAM reaches about 0.45. Larger decoders alone do not do it:
# they name two parts, harmless in segmentation, that let a cell answer for a finding that is somewhere else, **global
# average pooling** inside the network and **group normalization**. This page builds the network, shows both leaks, trains PYLON
# beside CAM, and tries the claim on five networks.
#
# *Reading time 20 minutes, running time about five on a laptop without a graphics card. You need the symbols of
# {doc}`../book/notation`.*

# %% [markdown]
# ## Parameters
#
# `papermill notebooks/pylon.ipynb out.ipynb -p variant fpn_group -p against fpn` sets any of these. Where a value is `None`, the
# preset chooses; with `against=None` nothing is trained beside the variant.

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds), quick (5 min on a laptop), gpu (one GPU), paper (256 px)
dataset: str = "phantom"  # phantom (drawn by this library), nih, chexpert, vindr or folder
data_dir: str = None  # folder of the dataset, unless it is the phantom
run_dir: str = None  # folder of the results; None: runs/pylon/<key>
variant: str = "pylon"  # the method, an ablation or a baseline: cxrlib.models.variants
against: str = "cam_mean"  # a second variant, trained beside the first; None: none
pretrained: bool = False  # start from ImageNet's weights, which are downloaded; presets gpu, paper
seed: int = 0  # of the data, the weights and the order of training
image_size: int = None  # pixels per side, a multiple of 32 from 64 up (gpu, paper: from 256)
epochs: int = None  # passes over the training images, at most
batch_size: int = None  # images per step
learning_rate: float = None  # of Adam, at the start
accelerator: str = "auto"  # auto, cpu, gpu or mps; one device
num_workers: int = 0  # processes that read images; 2 to 8 for nih

# %%
from cxrlib.models.variants import PRESETS, PYLONParameters, create_variant
from cxrlib.parameters import read_parameters, settings_of

params = read_parameters(PYLONParameters, globals())
settings = settings_of(params, PRESETS[params.preset])
settings

# %% [markdown]
# ## Why CAM is coarse
#
# A ResNet {cite}`he2016` halves the resolution five times. Its last features $F$ lie on a grid of $h \times w$ cells, $h = H / 32$. The usual
# classifier takes their mean over the grid, *global average pooling* (GAP), and then a linear layer. Both are linear, so
# they can change places {cite}`zhou2016`:
#
# $$\operatorname{logit}(p_c) = w_c \cdot \Big[ \frac{1}{hw} \sum_{ij} F_{ij} \Big] + b_c
# = \frac{1}{hw} \sum_{ij} \underbrace{\left( w_c \cdot F_{ij} + b_c \right)}_{\text{CAM of finding } c}.$$
#
# The classifier *is* the mean of a map, and the map costs nothing. But at 256 px it has 8 × 8 cells, and {doc}`data` shows
# what a perfect map on such a grid can score: it finds hearts, not nodules.
#
# ## The network
#
# PYLON carries the coarse features down to stride 4 and pools there.

# %% mystnb={"image": {"alt": "Diagram of PYLON: an encoder column with features at strides 4, 8, 16 and 32, pyramidal attention on the coarsest, three UP modules that enlarge and add the finer features, a head that gives a map at stride 4 and its maximum."}}
import matplotlib.pyplot as plt

from cxrlib.models import figures as model_figures

model_figures.pylon_diagram()
plt.show()

# %% [markdown]
# - **Pyramidal attention (PA)** looks at the coarsest features through max-pooling and convolutions of 7, 5 and 3 cells and
#   multiplies each cell by one number: how much does this region matter? It sees far, but says *where*.
# - **UP** enlarges what comes from below and adds the finer features, seen through 1 × 1 convolutions: cell by cell, so that
#   a cell is told by no neighbour at its own level what to say.
# - The **maximum** of a map is the image's logit. One cell answers for the image and learns from its label.
#
# The published network, part by part, and what it makes of an image of 256 px:

# %%
import pandas as pd
import torch

from cxrlib.models import create_model

published = create_model("pylon")
parts = {"encoder, ResNet-50": published.encoder, "PA": published.pa}
parts |= {f"UP to stride {stride}": up for stride, up in zip((16, 8, 4), published.up, strict=True)}
parts |= {"head": published.head}
weights = {name: sum(w.numel() for w in part.parameters()) for name, part in parts.items()}
pd.Series(weights | {"all": sum(weights.values())}, name="weights").to_frame().style.format("{:,}")

# %% [markdown]
# These are the released network's numbers, each of them. Its code wants images of 256 px or a multiple; with fewer levels of
# attention (`pa_depth`) ours takes any multiple of 32 from 64 up, which the small presets need.
#
# ## Two leaks
#
# We change one corner of the features and ask which cells of a module's output notice. In PA and UP as published only the
# neighbourhood does. A global average adds the news to every cell. So does group normalization: it divides each image by its own
# standard deviation, and that is a global average too. A cell can then say "effusion" because there *is* one, somewhere,
# and nothing in the label tells it that it is the wrong cell.

# %% mystnb={"image": {"alt": "Four square maps of changes after one corner of the features was altered: with PA and UP only that corner lights up, with a global average and with group normalization all cells do."}}
from cxrlib.models.encoders import normalize_with
from cxrlib.models.pylon import PA, UP

torch.manual_seed(0)
x, coarse = torch.randn(1, 64, 64, 64), torch.randn(1, 32, 32, 32)
altered = x.clone()
altered[..., :8, :8] += 3
pa, pa_gap = (PA(64, 32, depth=1, gap=gap) for gap in (False, True))
pa_gap.load_state_dict(pa.state_dict(), strict=False)  # all but the average
up, up_group = (UP(64, 32, "2layer") for _ in range(2))
up_group.load_state_dict(up.state_dict())
normalize_with("group", up_group)
modules = {
    "PA": (pa,),
    "PA with a global average": (pa_gap,),
    "UP": (up, coarse),
    "UP, group normalization": (up_group, coarse),
}
effects = {}
with torch.no_grad():
    for name, (module, *more) in modules.items():
        module.eval()
        effects[name] = (module(altered, *more) - module(x, *more)).abs().mean(1)[0]  # (64, 64)
model_figures.changes(effects)
plt.show()

# %%
far = {name: float((effect[32:, 32:] > 0).float().mean()) for name, effect in effects.items()}
pd.Series(far, name="cells of the far quarter that change").to_frame().style.format("{:.0%}")

# %% [markdown]
# Whether a leak is *used* is another question: training decides. That is the experiment below.
#
# ## The images and the runs
#
# The phantom as in {doc}`lse_lba`, at a smaller size: plain findings, on one image in five each, independent of each other.

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

# %%
run = runs.start("pylon", params, settings, split)
print("finished before" if run.finished else "new or interrupted", "-", run.folder.name)

# %% [markdown]
# ## Training
#
# Cross-entropy on the maximum of the map is the whole supervision. Adam's learning rate falls to a fifth whenever the
# validation loss has not fallen for more than one epoch, as in the paper. The second network, by default the classical CAM, has the same encoder,
# images, order and recipe.

# %%
import time

from cxrlib import training
from cxrlib.inference import predict


def train(name, folder):
    torch.manual_seed(params.seed)
    model = create_variant(
        name,
        pa_depth=settings["pa_depth"],
        pretrained=params.pretrained,
        learning_rate=settings["learning_rate"],
        **settings["network"],
    )
    folder.mkdir(exist_ok=True)
    history = training.fit(
        model,
        split,
        folder,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        seed=params.seed,
        accelerator=params.accelerator,
        num_workers=params.num_workers,
    )
    return model, history


reading = {
    "batch_size": settings["batch_size"],
    "accelerator": params.accelerator,
    "num_workers": params.num_workers,
}
model, history = train(params.variant, run.workspace)

# %% mystnb={"image": {"alt": "Line charts by epoch: training and validation loss with the kept epoch marked, and the learning rate."}}
from cxrlib import figures

figures.training_curves(history, "learning_rate", "learning rate")
plt.show()

# %% [markdown]
# ## Results
#
# Every number has its 95 % interval over *patients*, and every localization score its controls: a random
# map, the place where other patients have the finding, and the best that the map's grid allows.

# %%
from IPython.display import display

from cxrlib import metrics

start = time.monotonic()
predictions = predict(model, split.test, **reading)
scored = metrics.score(predictions, split.test, seed=params.seed)
results = scored.to_json()
seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - start}
metrics.table(results, "pointing")

# %% mystnb={"image": {"alt": "Dot plot of the pointing score of each finding with its 95 % interval, beside location prior, centre prior, random map and grid ceiling."}}
figures.localization_by_finding(results, "pointing")
plt.show()

# %% [markdown]
# ## Beside CAM
#
# The second network on the same images. The difference is taken patient by patient, so its interval is narrower than the two
# beside it suggest.

# %%
if params.against is not None:
    rival, _ = train(params.against, run.workspace / "against")
    beside = predict(rival, split.test, **reading)
    scored_beside = metrics.score(beside, split.test, seed=params.seed)
    both = metrics.table_of_two(scored, scored_beside, "pointing")
    display(both.rename(columns={"first": params.variant, "second": params.against}))

# %% [markdown]
# And the maps, on one colour scale for each finding. One test image for each, the first in the list, whatever its map looks
# like; a square is a cell of the map. $p$ is the image's probability.

# %% mystnb={"image": {"alt": "Rows of images for each finding: radiographs with the true boxes in cyan, below them the coarse cells of the second network's map, below them the fine cells of the first one's."}}
from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS

truth = Truth(split.test)
shown = {} if params.against is None else {params.against: beside}
model_figures.maps_beside(split.test, truth, shown | {params.variant: predictions}, FINDINGS[:8])
plt.show()

# %%
folder = run.finish(results, seconds, predictions)

# %% [markdown]
# ## The culprits, tried
#
# Five networks, five seeds each, with this page's preset `quick`: a seed draws the phantom, the weights and the order of training,
# and arms are compared within a seed. The runs are kept in `results/pylon_variants.csv`; `snakemake --cores 2 pylon`
# computes them again.

# %% mystnb={"image": {"alt": "Three dot plots over the networks with 95 % intervals over seeds: mean AUROC, pointing at all findings, pointing at nodules and masses, with the location prior and the grid ceiling of each network."}}
from cxrlib import studies

study = runs.committed("pylon_variants.csv")
names = {
    "pylon": "PYLON",
    "pylon_gap": "PYLON with a global average",
    "fpn": "FPN",
    "fpn_group": "FPN, group normalization",
    "cam_mean": "CAM, mean (GAP)",
}
small = ["Nodule", "Mass"]
rows = {
    "AUROC": ("auroc", ["mean"], "classification"),
    "pointing, all findings": ("pointing", ["macro"], "localization"),
    "pointing, nodules and masses": ("pointing", small, "localization"),
}
model_figures.arms(study, "variant", rows, names)
plt.show()

# %% [markdown]
# Small grey dots are seeds, blue dots their means with a 95 % interval over seeds. The differences that the claim is about, within seeds:

# %%
claims = {
    "PYLON − CAM, mean": ("pylon", "cam_mean"),
    "PYLON: without − with a global average": ("pylon", "pylon_gap"),
    "FPN: batch − group normalization": ("fpn", "fpn_group"),
}
studies.compared(study, "variant", rows, claims)

# %% [markdown]
# **PYLON against CAM.** PYLON points better with every seed, at all findings as at nodules and masses; by how much varies widely from
# seed to seed, so that at nodules and masses the interval still touches zero. CAM has an AUROC that is no worse, but at 96 px only 3 × 3 cells,
# where even a perfect map seldom points into the box: see its grid ceiling. The gain is resolution first. At nodules and masses PYLON
# beats the location prior with four of five seeds; at all findings together the mean of no network beats it.
#
# **The global average.** At nodules and masses PYLON points better without it in four of five seeds, once by a hair, and at all findings
# in some seeds and not in others. Both intervals include zero: five seeds of this size cannot tell.
#
# **Group normalization.** We find the opposite of the claim: with it FPN has the same AUROC or a higher one, and points better in four of five seeds.
# This does not settle the question. Twelve epochs from scratch end in the steep part of learning, where seeds differ more than networks do, and
# what a normalization changes first is how fast one gets there. The paper trains from ImageNet's weights to a plateau; `-p preset gpu` is
# the next larger trial.
#
# ## On real radiographs
#
# The same preset on a small sample of ChestX-ray14 (1,105 training images; 814 test images with 601
# official boxes), PYLON and CAM, one seed, kept in `results/pylon_nih_mini.csv`. Parts other than `classification` and
# `localization` are the controls.

# %%
real = runs.committed("pylon_nih_mini.csv").query("finding in ('mean', 'macro', 'micro')")
real.set_index(["variant", "metric", "finding", "part"])[
    ["value", "low", "high", "n"]
].sort_index().round(3)

# %% [markdown]
# Both fail, as LSE-LBA does: an AUROC barely above chance. PYLON's maps point into the box more often than noise does and half as
# often as the location prior; those of CAM less often than noise, for want of cells. A thousand images are too few to learn radiographs from scratch.
#
# The paper's numbers, 0.62 and 0.45, are of ImageNet weights, 256 px and 78,484 training images: `-p dataset nih -p preset paper
# -p pretrained True`. Nothing on this page is comparable with them.
#
# ## Saliency of any classifier
#
# PYLON's map is part of the network. For a network without one, `cxrlib.saliency` reads a map off it, whatever its architecture. Each
# asks another question:
#
# | Method | Question | Grid | Needs |
# |---|---|---|---|
# | `cam` {cite}`zhou2016` | which cells add up to the logit? | the last features' | a linear layer on their mean |
# | `grad_cam` {cite}`selvaraju2017` | which cells, if each channel counts as much as its mean gradient? | a layer's | a layer of maps |
# | `grad_cam_plus_plus` {cite}`chattopadhay2018` | the same, with weights that favour several small spots | a layer's | a layer of maps |
# | `integrated_gradients` {cite}`sundararajan2017` | how much did each pixel add on the way from a blurred image to this one? | the image's | gradients |
# | `occlusion` {cite}`zeiler2014` | how much does the logit fall when a square is covered? | of squares | forward passes only |
#
# Here they look into the network trained above. Its own map comes first; Grad-CAM of its encoder's last features is what a
# reader of heat maps would have got from the same weights. Each map has its own colour scale; a map that is dark everywhere found nothing in favour of the
# finding at that level.

# %% mystnb={"image": {"alt": "Rows of heat maps of four findings in the same trained network: its own map, Grad-CAM and Grad-CAM++ of the encoder's last features, integrated gradients and occlusion, over radiographs with the true boxes."}}
import numpy as np

from cxrlib.predictions import Predictions
from cxrlib.saliency import predict_saliency, saliency_maps

four = [
    name
    for name in ("Cardiomegaly", "Effusion", "Mass", "Nodule")
    if (truth.finding == FINDINGS.index(name)).any()
]
few = split.test.subset(np.unique([truth.image[figures.first_pair(truth, name)] for name in four]))
last = next(name for name, _ in model.named_modules() if name.endswith("layer4"))
side = settings["image_size"] // 8
methods = {
    "Grad-CAM": ("grad_cam", {"layer": last}),
    "Grad-CAM++": ("grad_cam_plus_plus", {"layer": last}),
    "integrated gradients": ("integrated_gradients", {"steps": 64, "stride": 4}),
    "occlusion": ("occlusion", {"patch": 2 * side, "stride": side}),
}
images = torch.stack([few[i].image for i in range(len(few))])
asked = {"its own map": predictions.aligned(few)}
scores = asked["its own map"].scores[:, [FINDINGS.index(name) for name in four]]
for name, (method, choices) in methods.items():
    maps = saliency_maps(model.cpu(), images, method, four, **choices)
    asked[name] = Predictions.from_arrays(
        few.image_ids,
        scores,
        findings=four,
        map_ids=few.image_ids,
        maps=maps,
        frame=settings["image_size"],
    )
model_figures.maps_beside(few, Truth(few), asked, four, own_scale=True)
plt.show()

# %% [markdown]
# `predict_saliency` does this for a whole dataset, and what it returns is scored like any model's maps:

# %%
from cxrlib.metrics.scorer import of_predictions

coarse = predict_saliency(model, split.test, "grad_cam", layer=last, **reading)
sources = {
    name: of_predictions(of.aligned(split.test), split.test, scored.size)
    for name, of in {"its own map": predictions, "Grad-CAM, stride 32": coarse}.items()
}
measured = metrics.measure(sources, truth, scored.size, ["maps"])
pd.Series(
    {
        name: metrics.show(metrics.estimate(of, ["pointing"]).summary("pointing")["macro"])
        for name, of in measured.items()
    },
    name="pointing, macro",
).to_frame()

# %% [markdown]
# ## What is the paper's and what is ours
#
# The authors' code is public, and the network, its training and its scoring follow it; of the paper itself we had the abstract.

# %%
from cxrlib import literature

with pd.option_context("display.max_colwidth", None):
    display(literature.fidelity("pylon").style.hide(axis="index"))

# %% [markdown]
# Of what PYLON is compared with:

# %%
with pd.option_context("display.max_colwidth", None):
    display(literature.fidelity("baseline").style.hide(axis="index"))

# %% [markdown]
# **To take away.** A fine map needs more than a decoder: every cell must answer for its own place. Look for
# averages over the image, also those that hide in a normalization, before you trust a heat map.
#
# **Try it yourself.** {doc}`exercises/pylon`: six exercises that check themselves, and a quiz.
