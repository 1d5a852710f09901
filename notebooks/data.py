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
# # The data, and what they can teach
#
# Before a model there are data, and most of what a score can mean is decided there: who labelled the images
# and from what, which patients are in which part, how large a lesion is in pixels. This page goes
# through the datasets of the field with the question that decides an experiment: *what can this number not tell
# me?* Every figure here comes from the official tables, from a small sample of real radiographs, or from
# experiments on the {doc}`phantom <phantom>`, where the truth is known.
#
# *Reading time 15 minutes, running time about one.*

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds) or quick (1 min on a laptop)
data_dir: str = None  # folder of ChestX-ray14, to show real radiographs too
seed: int = 0  # of the phantom's patients, the flips and the splits

# %%
from cxrlib.datasets.experiments import PRESETS, DataParameters
from cxrlib.parameters import read_parameters

params = read_parameters(DataParameters, globals())
settings = PRESETS[params.preset]
settings

# %% [markdown]
# ## One door
#
# `datasets.load` takes the name of a dataset, its folder and a size in pixels, and gives a *split*: three parts without a
# common patient. Whatever the dataset was, each of its images is a `Sample`. Here is the phantom, which needs no
# folder; we use it throughout this page.

# %%
import numpy as np

from cxrlib import datasets

split = datasets.load("phantom", None, 64, seed=params.seed, **settings["population"])
boxed = np.flatnonzero(np.isin(split.test.image_ids, split.test.boxes["image_id"].to_numpy(str)))
sample = split.test[boxed[0]]
for name in ("image", "labels", "boxes", "box_findings", "masks"):
    value = getattr(sample, name)
    print(f"{name:13} {tuple(value.shape)!s:14} {value.dtype}")
print(f"image_id {sample.image_id}, patient_id {sample.patient_id}")

# %% [markdown]
# `image` runs from 0 to 1. `labels` are 1, 0, or NaN where nobody knows: CheXpert calls some *uncertain*, and VinDr-CXR
# does not tell a nodule from a mass. `boxes` are in pixels of this image, `box_findings` says which finding each shows; only test images have
# any. Training never sees where a finding is.
#
# **Your own radiographs** come through the same door: a folder with a `labels.csv`, for boxes a `boxes.csv`, and images in PNG, JPEG or
# DICOM. Let us write a few phantom images as such a folder, once as PNG and once as a hospital would store them, DICOM
# with bone dark (*MONOCHROME1*), and read them back.

# %%
import dataclasses
import tempfile
from pathlib import Path

import pandas as pd

from cxrlib.datasets.export import export

few = dataclasses.replace(
    split,
    train=split.train.subset(np.arange(4)),
    val=split.val.subset(np.arange(2)),
    test=split.test.subset(boxed[:6]),
)
place = Path(tempfile.mkdtemp())
rows = []
for kind in ("png", "dicom"):
    export(few, place / kind, kind)
    again = datasets.load("folder", str(place / kind), 64)
    pairs = [(few.test[index], again.test[index]) for index in range(len(few.test))]
    rows.append(
        {
            "files": kind,
            "images": len(pairs),
            "boxes": sum(len(old.boxes) for old, _ in pairs),
            "greys that differ": sum(int((o.image != n.image).sum()) for o, n in pairs),
            "largest shift of a box, px": max(
                float((old.boxes - new.boxes).abs().max()) for old, new in pairs
            ),
            "labels that differ": sum(int((o.labels != n.labels).sum()) for o, n in pairs),
        }
    )
pd.DataFrame(rows).set_index("files")

# %%
for name in ("labels.csv", "boxes.csv"):
    print(name, *(place / "png" / name).read_text().splitlines()[:3], sep="\n  ")

# %% [markdown]
# Nothing was lost on the way. Images that are not square are padded with black to a square, never cropped, and their boxes move along.
# With `-p data_dir <folder>` the next cell opens real radiographs by the same call.

# %% mystnb={"image": {"alt": "One test image of each boxed finding with its boxes in cyan: real radiographs if a folder was given, otherwise phantom images."}}
import matplotlib.pyplot as plt

from cxrlib.datasets.base import Truth
from cxrlib.figures import examples
from cxrlib.findings import BOXED

if params.data_dir is None:
    shown = split
else:
    shown = datasets.load("nih", params.data_dir, 256, seed=params.seed)
    print(*shown.notes, f"data {shown.data_hash}, split {shown.split_hash}", sep="\n")
examples(shown.test, Truth(shown.test), BOXED)
plt.show()

# %% [markdown]
# ## Labels
#
# The labels of ChestX-ray14 {cite}`wang2017` were not given by anyone who looked at the images: a program read the radiologists'
# reports. First, how many there are. The official test list is not a random part of the release.

# %% mystnb={"image": {"alt": "Dot plot on a logarithmic axis: share of images with each of the 14 labels in train_val and test; every label is more frequent in test, pneumothorax most."}}
from cxrlib import runs
from cxrlib.datasets import figures

counts = runs.committed("label_counts.csv")
figures.shares(counts)
plt.show()
share = counts.pivot(index="label", columns="split", values="share")
(share["test"] / share["train_val"]).sort_values().round(2).to_frame("test / train_val").T

# %% [markdown]
# Every finding is more frequent in the test list: pneumothorax 3.4 times, "No Finding" 0.66 times. AUROC does not mind,
# since it compares positives with negatives. Everything that depends on prevalence does: precision, calibration, a
# threshold. A model that is calibrated on train_val will call too few pneumothoraces in test.
#
# ## Findings keep company

# %% mystnb={"image": {"alt": "Matrix of 14 by 14 findings: how many times as frequent one label is beside another; pneumonia and edema 12 times, emphysema and pneumothorax 6 times."}}
figures.lifts(runs.committed("label_cooccurrence.csv"))
plt.show()

# %% [markdown]
# *All 112,120 images; 1 means independent.* Where edema is labelled, pneumonia is 12 times as frequent as elsewhere; emphysema
# and pneumothorax go together 6 times as often as by chance. A network that has learned one of a pair gets the other's AUROC half
# for free, and its map of the second may well show the first. That is why the phantom can switch
# co-occurrence off.
#
# ## What is a label worth?
#
# Radiologists have looked at some of the images again. RSNA's readers {cite}`shih2019` marked opacities that may be
# pneumonia; those of ChestX-Det {cite}`lian2021` boxed each of ten of our findings. Two questions, which are often
# confused: of the images *with the label*, on how many did they see it (left)? And of the images on which they *saw*
# it, how many have the label (right)?

# %% mystnb={"image": {"alt": "Two dot plots with 95 percent intervals for 14 comparisons of official labels with radiologists: share of labelled images on which it was seen, and share of seen ones that are labelled."}}
labels = runs.committed("label_agreement.csv")
figures.agreement(labels)
plt.show()
print(
    labels[["reference", "images", "patients", "unlabelled"]]
    .drop_duplicates()
    .to_string(index=False)
)
totals = counts.groupby("label")["positive"].sum() / counts.groupby("label")["images"].sum()
print(f"labelled Pneumonia in the release: {totals['Pneumonia']:.1%}")

# %% [markdown]
# Read this with its denominators. The images are those of a convenience sample of 2,060 that the readers also saw, and the
# sample was not drawn for this question. The intervals are Wilson's over images and do not know that a few patients
# have several.
#
# - **RSNA, left:** of 171 images labelled *Pneumonia*, the readers saw a suspicious opacity in 36 %. If a sample is drawn by
#   its labels, this share is right whatever the proportions. The readers saw the image alone; the reports may have
#   known a fever.
# - **RSNA, right:** 49 % of the opacities carry the label. This share is flattered: a third of the images here are
#   labelled *Pneumonia*, against 1.3 % in the release, so a label has many more chances to hit than in life.
# - **No Finding:** the readers called 23 of 54 normal. The program found nothing to extract; that is not the same as health.
# - **ChestX-Det:** only images with at least one box of our findings are known to us, and none of them is *unlabelled*. Images
#   on which its readers saw nothing are missing, and so are those with "No Finding": both columns are too high by an amount
#   nobody can tell from here. With so few cases (the numbers at the margin) only large differences mean something:
#   *Effusion* is nearly always right where it is given, 31 of 33; *Mass*, *Nodule* and *Atelectasis* mostly were not seen;
#   and of 86 consolidations 13 are labelled so, while 73 carry *some* pneumonia-like label, Pneumonia, Infiltration or
#   Consolidation: reports and readers use these words differently.
#
# It fits what others have found: a radiologist who reviewed some 700 images of two datasets found the positive
# predictive values of these labels "mostly between 10 % and 30 % lower" than documented {cite}`oakdenrayner2020`.
#
# ## What wrong labels do to a score
#
# They act twice, on what is learned and on how it is measured. On the phantom the two can be pulled apart: the truth is known, so
# we flip a share of the labels for training, of those for the test, or of both (the dial `label_noise` of the
# phantom does the first). The model is ridge regression on images of 32 x 32 pixels, because it takes a fraction of a second.
#
# For the test there is a formula. If errors do not depend on the image otherwise, a labelled image is a true positive with
# probability PPV, an unlabelled one with probability $m$ (*missed*), and
#
# $$\text{AUROC}' = \tfrac12 + (\text{PPV} - m)\,\big(\text{AUROC} - \tfrac12\big).$$

# %% mystnb={"image": {"alt": "Line chart of mean AUROC against the share of wrong labels: flipped training labels cost little at first, flipped test labels much; the formula follows the curve for both."}}
from cxrlib.datasets import experiments

images = experiments.flatten(split)
is_test = np.isin(images.patients, split.test.patient_ids)
noise = experiments.label_noise(
    images,
    is_test,
    (0.0, 0.05, 0.1, 0.2, 0.3, 0.4),
    replicates=settings["replicates"],
    seed=params.seed,
)
figures.noise(noise)
plt.show()
noise.pivot(index="flipped", columns="noise", values="value").round(3)

# %% [markdown]
# While few of the *training* labels are wrong the model gets a little worse: errors without a system average out. Where
# the *test* labels are wrong the very same model seems to be much worse. The formula tells by how much, and it also gives a
# ceiling: how high would a model score on the images of this sample that agrees perfectly with RSNA's readers, if the
# official labels were the judge?

# %%
rsna = labels[labels["reference"] == "RSNA"].pivot(
    index=["label", "seen"], columns="measure", values="value"
)
rsna["AUROC of a perfect reader"] = experiments.diluted(1.0, rsna["ppv"], rsna["missed"])
rsna.round(2)

# %% [markdown]
# About 0.6 in each row. A much higher AUROC against official labels cannot come from agreeing with these readers; it has to
# come from predicting what a *report* would say. And errors do have a system (the hard images, the habits of a
# department), which networks learn: the formula's assumption then fails. That is the warning, not a way out.
#
# ## Boxes: how large, how many pixels?
#
# 984 boxes on 880 images, eight findings, drawn by hand in a frame of 1024 px.

# %% mystnb={"image": {"alt": "Eight frames, one for each boxed finding, with boxes of small, median and large area at the usual place in either half of the image; nodules are tiny, hearts fill a third of the width."}}
figures.places()
plt.show()

# %% [markdown]
# *Blue: boxes centred in the left half of the image, the patient's right. Orange: in the other half.* In pixels, as the side of a
# square of the same area:

# %%
from cxrlib.phantom.targets import official_boxes

areas = {name: official_boxes()[name, "area"] for name in BOXED}
sides = {
    (f"{size} px", quantile): {name: area[at] ** 0.5 * size for name, (_, area) in areas.items()}
    for size in (224, 512, 1024)
    for quantile, at in (("5 %", 0), ("median", 2), ("95 %", 4))
}
table = pd.DataFrame(sides).round(0).astype(int)
table.insert(0, ("", "boxes"), [n for n, _ in areas.values()])
table

# %% [markdown]
# At 224 px, the size of most pretrained networks, the median nodule is 15 px wide; a network of stride 32 sees it as half
# a cell. The median heart is 93 px.
#
# ## Resolution against lesion size
#
# The same phantom patient on the same day, at several sizes; the title says how large the nodule is.

# %% mystnb={"image": {"alt": "The surroundings of one phantom nodule at sizes from 64 to 1024 pixels: at 64 a few grey squares, from 256 on a round shadow with an edge."}}
from cxrlib.findings import FINDINGS
from cxrlib.phantom import population

nodule = FINDINGS.index("Nodule")
drawn = {
    size: population.render(20, size, seed=params.seed, findings=["Nodule"], foci=1)
    for size in settings["sizes"]
}
figures.crops(
    {size: image.pixels for size, image in drawn.items()},
    {size: image.masks[nodule] for size, image in drawn.items()},
    part=0.25,
)
plt.show()

# %% [markdown]
# At 64 px nobody would call it; at 128 something round is there; from 256 px on it has an edge. The *map* is coarser than the image, though. What would a perfect map score, the official boxes averaged over
# the cells of a grid? Seven cells are a network of stride 32 at 224 px; 8 to 128 are strides 64 to 4 at 512 px.

# %% mystnb={"image": {"alt": "Two line charts against the cells per side of a map: pointing and continuous Dice of perfect maps of nodules, masses, pneumothoraces, hearts and the mean; nodules need the finest grid."}}
ceiling = runs.committed("grid_ceiling.csv")
figures.ceilings(ceiling, ["Nodule", "Mass", "Pneumothorax", "Cardiomegaly", "macro"])
plt.show()

# %%
ceiling[ceiling["metric"] != "iou@0.5"].pivot(
    index="finding", columns=["metric", "grid"], values="value"
).round(2)

# %% [markdown]
# On 7 x 7 cells a perfect map of a nodule points into its box one time in four, and its Dice is 0.13; a heart loses
# nothing by pointing. So a low score for nodules may say nothing of a method but the size of its last layer, and a comparison of
# two methods with different grids compares the grids first. Every table of this library shows this ceiling beside
# the score. *984 boxes; the grid's cells are averages, and a map may do better than an average by
# leaning towards the box.*
#
# ## Splits, and how re-splits leak
#
# The official lists share no patient, and all boxes are in the test list. `datasets.load` keeps to them and takes
# validation patients from train_val. A hash names who is where, so that two runs can be compared: if the hashes
# differ, so do the test images.

# %%
from cxrlib.datasets import splits

for name in ("train", "val", "test"):
    part = getattr(split, name)
    print(f"phantom {name:5} {len(part):5} images of {len(set(part.patient_ids)):4} patients")
print(f"split {split.split_hash}, data {split.data_hash}")
fold = splits.folds(split.train.patient_ids, 5, seed=params.seed)
print("five folds of train, images:", np.bincount(fold).tolist())
print("halves of the officially boxed patients:", splits.box_halves().value_counts().to_dict())

# %% [markdown]
# *boxval* and *boxtest* are fixed halves of the patients with boxes: a threshold that is tuned on the boxes it is scored on is not a
# threshold but a result.
#
# Many papers do not use the official lists. The weights that are easiest to get were trained on random ones: the authors of
# torchxrayvision say so of [theirs](https://github.com/mlmed/torchxrayvision/issues/47), and a well-known
# [reproduction of CheXNet](https://github.com/jrzech/reproduce-chexnet/issues/5) drew its own. What does a random 70 % of all images
# contain? Ten seeds, by image and by patient:

# %%
leaks = runs.committed("resplit_leaks.csv")
mean = leaks.groupby("by")[[*leaks.columns[2:]]].mean()
pd.DataFrame(
    {
        "training images": mean["train"],
        "boxed images among them": mean["boxed seen"] / mean["boxed"],
        "official test patients among them": mean["test patients seen"] / mean["test patients"],
        "own held-out images of a patient trained on": mean["held out seen"] / mean["held out"],
    }
).T.round(2)

# %%
ends = leaks.groupby("by")["boxed seen"].agg(["min", "max"])
print(f"of {leaks['boxed'].iloc[0]} boxed images in training, over ten seeds:")
print(ends.to_string())

# %% [markdown]
# A split by patient is honest with itself: none of its own held-out patients was trained on. But seven in ten of the boxed
# images are in training either way, so a map scored on the 880 afterwards is scored on training images. And a split by
# *image* leaks into its own test: 82 % of the held-out images show a patient who was trained on. `splits.leaked` tells this
# for any list.
#
# ### What a leak is worth
#
# Does it matter? A network can recognise a patient: one trained for that on ChestX-ray14 tells whether two images are
# of one person with an AUROC of 0.9940 {cite}`packhauser2022`. On the phantom we can measure what that buys. The same test
# images, two training sets of one size and kind; one holds *other images of the test patients*, the other those of
# strangers. Five findings are chronic in the phantom, a patient has them on every image or on none; the others come and go.

# %% mystnb={"image": {"alt": "Dot plot of the gain in AUROC by a leak for each finding with intervals: chronic findings gain more than acute ones."}}
from cxrlib.phantom.population import CHRONIC

worth, nearest = experiments.leak_worth(
    images,
    halvings=settings["halvings"],
    replicates=settings["replicates"],
    seed=params.seed,
)
figures.leak(worth, CHRONIC)
plt.show()
worth.set_index("finding").loc[["chronic", "acute", "all"]].round(3)

# %%
k, n, value, chance = nearest.iloc[0]
print(
    f"nearest neighbour of the same patient: {k:.0f} of {n:.0f} ({value:.1%}; chance {chance:.2%})"
)

# %% [markdown]
# With preset `quick` the leak adds about 0.045 to the AUROC of chronic findings and 0.01 to that of the acute ones, which
# in the phantom are half a matter of the patient, too. Single findings are uncertain; the means are not. This is a model that can hardly tell patients apart: the nearest
# neighbour of an image is one of the same patient in a few per cent of cases, many times chance and far from a network's
# skill.
#
# ## Speed
#
# Decoding and resizing an image takes far longer than copying one that was resized before. So the loader keeps resized images in
# a memory-mapped file: *direct* is without it, *cached* with it, *made floats* includes what the model's device otherwise
# does; torchxrayvision reads the same files. The table is of one machine on one day (`benchmarks/loading.py`), so mind the ratios and not their third digit.

# %%
loading = runs.committed("loading.csv", "benchmarks").query("unit in ('images/s', 'ratio')")
table = loading.pivot(index=["unit", "quantity"], columns="files", values="value")
table.map("{:,.4g}".format)

# %% [markdown]
# **To take away.** A label is what a program found in a report, and the test labels are as noisy as the others: ask what a
# perfect reader would score. Ask of every score who was in training; a split by patient is necessary and, for the
# boxes, not sufficient. And ask of every map how many cells it has before asking whether it is good.
