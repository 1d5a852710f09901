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
# # From the phantom to patients
#
# **Question.** A thousand labelled radiographs are too few to learn from: on a small sample of ChestX-ray14 every method of this book stays below the location prior. Does it help to learn on the phantom first, where labels cost
# nothing, and how does the gain grow with the number of phantom images?
#
# One network, the `PatchNet` of `cxrlib.phantom.transfer`, is trained on 0, 1,000, 4,000 or 8,000 phantom images and then, always in the same way, on the 1,105 training images of the sample. *Scratch* is the
# arm with 0. All are scored on the sample's 601 official boxes; the network is scored once more before it has seen a patient (*phantom only*).
#
# This page trains nothing. With the sample's folder, `python -m cxrlib.phantom.tuning run --phantom 4000 --data-dir <folder>` makes a run and `python -m cxrlib.phantom.tuning collect` the table `results/sim_to_real.csv`.
#
# *Reading time 10 minutes, running time seconds. You need {doc}`phantom` and {doc}`metrics`.*

# %% tags=["parameters"]
results: str = "results"  # folder of the tables: this repository's, or an absolute path

# %%
from IPython.display import Markdown

from cxrlib import runs
from cxrlib.parameters import StudyParameters, read_parameters

params = read_parameters(StudyParameters, globals())
study = runs.committed("sim_to_real.csv", params.results).fillna({"against": ""})
arms = study[(study["against"] == "") & study["stage"].isin(["tuned", "phantom only"])]
arms = arms.drop_duplicates(["phantom_images", "stage"])
Markdown(
    "; ".join(
        f"{row.phantom_images:,} phantom images, {row.stage}: {row.seeds} "
        + ("seed" if row.seeds == 1 else "seeds")
        for row in arms.itertuples()
    )
    + "."
)

# %% [markdown]
# ## How to read
#
# Across, the number of phantom images; upwards the mean over seeds with its 95 % interval over the test *patients*. The interval says how another sample of patients would have moved the number, not how another seed would. Grey lines are the
# location prior of the same boxes (dashed), noise (dotted) and the best that maps of this grid can reach. Micro means over boxes, macro over findings.

# %% mystnb={"image": {"alt": "Line charts against the number of phantom images: AUROC, pointing macro and micro, and continuous Dice, after tuning on patients and with the phantom only, beside location prior, random map and grid ceiling."}}
import matplotlib.pyplot as plt

from cxrlib import figures_studies

PANELS = {
    "AUROC": ("auroc", "mean"),
    "pointing, macro": ("pointing", "macro"),
    "pointing, micro": ("pointing", "micro"),
    "continuous Dice, macro": ("continuous_dice", "macro"),
}
figures_studies.gains(study[study["against"] == ""], PANELS)
plt.show()

# %% [markdown]
# ## The answer
#
# The differences, patient by patient: in each of 1,000 draws both networks are scored on the same patients.

# %%
rows = study[study["against"] != ""].copy()
rows["difference"] = [
    f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in rows.itertuples()
]
rows["score"] = rows["metric"] + ", " + rows["mean"]
wanted = rows["score"].isin([", ".join(place) for place in PANELS.values()])
rows[wanted].pivot(
    index=["against", "stage", "phantom_images"], columns="score", values="difference"
).fillna("–")


# %%
def told(row):
    """A difference in words, by its interval."""
    side = "is better" if row.low > 0 else "is worse" if row.high < 0 else "cannot be told apart"
    return f"{side} ({row.difference})"


def difference(phantom_images, against, metric="pointing", mean="macro"):
    place = rows.query(
        "phantom_images == @phantom_images and stage == 'tuned' and against == @against"
        " and metric == @metric and mean == @mean"
    )
    (row,) = place.itertuples()
    return told(row)


most = study["phantom_images"].max()
scores = study[(study["against"] == "") & (study["stage"] == "tuned")]
best = scores[scores["phantom_images"] == most].set_index(["metric", "mean"])
macro, micro = (best.loc[("pointing", mean)] for mean in ("macro", "micro"))
Markdown(
    f"**Answer.** After {most:,} phantom images and the patients, pointing on real boxes is {macro.value:.2f} [{macro.low:.2f}, {macro.high:.2f}] over findings and "
    f"{micro.value:.2f} [{micro.low:.2f}, {micro.high:.2f}] over boxes. Against scratch it {difference(most, 'scratch')}; against the location prior it "
    f"{difference(most, 'location prior')}, both over findings. The AUROC, against scratch, {difference(most, 'scratch', 'auroc', 'mean')}."
)

# %% [markdown]
# ## What this does not show
#
# - The phantom was chosen by its zero-shot score on these same boxes (`results/README.md` lists the steps), so that every number with a phantom in it flatters itself a little. Scratch has no such advantage.
# - Where an arm has one seed, its intervals say nothing of another seed; the first line of this page says how many there are.
# - More phantom images are also more steps, eight epochs of each size. Part of what 1,000 images lack may be training.
# - The schedule on real images was set once, for all arms; a longer one might help scratch more.
# - The sample is small and rich in pneumonia. Its numbers are not those of the full test set.
#
# ## Exercises
#
# **1.** Is more phantom better? From the table, find between which two sizes the gain over scratch grows most.

# %% tags=["hide-cell"]
gain = study.query(
    "against == 'scratch' and stage == 'tuned' and metric == 'pointing' and mean == 'macro'"
)
gain = gain.set_index("phantom_images")["value"].sort_index()
steps = gain.diff().dropna()
int(steps.idxmax()) if len(steps) else gain  # up to this size

# %% [markdown]
# **2.** What do patients add to the phantom? Compare tuned with phantom only at every size. Why may pointing fall while the AUROC rises?

# %% tags=["hide-cell"]
both = study[(study["against"] == "") & (study["phantom_images"] > 0)]
both = both[both["metric"].isin(["auroc", "pointing"]) & both["mean"].isin(["mean", "macro"])]
both.pivot(index=["metric", "phantom_images"], columns="stage", values="value").round(3)

# %% [markdown]
# **3.** How many boxes would be needed to tell a gain of 0.02 in micro pointing from none? Use the width of the interval you have, and that it shrinks with the root of the number of boxes.

# %% tags=["hide-cell"]
row = study.query(
    "against == 'scratch' and stage == 'tuned' and metric == 'pointing' and mean == 'micro'"
).iloc[-1]
half = (row["high"] - row["low"]) / 2
needed = 601 * (half / 0.02) ** 2
round(needed)

# %% [markdown]
# **To take away.** A simulation is worth what it adds on patients, beside a map that has seen none. Report the difference with its interval, and what the simulation was tuned on.
