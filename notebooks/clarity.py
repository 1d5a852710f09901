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
# # CLARiTy, as far as it is known: a token for each finding
#
# A vision transformer (ViT) cuts an image into patches and lets each look at every other. Usually one more token gathers what
# the image shows. {cite:t}`statheros2025` give **each finding a token of its own**: what the token attends to says where its
# finding is. A module named **SegmentCAM** adds a class map from convolutions, separates the chest from the background with
# an anatomical prior, and suppresses what lies in the background. The tokens are held **orthogonal**, a convolutional network teaches the
# transformer, and **attention pooling** reads the patches once more. The abstract reports localization 50.7 % better than that of earlier
# methods, most of all for nodules and masses.
#
# Only that abstract, and numbers quoted by others, were at hand, and no code is public. What is inside the parts is therefore
# **our reading**, made of the closest method with code; the ledger at the end marks every such element. A result of this page says nothing
# for or against the paper.
#
# *Reading time 20 minutes, running time about three on a laptop without a graphics card. You need the symbols of
# {doc}`../book/notation`.*

# %% [markdown]
# ## Parameters
#
# `papermill notebooks/clarity.ipynb out.ipynb -p variant no_segment_cam` sets any of these. Where a value is `None`, the
# preset chooses.

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds), quick (3 min on a laptop), gpu (224 px), paper (512 px)
dataset: str = "phantom"  # phantom (drawn by this library), nih, chexpert, vindr or folder
data_dir: str = None  # folder of the dataset, unless it is the phantom
run_dir: str = None  # folder of the results; None: runs/clarity/<key>
variant: str = "clarity"  # the method or an ablation: cxrlib.models.clarity_presets
masks: str = None  # folder of masks of lungs and heart, <image id>.png; None: segmented
pretrained: bool = False  # start from DINO's weights, which are downloaded; preset paper
seed: int = 0  # of the data, the weights and the order of training
image_size: int = None  # pixels per side, a multiple of the patch, 8 or 16
epochs: int = None  # passes over the training images, at most
batch_size: int = None  # images per step
learning_rate: float = None  # of AdamW, at the peak of its schedule
accelerator: str = "auto"  # auto, cpu, gpu or mps; one device
num_workers: int = 0  # processes that read images; 2 to 8 for nih

# %%
from cxrlib.models.clarity_presets import PRESETS, VARIANTS, CLARiTyParameters
from cxrlib.parameters import read_parameters, settings_of

params = read_parameters(CLARiTyParameters, globals())
settings = settings_of(params, PRESETS[params.preset])
network = {**settings["network"], **VARIANTS[params.variant]}
settings

# %% [markdown]
# ## Tokens that look
#
# Let $x_1 \dots x_P$ be the patches of an image, $h \times w = P$ of them, and $t_1 \dots t_C$ the tokens of the $C = 14$ findings, all vectors
# of $D$ numbers. In a layer every one of these $C + P$ vectors asks all others. With a token's query $q_c$ and the keys $k_j$ the answer of $j$ counts
#
# $$a_{cj} = \frac{\exp(q_c \cdot k_j / \sqrt d)}{\sum_{j'} \exp(q_c \cdot k_{j'} / \sqrt d)}.$$
#
# What token $c$ pays to the patches, averaged over heads and layers and made to sum to one, is a map of $h \times w$ cells:
# the **class attention** $A_c$. It costs nothing, but a fused kernel does not hand it out, so the network computes those few rows beside it.
#
# A patch becomes a vector by one linear map of its pixels. A transformer learns little with that from a few thousand images, so this page's small networks begin with a few
# convolutions instead, a **stem** {cite}`xiao2021`; what it is worth stands in the ablation below.

# %%
import pandas as pd
import torch

from cxrlib.models import create_model

torch.manual_seed(0)
tiny = create_model("clarity", width=32, depth=2, heads=2, patch=8, stem=True).eval()
images = torch.rand(2, 1, 64, 64)
with torch.no_grad():
    tiny.vit.fused = True
    fused = tiny.look(images)
    tiny.vit.fused = False
    explicit = tiny.look(images)
gap = max(float((a - b).abs().max()) for a, b in zip(fused, explicit, strict=True))
print(
    f"attention {tuple(fused.attention.shape)}, sums to {fused.attention.sum((-2, -1)).mean():.4f}"
)
print(f"fused and explicit attention differ by {gap:.0e} at most")

# %% [markdown]
# ## SegmentCAM
#
# Two 3 × 3 convolutions of the last patches give each finding a **class map** $S_c$ and all of them one **foreground** $F$, both log-odds. The odds of a cell are the
# product of what the three parts say of it, and the final map is their probability:
#
# $$\ell_{cj} = S_{cj} + \log \sigma(F_j) + \log (P A_{cj}), \qquad \text{map}_{cj} = \sigma(\ell_{cj}).$$
#
# Where attention is even and the foreground sure, that is the class map. A cell in the background says less, and so does one that the token does not look at.
#
# Three readouts vote on the image's probability with the mean of their log-odds: a linear function of each token; attention pooling, in which a learned query for
# each finding asks the patches; and the mean of the cells' odds, $\log \frac{1}{P} \sum_j e^{\ell_{cj}}$. The map that is shown is thus one that learns. Without the attention in it,
# tokens of a network as small as this page's look anywhere.
#
# ## What the losses ask for
#
# | Loss | of | asks |
# |---|---|---|
# | classification | each readout | cross-entropy with the image's labels |
# | distillation | their mean | to agree with a convolutional teacher, a ConvNeXt V2 {cite}`woo2023` |
# | orthogonality | tokens | $\frac{1}{C(C-1)} \lVert \hat T \hat T^\top - I \rVert_F^2 = 0$: no two tokens point the same way |
# | foreground | $F$ | to be the anatomical prior, lungs and heart |
# | suppression | $S$ | mean of $\sigma(S_c)\,(1 - \sigma(F))$: to say nothing in the background |
#
# All of it learns from image labels. The prior shows organs, never findings. The published network, part by part:

# %%
published = create_model("clarity")
parts = {
    "ViT-S/16 with 14 tokens": published.vit,
    "readout of the tokens": published.read_tokens,
    "attention pooling": published.attention_pool,
    "SegmentCAM": published.segment_cam,
}
weights = {name: sum(w.numel() for w in part.parameters()) for name, part in parts.items()}
pd.Series(weights | {"all": sum(weights.values())}, name="weights").to_frame().style.format("{:,}")

# %% [markdown]
# ## The images and the run
#
# The phantom as in {doc}`pylon`: plain findings, on one image in five each, independent of each other.

# %%
from cxrlib import datasets, runs

options = settings.get(params.dataset, {})
size = settings["image_size"]
split = datasets.load(params.dataset, params.data_dir, size, seed=params.seed, **options)
for name in ("train", "val", "test"):
    part = getattr(split, name)
    print(f"{name:5} {len(part):6} images of {len(set(part.patient_ids)):5} patients")
print(*split.notes, f"data {split.data_hash}, split {split.split_hash}", sep="\n")

# %%
run = runs.start("clarity", params, settings, split)
print("finished before" if run.finished else "new or interrupted", "-", run.folder.name)

# %% [markdown]
# ## The anatomical prior
#
# Where may a finding be? The phantom's lungs and heart are known. Real radiographs come without such masks: there a
# small U-Net {cite}`ronneberger2015` says where they are, which has learned it from the phantom and has seen no real image. Who has better masks gives their
# folder, `-p masks <folder>`.

# %% mystnb={"image": {"alt": "Five radiographs with the outline of what is taken for lungs and heart."}}
import matplotlib.pyplot as plt
import numpy as np

from cxrlib.models import clarity_prior, figures_clarity
from cxrlib.models.clarity_presets import CHESTS, PRIORS
from cxrlib.phantom.organs import ORGANS, organs_of

side = min(size, 96)  # of the masks; the network needs them on its patches only
if params.dataset == "phantom":
    organs = organs_of(split.train, side, params.seed, options)
elif params.masks is None:
    recipe = {**CHESTS, **settings["segmenter"]}
    epochs = recipe.pop("epochs")
    chests = datasets.load("phantom", None, size, seed=params.seed, **recipe)
    known = organs_of(chests.train, side, params.seed, CHESTS)
    segmenter = clarity_prior.fit_segmenter(chests.train, known, epochs=epochs, seed=params.seed)
    organs = clarity_prior.segment(segmenter, split.train, side) > 0.5
if params.masks is None:
    where = [ORGANS.index(name) for name in PRIORS.get(params.variant, ORGANS)]
    prior = organs[:, where].any(axis=1)  # (N, side, side)
    read_prior = clarity_prior.by_image(split.train.image_ids, prior)
else:
    read_prior = clarity_prior.from_folder(params.masks, side)
few = split.train.subset(np.arange(5))
figures_clarity.outlines(few, {"prior": np.stack([read_prior(name) for name in few.image_ids])})
plt.show()

# %% [markdown]
# Can that segmenter be trusted on real radiographs? Nobody has outlined the organs of ChestX-ray14 for us, so we ask two questions, once, on a sample of it with 601
# official boxes (`results/clarity_prior.csv`). On images of the phantom that it has not seen: its Dice with the truth. On real radiographs a proxy: findings of the chest should
# lie in its lungs and heart. How much of a box does, how much of it lies in the organs of the *next* image, and how much of the image is organs at all?

# %%
from cxrlib import metrics

segmented = runs.committed("clarity_prior.csv")
segmented["shown"] = [metrics.show(row) for row in segmented.to_dict("records")]
on_phantom = segmented.query("what == 'Dice on the phantom'")
print("Dice on the phantom:", *(f"{row.of} {row.shown}" for row in on_phantom.itertuples()))
shares = segmented.drop(on_phantom.index)
shares.pivot(index=["of", "n"], columns="what", values="shown")

# %% [markdown]
# On the phantom it is nearly perfect. On real radiographs 81 % of a box lies inside the organs of its patient, which cover a third of the image, and 69 % inside those
# of the next one: the masks follow the chest, and most of what the proxy sees is that chests resemble each other. Effusion is the exception: 56 %, and no more than in
# the next image's. Fluid at the base of a lung is as white as what lies below it, and is taken for abdomen. A prior that leaves a finding out teaches the network to look away from it.

# %% [markdown]
# ## Training
#
# The teacher, where the loss asks for one, is trained first on the same images, and its answers are kept. AdamW with a one-cycle
# learning rate; the epoch with the lowest validation loss is kept.

# %%
import dataclasses
import time

from cxrlib import training
from cxrlib.inference import predict
from cxrlib.models.clarity_teacher import Guided, teach

start = time.monotonic()
device = {"accelerator": params.accelerator, "num_workers": params.num_workers}
torch.manual_seed(params.seed)
model = create_model(
    "clarity",
    pretrained=params.pretrained,
    learning_rate=settings["learning_rate"],
    **network,
)
said = None
if model.weights["distillation"]:
    recipe = {**settings["teacher"], "batch_size": settings["batch_size"]}
    said = teach(split, run.workspace / "teacher", seed=params.seed, **recipe, **device)
guided = Guided(split.train, teacher=said, read_prior=read_prior)
history = training.fit(
    model,
    dataclasses.replace(split, train=guided),
    run.workspace,
    epochs=settings["epochs"],
    batch_size=settings["batch_size"],
    seed=params.seed,
    **device,
)
seconds = {"train": time.monotonic() - start}

# %% mystnb={"image": {"alt": "Line charts by epoch: training and validation loss with the kept epoch marked, and the loss that holds the foreground to the prior or, without one, the orthogonality."}}
from cxrlib import figures

extra = "loss_foreground" if "loss_foreground" in history else "loss_orthogonal"
figures.training_curves(history, extra, extra.replace("loss_", "loss of "))
plt.show()

# %% [markdown]
# The training loss is the sum of all parts, so it lies above the validation loss, which is the cross-entropy alone.
#
# ## Results
#
# Every number has its 95 % interval over *patients*, and every localization score its controls: a random
# map, the place where other patients have the finding, and the best that the map's grid allows.

# %%
start = time.monotonic()
predictions = predict(model, split.test, batch_size=settings["batch_size"], **device)
scored = metrics.score(predictions, split.test, seed=params.seed)
results = scored.to_json()
seconds["evaluate"] = time.monotonic() - start
metrics.table(results, "pointing")

# %% mystnb={"image": {"alt": "Dot plot of the pointing score of each finding with its 95 % interval, beside location prior, centre prior, random map and grid ceiling."}}
figures.localization_by_finding(results, "pointing")
plt.show()

# %% [markdown]
# ## Before and after SegmentCAM
#
# What does each part point at? Each stage below is scored like the final map, on the same pairs.

# %%
from cxrlib.datasets.base import Truth
from cxrlib.models.clarity_looks import look_at

truth = Truth(split.test)
looks = look_at(model, split.test, batch_size=64, accelerator=params.accelerator)
frames = {name: metrics.of_pairs(maps, truth, scored.size) for name, maps in looks.stages.items()}
measured = metrics.measure(frames, truth, scored.size, ["maps"])
wanted = ["pointing", "continuous_dice"]
by_stage = {name: metrics.estimate(of, wanted) for name, of in measured.items()}
pd.DataFrame(
    {
        score: {name: metrics.show(of.summary(score)["macro"]) for name, of in by_stage.items()}
        | {
            label: metrics.show(results["controls"][control][score]["macro"])
            for control, label in figures.CONTROLS.items()
        }
        for score in wanted
    }
)

# %% mystnb={"image": {"alt": "Rows of maps for each finding: radiographs with the true boxes, the attention of the finding's token, the class map, the class map with the background suppressed and the final map."}}
from cxrlib.findings import FINDINGS

figures_clarity.stages(split.test, truth, looks.stages, FINDINGS[:6])
plt.show()

# %% [markdown]
# Every map above has its own colours, from its lowest value to its highest.
#
# ## The foreground
#
# The foreground has learned the prior from the training images. Does it find the organs of new chests? Its Dice with the phantom's lungs and heart together, which it was taught, and with the
# lungs alone.

# %% mystnb={"image": {"alt": "Five test radiographs with outlines of the foreground and, of the phantom, of true lungs and heart."}}
from cxrlib.metrics.regions import upsample

results["anatomy"] = {}
if looks.foreground is not None:
    fine = np.stack([upsample(map_, side) for map_ in looks.foreground])
    shown = {"foreground": fine}
    if params.dataset == "phantom":
        lungs, heart = organs_of(split.test, side, params.seed, options).transpose(1, 0, 2, 3)
        shown["true lungs and heart"] = lungs | heart
        for name, organ in (("lungs and heart", lungs | heart), ("lungs", lungs)):
            overlap = clarity_prior.dice(fine > 0.5, organ)
            number = clarity_prior.mean_over_patients(overlap, split.test.patient_ids, params.seed)
            results["anatomy"][f"dice, {name}"] = {"mean": number.to_json(), "per_finding": {}}
            print(f"Dice of the foreground with {name}: {metrics.show(number)}")
    shown = {name: of[:5] for name, of in shown.items()}
    figures_clarity.outlines(split.test.subset(np.arange(5)), shown)
    plt.show()

# %%
folder = run.finish(results, seconds, predictions)

# %% [markdown]
# ## The tokens
#
# Orthogonality in numbers: the cosine between the tokens of two findings, mean over the test images.

# %% mystnb={"image": {"alt": "Matrix of cosines between the tokens of the 14 findings: ones on the diagonal, colours elsewhere that say how alike two tokens are."}}
figures_clarity.cosines(looks.cosines)
plt.show()

# %% [markdown]
# ## What each part is worth
#
# The paper's ablation, as far as this page's preset `quick` allows: without SegmentCAM the final map is the attention alone; without the
# orthogonality loss the tokens may share; without attention pooling one readout less votes. Two arms ask about our own choices: one has a linear map for a stem, one a prior of the
# lungs without the heart. Three seeds each: a seed draws the phantom, the
# weights and the order of training, and arms are compared within a seed. The runs are kept in `results/clarity_ablation.csv`;
# `snakemake --cores 2 clarity` computes them again.

# %% mystnb={"image": {"alt": "Three dot plots over the method and five ablations with 95 % intervals over seeds: mean AUROC, pointing at all findings, pointing at nodules and masses, with location prior and grid ceiling."}}
from cxrlib import studies
from cxrlib.models import figures as model_figures

study = runs.committed("clarity_ablation.csv")
names = {
    "clarity": "CLARiTy, our reading",
    "no_segment_cam": "without SegmentCAM",
    "no_orthogonal": "without orthogonality",
    "no_attention_pooling": "without attention pooling",
    "no_stem": "without the stem",
    "lungs_only": "prior of lungs alone",
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
# Small grey dots are seeds, blue dots their means with a 95 % interval over seeds. What the whole scores more than what lacks a part, within seeds:

# %%
parts = {f"whole − {name}": ("clarity", arm) for arm, name in list(names.items())[1:]}
studies.compared(study, "variant", rows, parts)

# %% [markdown]
# **SegmentCAM carries the method, as we read it.** Without it every seed classifies and points much worse, nodules and masses are not found at all, and the location prior points better: two layers from scratch
# do not learn from the tokens alone where to look.
#
# **Orthogonality and attention pooling** cannot be told from nothing.
#
# **The stem** is worth more than any part of the paper's but SegmentCAM. It is not the paper's: its networks start from DINO's weights, which these small ones have not.
#
# **Against the location prior** the whole points better with every seed, at all findings and at nodules and masses.
#
# **The prior.** Taught with the lungs alone, the foreground finds the lungs and little else, and what lies in the heart is suppressed with the rest of the background: the maps point worse,
# though with every seed still better than the location prior. The Dice of the foreground with true organs, over seeds:

# %%
dice = {"with lungs and heart": "dice, lungs and heart", "with lungs": "dice, lungs"}
pair = ["clarity", "lungs_only"]
taught = study[study["variant"].isin(pair)]
pd.DataFrame(
    {
        title: studies.over_seeds(studies.by_seed(taught, "variant", row, ["mean"], "anatomy"))
        .loc[pair]
        .apply(metrics.show, axis=1)
        for title, row in dice.items()
    }
).rename(names)

# %% [markdown]
# ## On real radiographs
#
# The same preset on a small sample of ChestX-ray14 (1,105 training images; 814 test images with 601
# official boxes), one seed, kept in `results/clarity_nih_mini.csv`. Parts other than `classification` and `localization` are the controls.

# %%
real = runs.committed("clarity_nih_mini.csv")
averages = real.query(
    "finding in ('mean', 'macro') and metric in ('auroc', 'pointing', 'continuous_dice')"
)
averages.set_index(["metric", "finding", "part"])[["value", "low", "high", "n"]].round(3)

# %% [markdown]
# **Half and half.** The published localization is of boxes: a threshold for each finding is tuned on one half of the boxed images and the other half is scored
# by the share of boxes met with an intersection over union (IoU) of $T$ or more. So are ours, on halves by patient ({doc}`metrics`), and the controls with them.

# %% mystnb={"image": {"alt": "Line chart of the share of boxes met against the threshold T from 0.1 to 0.5: our run and the location prior with intervals, the published line of CLARiTy above them."}}
from cxrlib import literature

Ts = (0.1, 0.2, 0.3, 0.4, 0.5)
macro = real.query("finding == 'macro'").set_index(["part", "metric"])
curves = {
    label: tuple(
        macro.loc[[(part, f"clarity_iou@{T}") for T in Ts], end].tolist()
        for end in ("value", "low", "high")
    )
    for part, label in (
        ("localization", "our reading, this sample"),
        ("location_prior", "location prior"),
        ("random", "random map"),
    )
}
published_rows = literature.published("statheros2025").query("metric == 'T(IoU) Acc'")
points = {"CLARiTy-S-16-512, published": published_rows.set_index("threshold")["value"].to_dict()}
figures_clarity.accuracy_by_overlap(curves, points, Ts)
plt.show()

# %% [markdown]
# The maps meet a box more often than noise does and less often than the location prior, at every $T$. By pointing too they stay below it, though
# nearer than those of the other chapters' networks. A thousand images are too few to learn radiographs from scratch.
#
# What differs: the published numbers are of the full training set (ours: 1,105 images), of a ViT-S of 12 layers at 512 px from DINO's weights with a ConvNeXt V2-B as teacher (ours: two
# layers and a stem at 96 px from scratch without a teacher), of other halves of all boxed images (ours: of a sample), and of a method of which we know
# the names of the parts. They were not read in the paper but in notes that quote its table. `-p dataset nih -p preset paper -p pretrained True` is the trial that would be comparable.

# %% [markdown]
# ## What an answer costs
#
# The published networks, with the scores and maps of one image of 512 px, and where a paper has another size, of that too. Measured in one run on one core of a CPU
# (`benchmarks/inference_cost.py`, which measures on a GPU as well where there is one); *speed* is relative to a ResNet-50 with its class activation map.

# %%
cost = runs.committed("inference_cost.csv", "benchmarks").set_index(["device", "network"])
columns = {
    "image_size": "px",
    "weights": "weights",
    "multiply_adds": "multiply-adds",
    "images_per_second": "images/s",
    "of_resnet": "speed",
}
cost[[*columns]].rename(columns=columns).style.format(
    {"weights": "{:,}", "multiply-adds": "{:.2g}", "images/s": "{:.2g}", "speed": "{:.2f}"}
)

# %% [markdown]
# The transformer costs half as much again as the ResNet at 512 px, and at 224 px a quarter. What is expensive is resolution inside the network: HAM keeps
# its deepest stages at stride 8. Attention mining asks four networks.

# %% [markdown]
# ## What is the paper's and what is ours
#
# Every row that is not marked `paper` may be otherwise in the authors' network.

# %%
from IPython.display import display

with pd.option_context("display.max_colwidth", None):
    display(literature.fidelity("clarity").style.hide(axis="index"))

# %% [markdown]
# **To take away.** What a token attends to is not yet where its finding is: ask of every part of a heat map what it points at by itself.
#
# **Try it yourself.** {doc}`exercises/clarity`: six exercises that check themselves, and a quiz.
