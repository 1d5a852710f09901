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
# # Shortcuts: right for the wrong reason
#
# **Question.** A network learns from image labels. If a device on the film goes with a finding, it may learn the device: a chest tube for a pneumothorax {cite}`oakdenrayner2020`. Does the AUROC stay high while the map leaves
# the finding, and does the AUROC fall when the device stops telling?
#
# On real radiographs nobody knows what the network used. The phantom has a dial for it: on a chosen *share* of the images four devices are there exactly if a finding is, on the others they come at their usual rate.
#
# | Device | Gives away | What it looks like at 96 px |
# |---|---|---|
# | pacemaker | cardiomegaly | a bright block of some 10 px below the left collar bone, far from the heart's box |
# | chest tube | pneumothorax | a line one or two pixels wide, on the side of the pneumothorax |
# | the letters of a portable film | edema | small grey marks in a corner, beside other letters |
# | electrodes and their wires | infiltration | thin lines among other thin lines |
#
# The pairs of tube and pneumothorax and of letters and bed are known from hospitals; that a pacemaker goes with a large heart is plausible and our choice. The other ten findings have no device; they are the control within
# every run. Each network, LSE-LBA with preset `quick` of {doc}`lse_lba`, is trained once and tested twice, on the *same patients with the same
# findings*: with devices **as in training**, as a test set from the same hospital would have them, and with devices that **tell nothing**, as in another hospital.
#
# This page trains nothing. `snakemake --cores 2 shortcuts` computes its tables, `results/shortcuts.csv` and `results/shortcuts_maps.csv`, again.
#
# *Reading time 10 minutes, running time seconds. You need {doc}`phantom` and {doc}`lse_lba`.*

# %% tags=["parameters"]
results: str = "results"  # folder of the tables: this repository's, or an absolute path

# %%
from IPython.display import Markdown

from cxrlib import runs
from cxrlib.parameters import StudyParameters, read_parameters

params = read_parameters(StudyParameters, globals())
study = runs.committed("shortcuts.csv", params.results)
strengths, seeds = sorted(study["strength"].unique()), sorted(study["seed"].unique())
Markdown(
    f"{study.groupby(['strength', 'seed']).ngroups} networks: shares "
    f"{', '.join(f'{share:g}' for share in strengths)}, seeds {', '.join(map(str, seeds))}."
)

# %% [markdown]
# ## Where the networks look
#
# On the left a patient with a large heart and a pacemaker. Then the mean map of *cardiomegaly*, over all test images that have it and over the seeds, for networks that were trained with the pacemaker telling on more and
# more images. The chests of the phantom lie alike, so a place in the mean is a place in the body.

# %% mystnb={"image": {"alt": "A phantom radiograph with a pacemaker, and the mean map of cardiomegaly at each share of telling devices: over the heart where the pacemaker tells nothing, at the pacemaker's place where it tells."}}
import matplotlib.pyplot as plt

from cxrlib import figures_studies
from cxrlib.phantom.population import render

maps = runs.committed("shortcuts_maps.csv", params.results).query("finding == 'Cardiomegaly'")
film = render(5, 256, findings=["Cardiomegaly"], lesion_contrast=4.0, pacemaker=1.0)
figures_studies.where_it_looks(film.pixels, maps, "pacemaker")
plt.show()

# %% [markdown]
# ## How to read the charts
#
# Across, the share of images on which devices tell, upwards a score; means over seeds with their 95 % intervals. A network that takes a shortcut keeps its AUROC where it is tested as trained (blue) and loses it where devices tell
# nothing (orange); pointing and continuous Dice fall in both.
#
# **Cardiomegaly, which a pacemaker gives away:**

# %% mystnb={"image": {"alt": "Line charts against the share of telling devices for cardiomegaly: AUROC, pointing and continuous Dice, tested with devices as in training and with devices that tell nothing, beside location prior, random map and grid ceiling."}}
from cxrlib.phantom.shortcuts import CONFOUNDED, TESTS
from cxrlib.studies import by_seed

CONTROL = {
    "location prior": "location_prior",
    "random map": "random",
    "grid ceiling": "grid_ceiling",
}
small = [name for name in CONFOUNDED if name != "Cardiomegaly"]
of_boxes = set(study.loc[study["part"] == "localization", "finding"])
others = sorted(of_boxes - {"macro", *CONFOUNDED})


def panels(findings):
    drawn = {}
    for title, metric, part in (
        ("AUROC", "auroc", "classification"),
        ("pointing", "pointing", "localization"),
        ("continuous Dice", "continuous_dice", "localization"),
    ):
        of_test = {
            name: by_seed(study[study["test"] == test], "strength", metric, findings, part)
            for test, name in TESTS.items()
        }
        if part == "localization":
            tied = study[study["test"] == "tied"]
            of_test |= {
                name: by_seed(tied, "strength", metric, findings, control)
                for name, control in CONTROL.items()
            }
        drawn[title] = of_test
    return drawn


figures_studies.trends(panels(["Cardiomegaly"]), "share of telling devices")
plt.show()

# %% [markdown]
# **The mean of pneumothorax, edema and infiltration, whose devices are small or thin:**

# %% mystnb={"image": {"alt": "The same charts for the mean of pneumothorax, edema and infiltration."}}
figures_studies.trends(panels(small), "share of telling devices")
plt.show()

# %% [markdown]
# **The mean of the ten findings without a device:**

# %% mystnb={"image": {"alt": "The same charts for the mean of the ten findings without a device."}}
figures_studies.trends(panels(others), "share of telling devices")
plt.show()

# %% [markdown]
# ## The answer
#
# Differences from the networks whose devices never told, within seeds. A change is called one if its 95 % interval leaves out zero.

# %%
from cxrlib.phantom.shortcuts import answers

groups = {name: [name] for name in CONFOUNDED} | {"the ten others": others}
table = answers(study, groups)
by_place = table.set_index(["findings", "score", "test", "share"])
by_place["change"].unstack("share").loc[list(groups)].rename(index=TESTS)

# %%
said = {-1: "falls", 0: "cannot be told to change", 1: "rises"}


def told(finding, score, test, share):
    row = by_place.loc[finding, score, test, share]
    return f"{said[row['sign']]} ({row['change']})"


most, heart = strengths[-1], "Cardiomegaly"
Markdown(
    f"**Answer.** *Cardiomegaly, pacemaker telling on a share of {most:g}.* Tested as trained, the AUROC {told(heart, 'AUROC', 'tied', most)} and pointing {told(heart, 'pointing', 'tied', most)}: right for the "
    f"wrong reason. When the pacemaker stops telling, the AUROC {told(heart, 'AUROC', 'free', most)}. At a share of {strengths[1]:g} the AUROC as trained {told(heart, 'AUROC', 'tied', strengths[1])}, and pointing "
    f"{told(heart, 'pointing', 'tied', strengths[1])}.\n\n"
    + " ".join(
        f"*{name}*: the AUROC as trained {told(name, 'AUROC', 'tied', most)}, pointing {told(name, 'pointing', 'tied', most)}."
        for name in small
    )
    + f" *The ten others*: the AUROC {told('the ten others', 'AUROC', 'tied', most)}, pointing {told('the ten others', 'pointing', 'tied', most)}."
)

# %% [markdown]
# ## Why the pacemaker and not the others
#
# A shortcut must be easier to learn than the finding. A bright block fills several cells of the map, and a network of few layers sees it whole. A tube is a line of two pixels, letters and wires are fainter still, and at this size a network of
# few layers can hardly tell them from other letters and lines; and the findings are drawn four times as dense as in life, so that they are easy. That is our reading of the charts; a larger network on larger films may well take the small devices too.
#
# ## What this does not show
#
# - That networks on real radiographs take these shortcuts. It shows what would be seen if they did, and that a test set of the same origin does not show it in the AUROC.
# - What happens when findings are as faint as in life.
# - A map that leaves the finding need not be a shortcut: look at where it goes.
#
# ## Exercises
#
# **1.** You have only a test set of the same origin as the training set, with boxes. Which of the scores above would have warned you of the pacemaker, and at which shares?

# %% tags=["hide-cell"]
warned = table[(table["findings"] == "Cardiomegaly") & (table["test"] == "tied")]
warned[warned["sign"] < 0][["score", "share", "change"]]

# %% [markdown]
# **2.** How often is a pacemaker on a film that does not have a large heart, and on one that has? Count on the first 200 phantom patients at a share of 0.5, from the list of devices, without drawing an image larger than 64 px.

# %% tags=["hide-cell"]
import pandas as pd

from cxrlib.findings import FINDINGS

films = [render(i, 64, prevalence=0.2, cooccurrence=0.0, pacemaker=0.5) for i in range(200)]
device = pd.Series(["pacemaker" in film.equipment for film in films])
has = pd.Series([bool(film.labels[FINDINGS.index("Cardiomegaly")]) for film in films])
rates = device.groupby(has).mean()
assert rates[True] > rates[False]
rates.rename(index={True: "cardiomegaly", False: "none"}).round(2)

# %% [markdown]
# **3.** What does logic say about the AUROC of a network that has learned *only* the pacemaker, as a function of the share, when tested as trained? Work it out from the two rates of exercise 2, and compare it with the chart: does the
# network of a share of 0.5 use the pacemaker alone?

# %% tags=["hide-cell"]
# A yes-or-no sign with sensitivity s and false positive rate f has an AUROC of (1 + s - f) / 2.
only = (1 + rates[True] - rates[False]) / 2
assert 0.5 < only < 1
at_half = by_seed(
    study[study["test"] == "tied"], "strength", "auroc", ["Cardiomegaly"], "classification"
)
pd.Series({"only the pacemaker": only, "the networks": at_half[0.5].mean()}).round(2)

# %% [markdown]
# **To take away.** A test set from where the training set came from shares its shortcuts. Ask where the map looks, and ask it of patients whose devices tell nothing.
