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
# # All methods on the same images
#
# **Question.** Five papers, five ways of drawing a map from image labels: which is ahead when all see the same images, under one protocol, and how sure is the order?
#
# A table of five published numbers cannot say, because each comes with its own split, image size, threshold and count of false boxes ({doc}`reproduction`). Here every method, and the baseline it is built
# on, is trained by preset `quick` of its own page on the same populations of the phantom, and every map is scored by the same code. This page trains nothing; it reads those runs.
# `snakemake --cores 2 comparison` computes the tables again.
#
# *Reading time 10 minutes, running time seconds. You need {doc}`metrics` and the pages of the methods.*

# %% tags=["parameters"]
results: str = "results"  # folder of the tables: this repository's, or an absolute path

# %%
import pandas as pd
from IPython.display import Markdown, display

from cxrlib import runs
from cxrlib.parameters import StudyParameters, read_parameters
from cxrlib.ranks import ARMS

params = read_parameters(StudyParameters, globals())
scores, ranks = (
    runs.committed(f"{name}.csv", params.results) for name in ("comparison", "comparison_ranks")
)
seeds = sorted(scores["seed"].unique())
splits = scores.groupby("seed")["split_hash"].nunique()
sides = scores.groupby("image_size", sort=False)["method"].unique()
assert (splits == 1).all()  # else nothing below is paired
Markdown(
    f"{scores['method'].nunique()} networks; seeds {', '.join(map(str, seeds))}. For each seed all have the same hash of the split, so the "
    "same training, validation and test patients. Image sizes: "
    + "; ".join(f"{side} px for {', '.join(names)}" for side, names in sides.items())
    + "."
)

# %% [markdown]
# A method at a smaller size sees the same patients less sharply; it is what its own preset can afford in three minutes. The first five are the papers' methods, the rest what
# they are built on or compared with: HAM without its ordinal loss, attention mining's network before it mines (MSA) and with coarse maps (CAM, stride 16), PYLON's rival decoder (FPN)
# and the classical CAM of a ResNet.
#
# ## The table
#
# Means over seeds. Except for the AUROC, the mean is over the findings that have boxes; *prior* is the location prior, *ceiling* what a perfect map of that grid would reach. Continuous Dice and IoU depend on
# how a method scales its maps; pointing, PxAP and the best box over all thresholds (MaxBoxAccV2) do not.

# %%
SHOWN = {
    "AUROC": ("auroc", "mean", "classification"),
    "pointing": ("pointing", "macro", "localization"),
    "prior: pointing": ("pointing", "macro", "location_prior"),
    "random: pointing": ("pointing", "macro", "random"),
    "ceiling: pointing": ("pointing", "macro", "grid_ceiling"),
    "continuous Dice": ("continuous_dice", "macro", "localization"),
    "prior: Dice": ("continuous_dice", "macro", "location_prior"),
    "IoU at half": ("iou@0.5", "macro", "localization"),
    "prior: IoU": ("iou@0.5", "macro", "location_prior"),
    "MaxBoxAccV2": ("maxboxacc_v2", "macro", "localization"),
    "PxAP": ("pxap", "macro", "localization"),
    "prior: PxAP": ("pxap", "macro", "location_prior"),
}
indexed = scores.set_index(["metric", "finding", "part", "method"])["value"].sort_index()
means = pd.DataFrame(
    {title: indexed.loc[place].groupby(level=0).mean() for title, place in SHOWN.items()}
).loc[list(ARMS)]
means.style.format(precision=2)

# %% [markdown]
# ## The order, and how sure it is
#
# A method that is ahead with one seed and on one draw of patients may be behind with another. So both are drawn: as many seeds as there are, with replacement, and for each of them patients with replacement, the
# *same* for all methods; in each of 1,000 draws the methods are ranked anew. Bars hold 95 % of the ranks. Bars that do not overlap are an order that other seeds and other
# patients would have given, too.

# %% mystnb={"image": {"alt": "Four dot plots of the ranks of ten networks, 1 is best, with 95 % intervals over seeds and patients: by AUROC, pointing, continuous Dice and IoU."}}
import matplotlib.pyplot as plt

from cxrlib import figures_studies

TITLES = {
    "auroc": "AUROC",
    "pointing": "pointing",
    "continuous_dice": "continuous Dice",
    "iou@0.5": "IoU at half",
}
figures_studies.ranks(ranks, list(ARMS), TITLES)
plt.show()

# %%
shown = {
    title: ranks[ranks["metric"] == metric]
    .set_index("method")
    .apply(
        lambda row: (
            f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}], rank {row['rank']:g} [{row['rank_low']:g}, {row['rank_high']:g}]"
        ),
        axis=1,
    )
    for metric, title in TITLES.items()
}
pd.DataFrame(shown).loc[list(ARMS)]

# %%
leaders = {
    title: ranks[ranks["metric"] == metric].sort_values("rank").iloc[0]
    for metric, title in TITLES.items()
}
above = [
    method
    for method in ARMS
    if means.loc[method, "pointing"] > means.loc[method, "prior: pointing"]
]
Markdown(
    "**Answer.** "
    + " ".join(
        f"By {title}, {row['method']} is first ({row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]), in {row['first']:.0%} of the draws."
        for title, row in leaders.items()
    )
    + f" Over all findings {', '.join(above) or 'no network'} point better than the location prior."
)

# %% [markdown]
# ## What it costs
#
# Weights and training time of preset `quick` on the left. Times are by the clock, of machines that also did other things: read them as orders of magnitude. Attention mining starts from MSA's
# network, whose time is not in its own. On the right, what it costs to ask the *published* networks at 512 px, on one core.

# %%
cost = scores[scores["part"] == "cost"].pivot_table(
    index="method", columns="metric", values="value", aggfunc="median"
)
display(cost.loc[list(ARMS), ["weights", "train_seconds"]].style.format("{:,.0f}"))
asked = runs.committed("inference_cost.csv", "benchmarks").query("device == 'cpu'")
asked = asked.set_index("network")[["image_size", "weights", "multiply_adds", "images_per_second"]]
asked.style.format({"weights": "{:,}", "multiply_adds": "{:.2g}", "images_per_second": "{:.2f}"})

# %% mystnb={"image": {"alt": "Scatter chart of pointing against the number of weights of ten networks, on a logarithmic axis, beside the location prior."}}
figures_studies.gain_and_cost(means, cost, "pointing", "prior: pointing")
plt.show()

# %% [markdown]
# More weights do not buy maps here: the smallest network points best. That is a statement about three minutes of training from scratch, where a network that keeps a fine grid and halves
# seldom learns soonest, and not about the papers.
#
# ## What this does not show
#
# - **Not the papers' networks.** Pretrained encoders, 512 px and 86,000 images favour the large ones; these presets exclude all three.
# - **Not equal effort.** Each preset was fitted to its three minutes by its own page, and LSE-LBA's, which came first, was worked on most. An order between methods is also an order of presets.
# - **Not other data.** On a small sample of real radiographs every one of these methods stays below the location prior ({doc}`lse_lba`, {doc}`pylon`, {doc}`ham`).
# - HAM and attention mining are scored by maps that were meant for other protocols; their own are on their pages.
#
# ## Exercises
#
# **1.** Is the order by AUROC the order by pointing? Compute Spearman's correlation of the two over the networks.

# %% tags=["hide-cell"]
from scipy import stats

rho = stats.spearmanr(means["AUROC"], means["pointing"]).statistic
assert -1 <= rho <= 1
round(float(rho), 2)

# %% [markdown]
# **2.** A coarse grid cannot point at a nodule. Divide pointing by its grid ceiling: does the order of the CAMs against the others change?

# %% tags=["hide-cell"]
relative = (means["pointing"] / means["ceiling: pointing"]).rank(ascending=False)
absolute = means["pointing"].rank(ascending=False)
pd.DataFrame({"rank": absolute, "rank, ceiling removed": relative}).loc[
    lambda table: table["rank"] != table["rank, ceiling removed"]
]

# %% [markdown]
# **3.** What would be wrong with ranking the methods once on the mean of all metrics? Give an example from the table where two metrics disagree.

# %% tags=["hide-cell"]
order = ranks.pivot(index="method", columns="metric", values="rank").loc[list(ARMS)]
disagree = (order["pointing"] - order["auroc"]).abs().sort_values()
display(order.loc[disagree.index[-2:]])
assert (
    disagree.iloc[-1] >= 2
)  # a mean would hide it, and weigh three map metrics against one of labels

# %% [markdown]
# **To take away.** A rank is a statistic like any other. Give it an interval over everything that was drawn, and say what was held equal.
