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
# # Five trained models at once
#
# Each chapter trains its network before it shows a map. Small trained models come with the library, one for each paper, so that this
# page can put the maps of all five methods side by side in seconds: on drawn chests that none of them has seen, then on real
# radiographs, to see how far drawings carry.
#
# *Reading time 8 minutes, running time under one. What pointing and the controls are stands in {doc}`../book/notation`.*
#
# **These models are no medical devices.** They were trained on drawings, their scores are not calibrated, and what they say of a
# radiograph says nothing about a patient.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds) or quick (half a minute on a laptop)
seed: int = 1  # of the drawn patients; the models were trained on those of seed 0

# %%
from cxrlib.parameters import read_parameters
from cxrlib.weights.scoring import PRESETS, PretrainedParameters

params = read_parameters(PretrainedParameters, globals())
settings = PRESETS[params.preset]
settings

# %% [markdown]
# ## What comes with the library
#
# `cxrlib.load_pretrained("pylon")` gives a model that is ready to be asked. The files are safetensors in half precision, which are read
# without running code. What a model was trained on, from which commit, and its numbers stand in its header and in a model
# card beside it:

# %%
import pandas as pd

from cxrlib import metrics
from cxrlib.weights import SHIPPED, open_pretrained, weights_file

opened = {name: open_pretrained(name) for name in SHIPPED}
sizes = {name: weights_file(name).stat().st_size for name in SHIPPED}
print(f"{sum(sizes.values()) / 1e6:.1f} MB in all")
pd.DataFrame(
    {
        SHIPPED[name]: {
            "weights": f"{sum(w.numel() for w in model.parameters()):,}",
            "file, kB": f"{sizes[name] / 1000:,.0f}",
            "image, px": about["image_size"],
            "epochs": about["epochs"],
            "largest change of a score in half precision": f"{about['half']['score']:.4f}",
        }
        for name, (model, about) in opened.items()
    }
)

# %% [markdown]
# ## Their maps of the same chests
#
# We draw patients that no model has seen and ask all five. Every column is the first image of a finding, whatever the maps look like.

# %%
from cxrlib.phantom import dataset as phantom
from cxrlib.weights import scoring


def drawn(size, **controls):
    images = {name: settings[name] for name in ("n_train", "n_val", "n_test")}
    population = opened["lse_lba"].about["options"] | images | controls
    return phantom.load(size, **population, seed=params.seed).test


dataset = drawn(max(about["image_size"] for _, about in opened.values()))
answers = scoring.ask(drawn)
print(f"{len(dataset)} images of {len(set(dataset.patient_ids))} patients")

# %% mystnb={"image": {"alt": "Six drawn radiographs, each with the true box of another finding, and below each the saliency maps of LSE-LBA, AM/KP/MSA, HAM, PYLON and CLARiTy for that finding, row by row."}}
import matplotlib.pyplot as plt

from cxrlib.datasets.base import Truth
from cxrlib.models import figures as model_figures

truth = Truth(dataset)
findings = ["Cardiomegaly", "Effusion", "Mass", "Nodule", "Pneumothorax", "Consolidation"]
named = {SHIPPED[name]: predictions for name, predictions in answers.items()}
model_figures.maps_beside(dataset, truth, named, findings, own_scale=True)
plt.show()

# %% [markdown]
# Each map has its own colour scale, because the methods' maps mean different things: a high value is a probability in LSE-LBA and only
# the top of the range in HAM. Look at the grid of each row: a quarter of the image's side in LSE-LBA and PYLON, an eighth in HAM.
#
# How often is the highest point of a map in the lesion? Beside each model its three controls:

# %%
numbers = scoring.score(answers, dataset, dataset.image_size, settings["replicates"], params.seed)


def beside_controls(numbers, protocol, finding):
    of = numbers[(numbers["protocol"] == protocol) & (numbers["finding"] == finding)]
    shown = of.assign(text=[metrics.show(row) for row in of.to_dict("records")])
    table = shown.pivot(index="model", columns="source", values="text").loc[[*SHIPPED]]
    columns = ["model", "location_prior", "centre_prior", "random", "grid_ceiling"]
    return table[columns].rename(index=SHIPPED, columns=lambda name: name.replace("_", " "))


beside_controls(numbers, "pointing", "macro")

# %% mystnb={"image": {"alt": "Chart of the pointing score of each of the five models on drawn chests as a dot with its interval, beside the location prior, the random map and the grid ceiling of the same images."}}
from cxrlib.models.figures_pretrained import pointing_of_models

pointing_of_models(numbers, "macro")
plt.show()

# %% [markdown]
# One model of each method, trained for minutes, says little about the method: {doc}`pylon` shows how much five seeds of one network
# differ. The chapters compare over seeds; this page only shows. A model whose interval lies below the location prior points worse than
# a guess that never looks at the image, and its card says so.
#
# ## The same models on real radiographs
#
# The same five files were asked about 529 images of ChestX-ray14 with 601 official boxes, the sample of the other chapters. No real image took part
# in their training. `python -m cxrlib.weights.scoring --data-dir <folder> --csv results/pretrained_nih_mini.csv` makes the table.

# %% mystnb={"image": {"alt": "Chart of the pointing score of each of the five models on real radiographs as a dot with its interval, beside the location prior, the random map and the grid ceiling."}}
from cxrlib import runs

real = runs.committed("pretrained_nih_mini.csv")
pointing_of_models(real, "micro")
plt.show()

# %%
from cxrlib.weights.card import verdict

table = beside_controls(real, "pointing", "micro")
micro = real.query("protocol == 'pointing' and finding == 'micro'").set_index(["source", "model"])
of_model, prior = (micro.loc[source].to_dict("index") for source in ("model", "location_prior"))
words = {SHIPPED[name]: verdict(of_model[name], prior[name]) for name in SHIPPED}
table.assign(**{"it points": pd.Series(words) + " the location prior"})

# %% [markdown]
# On drawings and on radiographs the order of the five differs: what a network has learned of drawings need not hold for patients. Where a
# model points better than the location prior of the real boxes, mind that drawings carry a prior of their own: the phantom's lesions have
# the places and sizes of the official boxes' quantiles, and a network that knows where in the image it is can learn them. How far a
# network can get that was made for the transfer, {doc}`phantom` shows.
#
# ## Your own radiograph
#
# `cxrlib predict scan.dcm --out maps` writes such a picture of each of your files; {doc}`../book/your_own_xray` tells how. Here it is called on a
# drawn chest that was saved as a file:

# %% mystnb={"image": {"alt": "A drawn radiograph, and the same three times under the map of a finding, with the score and the maximum of the map above each and the notice that this is not a medical device below."}}
import tempfile
from pathlib import Path

from PIL import Image

from cxrlib import readings
from cxrlib.readings.folder import TOP, notice
from cxrlib.readings.pictures import picture

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "scan.png"
    Image.fromarray(dataset.read_pixels(str(dataset.image_ids[truth.image[0]]))).save(file)
    ((_, reading),) = readings.read(opened["lse_lba"], [file])
picture(reading, reading.top(TOP), notice(opened["lse_lba"]))

# %% [markdown]
# ## Exercises
#
# **1.** *Not calibrated* is easily said. Among the drawn patients one image in five has a given finding, as in training. Draw others in whom it
# is one in twenty, and compare the mean score of LSE-LBA with the share of images that have the finding.

# %% tags=["hide-cell"]
import torch

model, about = opened["lse_lba"]


def mean_score_and_share(prevalence):
    images = drawn(about["image_size"], prevalence=prevalence)
    with torch.inference_mode():
        scores = torch.cat([model(images[k].image[None]).logits for k in range(len(images))])
    return float(scores.sigmoid().mean()), float(images.labels.mean())


means = {prevalence: mean_score_and_share(prevalence) for prevalence in (0.2, 0.05)}
assert means[0.05][0] > 1.2 * means[0.05][1]
pd.DataFrame(means, index=["mean score", "share of images"]).T.rename_axis("prevalence").round(3)

# %% [markdown]
# The model brings the share of its training along. No hospital has that of the drawings.
#
# **2.** Every picture shows maps of the three findings with the highest scores, present or not. How high do the maps of LSE-LBA reach in images
# without the finding, and how high in images with it?

# %% tags=["hide-cell"]
import numpy as np

chosen = drawn(about["image_size"])
with torch.inference_mode():
    maps = torch.cat([model(chosen[k].image[None]).maps for k in range(len(chosen))])
highest = maps.amax(dim=(-2, -1)).numpy()  # (N, 14)
reached = {
    "finding present": float(np.median(highest[chosen.labels == 1])),
    "finding absent": float(np.median(highest[chosen.labels == 0])),
}
assert reached["finding absent"] > 0
pd.Series(reached, name="median of the maximum of a map").to_frame().round(2)

# %% [markdown]
# A map is drawn from its minimum to its maximum, so the faintest one glows as brightly as the strongest. Read the number above it.
#
# **3.** Do two models look at the same place? Find the share of pairs in which the highest points of LSE-LBA and CLARiTy are less than a tenth
# of the image's side apart. Compare with the share for two maps of other findings of the same image.

# %% tags=["hide-cell"]
from cxrlib.metrics.regions import upsample


def peaks(name):
    maps = answers[name].pairs(truth)
    flat = [int(upsample(of_pair, 96).argmax()) for of_pair in maps]
    return np.stack(np.divmod(flat, 96), axis=1) / 96  # (P, 2)


ours, theirs = peaks("lse_lba"), peaks("clarity")
near = np.hypot(*(ours - theirs).T) < 0.1
shuffled = np.random.default_rng(0).permutation(len(truth))
by_chance = np.hypot(*(ours - theirs[shuffled]).T) < 0.1
assert 0 <= by_chance.mean() < near.mean() <= 1
pd.Series({"same pair": near.mean(), "pairs shuffled": by_chance.mean()}).round(2)

# %% [markdown]
# **To take away.** A trained model is quickly loaded and always draws a map. What the map is worth stands in the numbers beside the
# controls, and on images of another kind it has to be measured again.
