"""Charts of the chapter on HAM: one function, one figure, as in :mod:`cxrlib.figures`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.figures import COLOURS, first_pair, no_ticks, radiograph
from cxrlib.findings import FINDINGS
from cxrlib.models.ham_losses import bounded_loss, union_loss

LOSSES = {
    "loss_classes": "findings: cross-entropy",
    "loss_abnormal": "abnormality: cross-entropy",
    "loss_bounded": "bounded: findings in abnormality",
    "loss_union": "union: abnormality in findings",
    "loss_box": "boxes",
}
"""What :class:`cxrlib.models.ham.HAM` logs, and what to call it."""

LEVELS = {"foreground": "foreground", "abnormal": "abnormality", "classes": "finding"}

_SIDE = 256
# Discs (x, y, radius) of two findings and of abnormality, which is both if not given, in 1/64 of
# the side.
_SETS: dict[str, list[tuple[float, float, float]]] = {
    "nested": [(22, 30, 10), (44, 38, 10)],
    "a finding outside": [(22, 30, 10), (44, 38, 10), (22, 30, 10)],
    "abnormality too large": [(22, 30, 10), (44, 38, 10), (33, 34, 26)],
    "elsewhere": [(16, 20, 10), (30, 14, 10), (44, 46, 12)],
}


def _disc(x: float, y: float, radius: float) -> Tensor:
    steps = torch.arange(_SIDE) * 64 / _SIDE
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).float()


def ordinal_sets() -> Figure:
    """Two findings and the abnormality as sets, and what each ordinal loss says of them."""
    figure, axes = plt.subplots(1, len(_SETS), figsize=(2.35 * len(_SETS), 2.9))
    for axis, (title, discs) in zip(axes, _SETS.items(), strict=True):
        shapes = [_disc(*disc) for disc in discs]
        abnormal = shapes[2] if len(shapes) > 2 else torch.maximum(*shapes)
        A, A_abnormal = 2 * torch.stack(shapes[:2])[None], 2 * abnormal[None, None]
        positive = torch.ones(1, 2, dtype=torch.bool)
        losses = [loss(A, A_abnormal, positive).item() for loss in (bounded_loss, union_loss)]
        axis.contourf(abnormal, levels=[0.5, 1.5], colors=["0.8"])
        axis.contour(abnormal, levels=[0.5], colors=["0.35"], linewidths=2.5)
        for shape, colour in zip(shapes[:2], COLOURS, strict=False):
            axis.contourf(shape, levels=[0.5, 1.5], colors=[colour], alpha=0.45)
            axis.contour(shape, levels=[0.5], colors=[colour], linewidths=1)
        axis.set_title(f"{title}\nbounded {losses[0]:.2f}, union {losses[1]:.2f}", fontsize=9)
        axis.set(aspect="equal", xticks=[], yticks=[], xlim=(0, _SIDE - 1), ylim=(_SIDE - 1, 0))
    names = {"abnormality": "0.8", "a finding": COLOURS[0], "another finding": COLOURS[1]}
    patches = [plt.Rectangle((0, 0), 1, 1, facecolor=colour) for colour in names.values()]
    figure.legend(patches, [*names], loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.84, bottom=0.11, wspace=0.06)
    return figure


def attention_levels(
    dataset: CXRDataset, truth: Truth, attention: Mapping[str, Tensor], findings: Sequence[str]
) -> Figure:
    """Radiographs with a finding's true boxes, and under each the three levels of attention.

    The first image of each finding, whatever the maps look like. Each map is shown from its
    minimum to its maximum.

    Args:
        dataset: N images.
        truth: of the same dataset.
        attention: of :meth:`cxrlib.models.ham.HAM.attention`, of all N images.
        findings: names; those without a box are left out.
    """
    pairs = [pair for name in findings if (pair := first_pair(truth, name)) is not None]
    figure, axes = plt.subplots(
        1 + len(LEVELS), len(pairs), figsize=(1.75 * len(pairs), 7.4), layout="constrained"
    )
    side = dataset.image_size
    for column, pair in zip(axes.T, pairs, strict=True):
        image, finding = int(truth.image[pair]), int(truth.finding[pair])
        for axis in column:
            radiograph(axis, dataset, truth, pair)
        column[0].set_title(FINDINGS[finding].replace("_", " "), fontsize=9)
        for axis, level in zip(column[1:], LEVELS, strict=True):
            A = attention[level][image, finding if level == "classes" else 0]
            corners = (-0.5, side - 0.5, side - 0.5, -0.5)
            axis.imshow(A, cmap="magma", alpha=0.6, vmin=0, vmax=1, extent=corners)
    for axis, name in zip(axes[:, 0], ("image", *LEVELS.values()), strict=True):
        place = {"transform": axis.transAxes, "rotation": 90, "va": "center", "ha": "right"}
        axis.text(-0.04, 0.5, name, fontsize=9, **place)
    no_ticks(axes.ravel())
    return figure


def loss_curves(history: pd.DataFrame) -> Figure:
    """Each loss by epoch, and how much of the maps is above the threshold of the constraints.

    Args:
        history: what :func:`cxrlib.training.fit` returns of a HAM.
    """
    rows = {name: title for name, title in LOSSES.items() if name in history}
    rows["active"] = "share of cells above σ"
    rows["outside"] = "mass outside abnormality"
    history = history.assign(outside=history["val_beyond"] / history["val_mass"])
    across = 3
    down = -(-len(rows) // across)
    figure, grid = plt.subplots(
        down, across, figsize=(8.4, 2.1 * down), layout="constrained", sharex=True
    )
    axes = grid.ravel()
    for axis, (name, title) in zip(axes, rows.items(), strict=False):
        axis.plot(history["epoch"], history[name], "o-", color=COLOURS[0], markersize=3)
        if name == "loss_classes":
            axis.plot(history["epoch"], history["val_loss"], "s--", color=COLOURS[1], markersize=3)
            axis.legend(["training", "validation"], frameon=False, fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.locator_params(axis="x", integer=True)
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    return figure


def nesting_by_epoch(histories: pd.DataFrame, arm: str, names: Mapping[float, str]) -> Figure:
    """Mass of the class maps outside abnormality, by epoch: a line for each run.

    Args:
        histories: of :func:`cxrlib.studies.histories`.
        arm: the parameter that tells arms apart.
        names: its values -> what to call them.
    """
    figure, axis = plt.subplots(figsize=(6.2, 3.2), layout="constrained")
    histories = histories.assign(outside=histories["val_beyond"] / histories["val_mass"])
    for (value, name), colour, marker in zip(names.items(), COLOURS, "osD^", strict=False):
        runs = histories[histories[arm] == value]
        for _, run in runs.groupby("seed"):
            axis.plot(run["epoch"], run["outside"], color=colour, alpha=0.35, linewidth=1)
            axis.plot(
                run["epoch"].iloc[-1:],
                run["outside"].iloc[-1:],
                marker,
                color=colour,
                markersize=4,
            )
        mean = runs.groupby("epoch")["outside"].mean()
        axis.plot(mean.index, mean, color=colour, linewidth=2.2, label=name)
    axis.set(xlabel="epoch", ylabel="mass outside abnormality\n(validation images)", ylim=(0, None))
    axis.locator_params(axis="x", integer=True)
    axis.legend(frameon=False, title="weight of the constraints")
    return figure


def mean_maps(table: pd.DataFrame, names: Mapping[float, str]) -> Figure:
    """The mean class map of each run: a row for each weight, a column for each seed.

    Args:
        table: of :func:`cxrlib.models.ham_nesting.mean_maps`.
        names: weight of the constraints -> what to call it.
    """
    seeds = sorted(table["seed"].unique())
    figure, axes = plt.subplots(
        len(names),
        len(seeds),
        figsize=(1.9 * len(seeds) + 1.4, 2 * len(names) + 0.2),
        squeeze=False,
        layout="constrained",
    )
    for line, (value, name) in zip(axes, names.items(), strict=True):
        for axis, seed in zip(line, seeds, strict=True):
            cells = table[(table["ordinal"] == value) & (table["seed"] == seed)]
            mean = cells.pivot(index="row", columns="column", values="value")
            image = axis.imshow(mean, cmap="magma", vmin=0, vmax=table["value"].max())
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
    for axis, seed in zip(axes[0], seeds, strict=True):
        axis.set_title(f"seed {seed}", fontsize=9)
    figure.colorbar(image, ax=axes, label="mean of the class maps", shrink=0.8)
    return figure


def leak_worth(table: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """What a model scores on patients it has seen and on patients it has not, seed by seed.

    Args:
        table: of :mod:`cxrlib.models.ham_leak`: dataset, seed, arm, metric, value, low, high.
        metrics: metric -> what to call it.
    """
    datasets = [*table["dataset"].unique()]
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(3.1 * len(metrics), 0.8 * len(datasets) + 1.7), sharey=True
    )
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        for place, name in enumerate(datasets):
            rows = table[(table["dataset"] == name) & (table["metric"] == metric)]
            for shift, (arm, colour, marker) in zip(
                (-0.15, 0.15),
                (("leaky", COLOURS[1], "s"), ("disjoint", COLOURS[0], "o")),
                strict=True,
            ):
                of_arm = rows[rows["arm"] == arm]
                steps = np.linspace(-0.08, 0.08, len(of_arm)) if len(of_arm) > 1 else [0.0]
                for step, row in zip(steps, of_arm.itertuples(), strict=True):
                    y = place + shift + step
                    axis.plot([row.low, row.high], [y, y], color=colour, linewidth=1)
                    label = arm if place == 0 and step == steps[0] else None
                    axis.plot(row.value, y, marker, color=colour, markersize=4, label=label)
            prior = rows.loc[rows["arm"] == "location_prior", "value"]
            for value in prior[:1]:
                label = "prior" if place == 0 else None
                axis.plot([value] * 2, [place - 0.3, place + 0.3], ":", color="0.4", label=label)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", color="0.92")
    axes[0].set_yticks(range(len(datasets)), datasets)
    axes[0].set_ylim(len(datasets) - 0.5, -0.5)
    handles, labels = axes[-1].get_legend_handles_labels()
    words = {
        "leaky": "patient seen in training",
        "disjoint": "patient not seen",
        "prior": "location prior",
    }
    figure.legend(
        handles, [words[label] for label in labels], loc="lower center", ncols=3, frameon=False
    )
    figure.subplots_adjust(left=0.12, right=0.98, top=0.87, bottom=0.3, wspace=0.1)
    return figure
