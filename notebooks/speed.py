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
# # What it costs
#
# Speed decides which experiments are done at all. This page says what the library's parts cost beside the plain way of doing the same: time and, where it matters, memory.
# It measures nothing; it shows what one command has written:
#
# ```bash
# python benchmarks/all.py
# ```
#
# Two things of which one is the other's yardstick take turns in the same process, round by round. Seconds by themselves are of one machine on one day; **the ratio is what travels**. It is of the
# shortest round of each, which other programs have lengthened least, and its range is that of the ratios of single rounds. A ratio below 1 says that ours costs less.
#
# *Reading time 5 minutes, running time seconds. You need no other page.*

# %% tags=["parameters"]
results: str = "benchmarks"  # folder of the tables: this repository's, or an absolute path

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from cxrlib import figures_studies, runs
from cxrlib.parameters import StudyParameters, read_parameters

params = read_parameters(StudyParameters, globals())
ratios = runs.committed("ratios.csv", params.results)
days = sorted(ratios["date"].unique())
Markdown(
    f"{len(ratios)} comparisons, measured on {' and '.join(days)}. Machine: {' and '.join(ratios['machine'].unique())}."
)

# %% [markdown]
# ## All comparisons
#
# Under each question what is ours, and how often the cost of the other it has. Where the range cannot be seen it is smaller than the dot.

# %% mystnb={"image": {"alt": "Dot chart on a logarithmic axis, one dot for each comparison under the heading of its question. Reading images from the cache and the bootstrap lie far left of one, training steps and LSE-LBA pooling right of it."}}
QUESTIONS = {
    "loading": "Reading images: against torchxrayvision",
    "auroc_speed": "AUROC, 1,000 replicates: against scikit-learn in a loop",
    "protocols_speed": "Boxes of all thresholds: against OpenCV in a loop",
    "pooling_speed": "LSE-LBA pooling: against the mean",
    "training_step": "A training step: against the bare backbone",
    "ham_step": "HAM's constraints: against its whole step",
    "inference_cost": "Asking a network: against a ResNet-50 with CAM",
    "predict_latency": "Your own X-ray: against the network alone",
    "phantom_speed": "Drawing chests: all cores against one process",
    "start": "Starting: against import torch",
}
SWITCHES = "Switches of a training step: against float32, channels last"
switched = ratios["benchmark"].eq("training_step") & ~ratios["other"].str.startswith("backbone")
question = ratios["benchmark"].map(QUESTIONS).mask(switched, SWITCHES)
place = question.map([*QUESTIONS.values(), SWITCHES].index)
ratios = ratios.assign(question=question, place=place).sort_values("place", kind="stable")
figures_studies.costs(ratios)
plt.show()

# %% [markdown]
# The same in numbers, with what each is compared with. The last columns say how many rounds there were and on how many threads.


# %%
def told(cost):
    """A cost as a number, or as a fraction where it is below a half."""
    return "–" if np.isnan(cost) else f"{cost:.2f}" if cost >= 0.5 else f"1/{1 / cost:,.3g}"


shown = ["question", "ours", "other", "of", "value", "low", "high", "rounds", "threads"]
numbers = dict.fromkeys(["value", "low", "high"], told)
table = ratios.assign(question=ratios["question"].str.split(":").str[0])[shown]
table.style.format({**numbers, "rounds": "{:.0f}", "threads": "{:.0f}"}, na_rep="–").hide(
    axis="index"
)

# %% [markdown]
# Read them by what is compared. Against **another program that does the same**, the loader, the bootstrap and the scorer are ahead. For the first two it is work that is not done twice: an image is decoded and
# resized once, and scores are sorted once for all replicates. Against **a bare backbone**, a method does more; the question is how much dearer that is. Against **the network alone**,
# `cxrlib predict` spends nearly everything on reading a large file and drawing pictures: a faster network would not be noticed.

# %% [markdown]
# ## The bars
#
# What was asked for in advance.

# %%
start = runs.committed("start.csv", params.results).set_index("program")
pooling = runs.committed("pooling_speed.csv", params.results).set_index("pooling")
added = start.loc["import cxrlib, after torch", "seconds"]
helped = start.loc["cxrlib --help"]
slower = pooling.loc["LSE-LBA, bounded", "ratio_to_mean"]
memory = pooling.loc["LSE-LBA, bounded", "extra_maps"] / pooling.loc["mean", "extra_maps"]
bars = pd.DataFrame(
    [
        ("import cxrlib, once torch is there", "under 0.3 s", f"{added:.4f} s", added < 0.3),
        (
            "cxrlib --help, Python's start included",
            "under 1 s",
            f"{helped['whole']:.2f} s",
            helped["whole"] < 1,
        ),
        (
            "cxrlib --help imports torch",
            "no",
            "yes" if helped["has_torch"] else "no",
            not helped["has_torch"],
        ),
        (
            "LSE-LBA pooling, both passes, beside the mean",
            "at most 1",
            f"{slower:.2f}",
            slower <= 1,
        ),
    ],
    columns=["what", "bar", "measured", "met"],
)
bars.style.format({"met": lambda met: "yes" if met else "no"}).hide(axis="index")

# %%
steps = runs.committed("training_step.csv", params.results)
missed = bars.loc[~bars["met"], "what"]
outcome = f"Not met: {'; '.join(missed)}." if len(missed) else "All are met."
# Maps of the step are of the size that the pooling was measured on: 14 of 128 x 128 for each image.
images = int(pooling["shape"].iloc[0].split("x")[0])
more = (pooling.loc["LSE-LBA, bounded", "seconds"] - pooling.loc["mean", "seconds"]) / images
step = 1 / steps.set_index("network").loc["LSE-LBA", "images_per_second"]
Markdown(
    f"**Answer.** {bars['met'].sum()} of {len(bars)} bars are met. {outcome} LSE-LBA pooling takes {slower:.2f} times the time of a mean and {memory:.2f} times its memory. "
    f"What it takes longer than a mean is {more / step:.1%} of a training step of its network at 512 px."
)

# %% [markdown]
# An exponential of every cell is dearer than a sum, and a mean needs hardly more than to read its numbers once. What could be saved has been: the pass for the maximum, since probabilities cannot overflow, and the memory, which
# the gradient takes over. Plain operations, the row *LSE-LBA, plain*, show what it was before.
#
# And an honest second look at `import cxrlib`: the package imports nothing heavy, so that the bar is met by doing nothing. Whoever makes a *model* waits for Lightning and timm.

# %%
start[["seconds", "processor", "whole", "has_torch"]].style.format(precision=3)

# %% [markdown]
# ## A training step, and how near it comes to the machine
#
# The published networks at the input size of their papers. *Share* is of the roofline: the floating-point operations of a step in each second, over what a large product of matrices of the same type of numbers reaches. A bare
# backbone is the encoder of the method, averaged, with a linear classifier; HAM's is dilated as HAM's own is. Batches are as small as a CPU wants them: mind the ratios.

# %%
columns = {
    "network": "network",
    "size": "px",
    "batch": "images",
    "seconds": "s",
    "images_per_second": "images/s",
    "operations": "operations",
    "share_of_roofline": "share",
}
formats = {"s": "{:.3g}", "images/s": "{:.3g}", "operations": "{:.2g}", "share": "{:.0%}"}
for device, rows in steps.groupby("device"):
    display(
        Markdown(
            f"On {device.replace('cpu', 'the CPU').replace('cuda', 'the GPU')}: {rows['machine'].iloc[0]}."
        )
    )
    display(rows[list(columns)].rename(columns=columns).style.format(formats).hide(axis="index"))
measured = "cuda" in set(steps["device"])
Markdown(
    "A GPU was measured with and without mixed precision, channels-last and compilation."
    if measured
    else "**No GPU was measured**, because this machine had none. On one that has, the same command measures mixed precision, channels-last and compilation there, on and off."
)

# %% [markdown]
# The share says where there is nothing left to gain in Python: convolutions of a large network already run near what the processor can do. A small network with many cheap layers, LSE-LBA's, runs further from it.
#
# ## What this does not show
#
# - One machine and one day. Another processor has another ratio of arithmetic to memory, and another ranking of what depends on it.
# - Speed only. Whether a slower method is worth it is a matter of {doc}`comparison`.
# - Not the augmentation, and not the reading of images while training: of small networks on small images they are a good part.
#
# **To take away.** Compare in one run, in turns, and say what with. A speed without its yardstick is a fact about a machine.

# %%
about = ratios[["benchmark", "date", "threads", "machine", "versions"]].drop_duplicates()
about.style.format({"threads": "{:.0f}"}, na_rep="–").hide(axis="index")
