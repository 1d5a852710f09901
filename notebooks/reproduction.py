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
# # Claimed and ours: every published number
#
# **Question.** Which of the numbers that the five papers and their baseline have published do we reproduce, and which could we not have
# reproduced whatever the code did?
#
# These are two questions. A number that is lower than the published one may come from an error in our code, or from an experiment that was never the
# same: fewer images, smaller ones, no pretrained weights. So this page first says *what differs*, by a rule, and only then on which side of
# ours the published number lies. It trains nothing: our numbers are of the runs on real radiographs that {doc}`lse_lba`, {doc}`pylon`,
# {doc}`attention_mining` and {doc}`clarity` show, the published ones of `cxrlib/literature/published_results.csv`, each with its source.
#
# *Reading time 10 minutes, running time seconds. You need {doc}`metrics`.*

# %% [markdown]
# ## Parameters
#
# A table of your own runs is read with `-p results`: `python -m cxrlib.literature.reproduction runs/nih-mini /my/tables/reproduction.csv` writes one from
# whatever finished runs on ChestX-ray14 it finds.

# %% tags=["parameters"]
results: str = "results"  # folder of the tables: this repository's, or an absolute path

# %%
import pandas as pd
from IPython.display import Markdown, display

from cxrlib import runs
from cxrlib.findings import FINDINGS
from cxrlib.literature.reproduction import setups
from cxrlib.parameters import StudyParameters, read_parameters

params = read_parameters(StudyParameters, globals())
numbers = runs.committed("reproduction.csv", params.results)
Markdown(
    f"{len(numbers)} published numbers of {numbers['method'].nunique()} networks; "
    f"{numbers['ours'].notna().sum()} have one of ours beside them."
)

# %% [markdown]
# ## The rule
#
# An experiment is **comparable** if it has at least 85 % of the published number of training images (authors keep different shares for validation),
# the same test images, image size and weights to start from. Otherwise the verdict is *not comparable*, whatever the numbers are.
# Of two comparable numbers the published one is *reproduced* unless our 95 % interval lies on the worse side of it. A number of a network that we have
# not run on real radiographs is *not run*.
#
# What the published networks were trained with, as far as we know:

# %%
display(
    setups()
    .drop(columns=["notebook", "arm", "value"])
    .style.hide(axis="index")
    .format(na_rep="not known")
)

# %% [markdown]
# Ours, of preset `quick`, are trained and tested on a small sample of ChestX-ray14, because this book has to run on two cores. What that leaves comparable:

# %%
verdicts = numbers.groupby(["method", "verdict"], sort=False).size().rename("numbers")
differs = numbers.groupby("method", sort=False)["differs"].first().fillna("")
display(verdicts.reset_index().merge(differs.reset_index()).style.hide(axis="index"))

# %% [markdown]
# Nothing is. No line of this book says that a published number has been reproduced, or that it has not.
#
# ## The numbers
#
# Published across, ours upwards, one dot for each number, with our interval over patients. On the dotted line both are equal. Grey are two
# maps that never saw the image, scored on *our* test images by the same protocol: the place where other patients have the finding, and noise. AFP counts false boxes for each image, so
# there less is better.

# %% mystnb={"image": {"alt": "Five scatter charts of our numbers against published ones, for AUROC, pointing, IoU accuracy, IoBB accuracy and false boxes: our networks lie below the line of equality in the first four and above it in the last; the location prior lies close to the line for IoBB accuracy."}}
import matplotlib.pyplot as plt

from cxrlib import figures_studies

figures_studies.claimed_and_ours(numbers)
plt.show()

# %% [markdown]
# The means, which are what papers are quoted by:

# %%
means = numbers[~numbers["finding"].isin(FINDINGS)]
shown = ["method", "metric", "threshold", "finding", "published", "ours", "low", "high", "n"]
also = ["location_prior", "random", "ours_is", "confidence"]
display(means[[*shown, *also]].style.hide(axis="index").format(precision=3, na_rep="–"))

# %%
sides = numbers["ours_is"].value_counts()
boxes = numbers[numbers["metric"] == "T(IoBB) Acc"]
beaten = int((boxes["location_prior"] >= boxes["published"]).sum())
false = numbers[numbers["metric"] == "T(IoBB) AFP"]
ratio = (false["location_prior"] / false["published"]).median()
comparable = (numbers["verdict"] != "not comparable") & (numbers["verdict"] != "not run")
Markdown(
    f"**Answer.** {comparable.sum()} of {len(numbers)} published numbers are of an experiment that ours can be compared with; "
    f"{(numbers['verdict'] == 'reproduced').sum()} are reproduced. Ours is worse than {sides.get('worse', 0)} of them, "
    f"better than {sides.get('better', 0)}, and {sides.get('not told apart', 0)} cannot be told apart. The location prior, on our "
    f"images, reaches {beaten} of the {len(boxes)} published shares of IoBB (T(IoBB) Acc), at the price of a median of {ratio:.0f} "
    "times the published number of false boxes."
)

# %% [markdown]
# The last sentence is the one to remember. A share of boxes hit, without the false boxes beside it and without a map that has seen no image, says little about a network. That
# holds for our numbers as for the published ones.
#
# ## What is not here
#
# - **No number of {cite:t}`cai2018` and of {cite:t}`ouyang2021`.** We could not read their tables, and numbers from memory or from a quotation without
#   a source stay out.
# - **LSE-LBA's Dice.** The summaries describe it without numbers; {doc}`r0_sensitivity` tries what they describe.
# - **The sampling error of the published numbers.** Papers print none. A share of 79 nodules is uncertain by up to ± 0.11, also theirs.
# - **What a full training would give.** `-p dataset nih -p preset paper` is that experiment; it needs the 112,120 images and a graphics card.
#
# Of which papers we hold numbers:

# %%
from cxrlib.models import MODELS

held = numbers.groupby("paper", sort=False).size()
bibliography = {
    "lse_lba": "yao2018",
    "attention_mining": "cai2018",
    "ham": "ouyang2021",
    "pylon": "preechakul2022",
    "clarity": "statheros2025",
    "baseline": "wang2017",
}
pd.DataFrame(
    {
        "paper": bibliography,
        "published numbers": {m: held.get(p, 0) for m, p in bibliography.items()},
    },
    index=[*MODELS],
)

# %% [markdown]
# ## Exercises
#
# **1.** PYLON's abstract gives 0.62 against 0.45 for CAM, without intervals. Take both as shares of the 984 official boxes, as if every box were its own
# patient, and give them 95 % intervals. Do they touch?

# %% tags=["hide-cell"]
import numpy as np

point = numbers.query("finding == 'Average'").set_index("method")["published"]
error = 1.96 * np.sqrt(point * (1 - point) / 984)
intervals = pd.DataFrame({"low": point - error, "high": point + error})
assert intervals.loc["PYLON", "low"] > intervals.loc["CAM", "high"]
intervals.round(3)

# %% [markdown]
# **2.** PYLON's authors released all their heat maps, and from their titles the hits of each finding can be counted. Is the abstract's "average" the mean over findings or
# over boxes? Compare it with both.

# %% tags=["hide-cell"]
released = numbers[numbers["table"] == "released heat maps"].set_index("finding")["published"]
gaps = {row: abs(point["PYLON"] - released[row]) for row in ("Macro", "Micro")}
assert (
    gaps["Micro"] < gaps["Macro"]
)  # likely, not certain: the abstract rounds, and this is one seed
gaps

# %% [markdown]
# **3.** Suppose that we had the full data. How large must the difference of an AUROC be before the rule calls a number of ours worse? Take the width of LSE-LBA's
# interval, and let it shrink with the root of the number of test images.

# %% tags=["hide-cell"]
row = numbers.query("method == 'LSE-LBA'").iloc[0]
half = (row["high"] - row["low"]) / 2
on_all = half * np.sqrt(row["n"] / 25596)
assert on_all < 0.005 < half
{"now": round(half, 4), "with 25,596 test images": round(on_all, 4)}

# %% [markdown]
# **To take away.** Before asking whether a number is reproduced, ask whether it could have been. Write down what differs by a rule that is fixed before you look.
