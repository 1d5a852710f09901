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
# On real radiographs nobody knows what the network used. The phantom has a dial for it: on a chosen *share* of the images three devices are there exactly if a finding is, on the others they come at their usual rate.
#
# | Device | Gives away |
# |---|---|
# | chest tube | pneumothorax |
# | the letters of a portable film | edema |
# | electrodes and their wires | infiltration |
#
# The other eleven findings have no device; they are the control within every run. Each network, LSE-LBA with preset `quick` of {doc}`lse_lba`, is trained once and tested twice, on the *same patients with the same
# findings*: with devices **as in training**, as a test set from the same hospital would have them, and with devices that **tell nothing**, as in another hospital.
#
# This page trains nothing. `snakemake --cores 2 shortcuts` computes its table, `results/shortcuts.csv`, again.
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
# ## What the network may see
#
# A patient with a pneumothorax, an edema and an infiltration, drawn with devices at their usual rate and with all three that tell; on the right what changed. Letters and shutters at the rim are drawn anew with the
# devices; chest and findings stay as they are.

# %% mystnb={"image": {"alt": "Three images: a phantom radiograph with devices at their usual rate, the same patient with a chest tube, letters of a portable film and wires, and the difference of the two, in which devices, letters and shutters show."}}
import matplotlib.pyplot as plt

from cxrlib import figures_studies
from cxrlib.phantom.devices import CONFOUNDERS
from cxrlib.phantom.population import render

look = {"findings": list(CONFOUNDERS.values()), "lesion_contrast": 4.0}
without, tied = (
    render(5, 256, **look, **dict.fromkeys(CONFOUNDERS, share)).pixels for share in (0.0, 1.0)
)
figures_studies.difference(without, tied, ("devices as usual", "devices that tell"))
plt.show()

# %% [markdown]
# ## How to read
#
# Across, the share of images on which devices tell, upwards a score; means over seeds with their 95 % intervals. Above the three findings that a device gives away, below the eleven without one. If the networks took the
# shortcut, the blue line (tested as trained) of the AUROC stays up or rises above, the orange one (devices tell nothing) falls, and pointing falls for both; below nothing of this happens.

# %% mystnb={"image": {"alt": "Line charts against the share of telling devices for the three findings with a device: AUROC, pointing and continuous Dice, tested with devices as in training and with devices that tell nothing, beside location prior and random map."}}
from cxrlib.phantom.shortcuts import CONFOUNDED, TESTS
from cxrlib.studies import by_seed

others = sorted(
    set(study.loc[study["part"] == "localization", "finding"]) - {"macro"} - set(CONFOUNDED)
)
CONTROL = {
    "location prior": "location_prior",
    "random map": "random",
    "grid ceiling": "grid_ceiling",
}


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


figures_studies.trends(panels(CONFOUNDED), "share of telling devices")
plt.show()

# %% mystnb={"image": {"alt": "The same charts for the eleven findings without a device."}}
figures_studies.trends(panels(others), "share of telling devices")
plt.show()

# %% [markdown]
# ## The answer
#
# Differences from the networks whose devices never told, within seeds. A change is called one if its 95 % interval leaves out zero.

# %%
from cxrlib.phantom.shortcuts import answers

table = answers(study, others)
table

# %%
most = table[table["share"] == strengths[-1]].set_index(["findings", "score", "test"])["change"]
said = {-1: "falls", 0: "cannot be told to change", 1: "rises"}
sign = table[table["share"] == strengths[-1]].set_index(["findings", "score", "test"])["sign"]
told = {
    name: f"{said[sign['with a device', *place]]} ({most['with a device', *place]})"
    for name, place in {
        "tied AUROC": ("AUROC", "tied"),
        "free AUROC": ("AUROC", "free"),
        "tied pointing": ("pointing", "tied"),
        "free pointing": ("pointing", "free"),
    }.items()
}
Markdown(
    f"**Answer.** Where devices tell on a share of {strengths[-1]:g} of the images, of the findings with a device: the AUROC, tested as trained, {told['tied AUROC']}; pointing "
    f"{told['tied pointing']}. When devices stop telling, the AUROC {told['free AUROC']} against networks that never had the shortcut, and pointing {told['free pointing']}. "
    f"Of the findings without a device, the AUROC tested as trained {said[sign['without a device', 'AUROC', 'tied']]} ({most['without a device', 'AUROC', 'tied']})."
)

# %% [markdown]
# ## Finding by finding
#
# Three devices are three experiments: a tube is a line of two pixels at this size, the letters are a few, and wires lie over both lungs.

# %% mystnb={"image": {"alt": "Heat map of the change of the AUROC of each finding, tested with devices that tell nothing, against networks whose devices never told, with stars where the interval excludes zero."}}
free = study[study["test"] == "free"]
by_finding = {
    name: by_seed(free, "strength", "auroc", [name], "classification")
    for name in [*CONFOUNDED, *others]
}
figures_studies.change_by_row(by_finding, strengths[0], "share of telling devices")
plt.show()

# %% [markdown]
# ## What this does not show
#
# - That networks on real radiographs take these shortcuts. It shows what would be seen if they did, and that a test set of the same origin does not show it.
# - What happens when findings are as faint as in life. Here they are four times as dense, so that the finding itself is easy to learn and a shortcut pays less.
# - A map that leaves the finding need not be a shortcut: look at where it goes.
#
# ## Exercises
#
# **1.** You have only a test set of the same origin as the training set, with boxes. Which of the scores above would have warned you?

# %% tags=["hide-cell"]
warned = table[(table["findings"] == "with a device") & (table["test"] == "tied")]
warned[warned["sign"] < 0][["score", "share", "change"]]

# %% [markdown]
# **2.** How often is a device on a film that does not have its finding, and on one that has? Count on the first 200 phantom patients at a share of 0.5, from the list of devices, without drawing an image larger than 64 px.

# %% tags=["hide-cell"]
import pandas as pd

from cxrlib.findings import FINDINGS

films = [render(i, 64, prevalence=0.2, cooccurrence=0.0, chest_tube=0.5) for i in range(200)]
tube = pd.Series(["chest_tube" in film.equipment for film in films])
has = pd.Series([bool(film.labels[FINDINGS.index("Pneumothorax")]) for film in films])
rates = tube.groupby(has).mean()
assert rates[True] > rates[False]
rates.rename(index={True: "pneumothorax", False: "none"}).round(2)

# %% [markdown]
# **3.** A share of 1 is the worst case. What does logic say about the AUROC of a network that has learned *only* the tube, as a function of the share, when tested as trained? Work it out from the two rates of exercise 2.

# %% tags=["hide-cell"]
# A yes-or-no sign with sensitivity s and false positive rate f has an AUROC of (1 + s - f) / 2.
auroc = (1 + rates[True] - rates[False]) / 2
assert 0.5 < auroc < 1
round(float(auroc), 2)

# %% [markdown]
# **To take away.** A test set from where the training set came from shares its shortcuts. Ask where the map looks, and ask it of patients whose devices tell nothing.
