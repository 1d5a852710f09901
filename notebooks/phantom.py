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
# # A digital chest phantom
#
# ChestX-ray14 {cite}`wang2017` is 42 GB, and only 880 of its 112,120 images carry boxes. A *phantom* is
# a chest that we draw: nothing to download, every pixel of every finding known, and every property a
# dial. What would happen if lesions were half as large? If a tenth of the labels were wrong? If every
# pneumothorax came with a chest tube? With patients these are opinions; here they are experiments.
#
# A phantom is worth what it has in common with radiographs. So this page builds one up, from rays
# to the display, shows every finding, and then measures: against real images, against trivial methods, and by
# what a network that has seen nothing else finds on patients.
#
# *Reading time 20 minutes, running time about two.*

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds) or quick (2 min on a laptop)
data_dir: str = None  # folder of real radiographs in the layout of ChestX-ray14, to compare with
run_dir: str = None  # folder for the tables of that comparison; None: they are not kept
seed: int = 0  # of the patients

# %%
from cxrlib.parameters import read_parameters
from cxrlib.phantom.realism import PRESETS, PhantomParameters

params = read_parameters(PhantomParameters, globals())
settings = PRESETS[params.preset]
settings

# %% [markdown]
# ## One chest, layer by layer
#
# A radiograph is a shadow. Along each ray from the tube to a pixel of the detector the beam crosses so much lung,
# so much soft tissue, so much bone. The phantom computes these **path lengths** in centimetres, from
# shapes: a rib cage that widens downwards, two domes of the diaphragm, an ellipsoid heart with its
# long axis to the lower left, great vessels, trachea; ribs as hollow tubes on helices around the cage;
# vessels that branch from the hila by Murray's law {cite}`murray1926`; lung tissue as a clustered lumpy
# background {cite}`bochud1999`. The right lung is on the left: a radiograph faces its reader.

# %% mystnb={"image": {"alt": "Eight pictures of one chest at 512 pixels: path lengths of lung, soft tissue, bone and vessels, then the transmitted beam, the scattered veil, the noisy logarithmic image and the finished radiograph."}}
import matplotlib.pyplot as plt
import numpy as np

from cxrlib.phantom import figures, physics, population
from cxrlib.phantom.chest import draw_chest

size = settings["picture"]
patient, visit = np.random.default_rng([params.seed, 7]), np.random.default_rng([params.seed, 8])
chest = draw_chest(patient, visit, ap=False)
scene = population.project(chest, patient, visit, size)

through = physics.primary(scene)
veil = physics.scatter(scene, through)
finished = physics.radiograph(scene, visit)
figures.pictures(
    {
        "lung, cm": scene.lung,
        "soft tissue, cm": scene.tissue,
        "bone, cm": scene.bone,
        "blood in vessels, cm": scene.vessels,
        "transmitted beam": through,
        "scatter": veil,
        "-log(beam + scatter)": -np.log(through + veil),
        "displayed": finished,
    }
)
plt.show()

# %% [markdown]
# **Beer-Lambert** turns lengths into light: of the photons, the share
#
# $$I = \exp\Big(-\mu_t\,[\,t + 0.26\,l + v\,] - \mu_b\, b\Big)$$
#
# passes straight through soft tissue $t$, lung $l$ (0.26 times as dense {cite}`icru44`), vessels $v$ and bone
# $b$. The coefficients are those of 60 keV, $\mu_t = 0.217$ and $\mu_b = 0.604$ per centimetre
# {cite}`hubbell1995`. **Scatter** adds a smooth veil that follows the neighbourhood's thickness. Focal spot
# and motion **blur**, a finite number of photons makes **noise**, the detector is logarithmic, and the
# **display** evens out shading, chooses a window and bends the greys, each department in its own way. All of it
# varies from image to image, because what does not vary will be learned.

# %%
print(f"one square centimetre of open beam: {physics.PHOTONS:.1e} photons")
print(f"behind the thickest tenth of this chest: {np.quantile(through, 0.1):.4f} of them")
print(f"behind its lungs: {through[scene.lungs].mean():.3f}")

# %% [markdown]
# ## A population
#
# Patients differ in sex, age, habitus, heart, ribs; visits in breath, rotation, geometry. Four in ten are radiographed in
# bed: front to back, with a larger heart, the shoulder blades over the lungs, wires and tubes. Which
# findings a patient has is drawn from the **tetrachoric correlations** of the 112,120 official
# labels, projection included: effusions come with large hearts, edema with the bed. Patients have one to four images;
# an enlarged heart stays, a pneumonia may go.

# %% mystnb={"image": {"alt": "Eighteen phantom radiographs of different patients in three rows."}}
images = [
    population.render(index, settings["sheet"], seed=params.seed, prevalence="official")
    for index in range(18)
]
figures.sheet([image.pixels for image in images])
plt.show()

# %%
import pandas as pd

from cxrlib.findings import FINDINGS

pd.DataFrame(
    {
        "patient": [image.patient for image in images],
        "projection": ["AP" if image.chest.ap else "PA" for image in images],
        "findings": [
            ", ".join(name for name, label in zip(FINDINGS, image.labels, strict=True) if label)
            for image in images
        ],
        "devices": [", ".join(sorted(image.equipment)) for image in images],
    }
).head(8)

# %% [markdown]
# ## Every finding
#
# The same chest without and with each finding, drawn after its description in the Fleischner Society's glossary
# {cite}`hansell2008`; in cyan the outline of the mask that training never sees. The eight findings that have official boxes
# take size and place from quantiles of those 984 boxes.

# %% mystnb={"image": {"alt": "Fifteen radiographs of one phantom chest: without finding, then with each of the 14 findings, outlined in cyan."}}
figures.findings(21, settings["sheet"], seed=params.seed)
plt.show()

# %% [markdown]
# Nodules and infiltrations are hard to see. So they are in life: a radiologist finds them by comparing
# sides and earlier images. `lesion_contrast` is the dial.
#
# ## Dials for experiments
#
# Every property that an experiment may ask for is one argument of `cxrlib.phantom.population.render` and of
# `cxrlib.phantom.dataset.load`: `prevalence`, `cooccurrence`, `lesion_size`, `lesion_contrast`, `foci`, `label_noise`, `dose`, and four
# confounders (`chest_tube`, `pacemaker`, `portable_marker`, `wires`) that go with a finding as closely as they are told.
# The same patient stays the same patient while one dial turns.

# %% mystnb={"image": {"alt": "Eight radiographs of one patient with a mass: as drawn, half and one and a half times the size, twice the contrast, three foci, a fiftieth of the dose, and a pneumothorax without and with a chest tube."}}
dials = {
    "a mass": dict(findings=["Mass"]),
    "lesion_size=0.5": dict(findings=["Mass"], lesion_size=0.5),
    "lesion_size=1.5": dict(findings=["Mass"], lesion_size=1.5),
    "lesion_contrast=2": dict(findings=["Mass"], lesion_contrast=2.0),
    "foci=3": dict(findings=["Mass"], foci=3),
    "dose=0.02": dict(findings=["Mass"], dose=0.02),
    "pneumothorax": dict(findings=["Pneumothorax"]),
    "chest_tube=1": dict(findings=["Pneumothorax"], chest_tube=1.0),
}
figures.pictures(
    {
        title: population.render(43, settings["sheet"], seed=params.seed, **options).pixels
        for title, options in dials.items()
    }
)
plt.show()

# %% [markdown]
# ## Is it like a radiograph?
#
# ### Size and place of findings
#
# The drawn findings of a large population beside the 984 official boxes. *spread* is the ratio of the interquartile
# ranges. In the figure the band is 15 % wide.

# %%
from cxrlib.datasets.base import Truth
from cxrlib.phantom import apart, dataset, realism

split = dataset.load(128, seed=params.seed, **settings["population"])
truth = Truth(split.test)
comparison = realism.compare_boxes(truth)
comparison.pivot(
    index="finding", columns="quantity", values=["median", "official", "spread"]
).round(3)

# %% mystnb={"image": {"alt": "Left, drawn against official median areas of eight findings, all on the diagonal; right, short lines between drawn and official median centres in the image."}}
figures.boxes(comparison)
plt.show()

# %% [markdown]
# ### Grey values and spatial frequencies
#
# The statistics of real radiographs are those of a convenience sample of 2,060 official images, kept in
# `results/real_statistics.csv`; with `-p data_dir <folder>` they are computed from that folder.

# %% mystnb={"image": {"alt": "Histogram of grey values of the phantom and of real radiographs, largely overlapping."}}
from cxrlib import runs

pixels = realism.read_all(split.test)
drawn = realism.statistics(pixels)
if params.data_dir is None:
    real = runs.committed("real_statistics.csv")
else:
    radiographs = realism.read_radiographs(params.data_dir, 128)
    real = realism.statistics(radiographs.pixels)
share = {
    name: table.query("kind == 'histogram'")["value"].to_numpy()
    for name, table in (("phantom", drawn), ("radiographs", real))
}
figures.histograms(share)
plt.show()
print(f"overlap {realism.overlap(*share.values()):.3f}")

# %% mystnb={"image": {"alt": "Radially averaged power spectra of the phantom and of real radiographs, two nearly parallel falling lines."}}
spectrum = {
    name: table.query("kind == 'spectrum'")[["at", "value"]].to_numpy().T
    for name, table in (("phantom", drawn), ("radiographs", real))
}
figures.spectra({name: (at, power) for name, (at, power) in spectrum.items()})
plt.show()
print({name: round(realism.spectral_slope(*both), 2) for name, both in spectrum.items()})

# %% [markdown]
# ### Can a network tell them apart?
#
# Of course it can, and it should be said how well, and by what: a small network is trained on images of 64 px of both
# kinds, in three folds, and scored on patients that it has not seen. An AUROC of 1 means that it is never wrong. Each
# row shows it the images reduced in another way.

# %% mystnb={"image": {"alt": "Bars: AUROC of a small network that tells phantom and radiograph apart, for five reductions of the images."}}
if params.data_dir is None:
    told = runs.committed("phantom_tell_apart.csv")
else:
    phantoms = realism.Radiographs(pixels, split.test.patient_ids)
    told = apart.tell_apart(phantoms, radiographs, epochs=settings["epochs"], seed=params.seed)
figures.bars(dict(zip(told["view"], told["value"], strict=True)), "AUROC", chance=0.5, limit=1.1)
plt.show()
told.round(3)

# %% [markdown]
# The network is rarely wrong: neither grey values nor the frame give the phantom away, all of it does. Fine detail alone
# is the least telling. Blurred images, in which only large shapes are left, are told apart best: real bodies vary in more
# ways than these. What matters here is whether *findings* look alike; the last section asks that.

# %%
from pathlib import Path

from cxrlib.files import write_atomic

if params.run_dir is not None:
    for name, table in {"real_statistics": real, "phantom_tell_apart": told}.items():
        path = Path(params.run_dir) / f"{name}.csv"
        write_atomic(path, lambda file, table=table: table.to_csv(file, index=False))

# %% mystnb={"image": {"alt": "Real radiographs in the upper row and phantom radiographs in the lower one, if a folder of real ones was given; otherwise phantom radiographs."}}
beside = (
    [] if params.data_dir is None else list(radiographs.pixels[:: len(radiographs.pixels) // 6][:6])
)
figures.sheet([*beside, *pixels[:12]])
plt.show()

# %% [markdown]
# *With `data_dir`, the first row is real. Images of patients are not part of this repository.*
#
# ## Is it too easy?
#
# If findings could be read off the average grey of a region, or pointed at without looking, the phantom would teach
# nothing. Three methods that do not look: logistic regression on images of 32 x 32 pixels, the place where other
# patients have the finding, and the brightest spot.

# %%
from cxrlib import metrics

blind = metrics.evaluate(
    realism.trivial_predictions(split.train, split.test), split.test, seed=params.seed
)
metrics.table(blind, "pointing").drop(columns=["AP"]).rename(
    columns={"AUROC": "AUROC, 32 × 32 pixels", "pointing": "brightest spot"}
)

# %% [markdown]
# ## Does it carry over to patients?
#
# The test that decides: a network trained on the phantom alone, on image labels, is scored on the official boxes
# of real radiographs (`python -m cxrlib.phantom.transfer`, kept in `results/phantom_transfer.csv`). It has never seen
# a patient.

# %% mystnb={"image": {"alt": "Dot plot of the pointing score on real radiographs of each boxed finding, with 95 % intervals, beside location prior, random map and grid ceiling."}}
transfer = runs.committed("phantom_transfer.csv")
figures.pointing(transfer)
plt.show()

# %%
transfer.query("finding in ('mean', 'macro', 'micro')").set_index(["metric", "finding", "part"])[
    ["value", "low", "high", "n"]
].sort_index().round(3)

# %% [markdown]
# It points into the right box seven times as often as a random map, and more often than the location prior, which here
# knows the boxes of all other real patients; the prior it beats for atelectasis, effusion, mass and pneumonia. It does not find
# everything: nodules are missed always, an enlarged heart less often hit than by the prior. And pointing is all that
# carries over: the maps cover the boxes worse than the prior does, and the images are ranked hardly better than by chance.
# What each change of the phantom and of the network did to this number is in `results/README.md`.
#
# **To take away.** A phantom answers questions about *methods*, because everything about it is known and each property is a
# dial. It does not answer questions about patients. This one looks like a radiograph, resists trivial methods, and teaches a
# network a little about real ones; a network still tells the two apart without effort.
