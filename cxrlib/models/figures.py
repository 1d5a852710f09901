"""Charts of the chapters on models: one function, one figure, as in :mod:`cxrlib.figures`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.figures import COLOURS, CONTROLS, first_pair, no_ticks, radiograph
from cxrlib.findings import FINDINGS
from cxrlib.predictions import Predictions
from cxrlib.studies import Row, by_seed, over_seeds


def changes(effects: Mapping[str, Tensor]) -> Figure:
    """How much each cell changes, on one logarithmic scale; black where it does not at all.

    Args:
        effects: name -> (h, w), at least 0.
    """
    figure, axes = plt.subplots(
        1, len(effects), figsize=(2.2 * len(effects) + 0.6, 2.5), layout="constrained"
    )
    highest = max(float(effect.max()) for effect in effects.values())
    norm = LogNorm(highest * 1e-4, highest)
    colours = plt.get_cmap("magma").with_extremes(bad="black", under="black")
    for axis, (name, effect) in zip(axes, effects.items(), strict=True):
        image = axis.imshow(effect, cmap=colours, norm=norm)
        axis.set_title(name, fontsize=9)
    no_ticks(axes)
    figure.colorbar(image, ax=axes, label="change of a cell", shrink=0.8)
    return figure


def maps_beside(
    dataset: CXRDataset,
    truth: Truth,
    models: Mapping[str, Predictions],
    findings: Sequence[str],
    *,
    own_scale: bool = False,
) -> Figure:
    """Radiographs, and under each the maps of several models, cell by cell.

    The first image of each finding, whatever the maps look like. All maps of a column have one
    colour scale, from 0 to the highest value among them.

    Args:
        dataset: the images.
        truth: of the same dataset.
        models: name -> predictions of the same dataset.
        findings: names; those without a box are left out.
        own_scale: each map has a colour scale of its own, for values of different meaning.
    """
    pairs = [pair for name in findings if (pair := first_pair(truth, name)) is not None]
    maps = {name: predictions.pairs(truth) for name, predictions in models.items()}
    figure, axes = plt.subplots(
        1 + len(models),
        len(pairs),
        figsize=(1.65 * len(pairs), 1.85 * (1 + len(models))),
        layout="constrained",
        squeeze=False,
    )
    side = dataset.image_size
    for column, pair in zip(axes.T, pairs, strict=True):
        finding = truth.finding[pair]
        for axis in column:
            radiograph(axis, dataset, truth, pair)
        column[0].set_title(FINDINGS[finding].replace("_", " "), fontsize=9)
        highest = max(float(of_model[pair].max()) for of_model in maps.values())
        for axis, (name, of_model) in zip(column[1:], maps.items(), strict=True):
            S = of_model[pair].astype(np.float32)
            corners = (-0.5, side - 0.5, side - 0.5, -0.5)
            top = S.max() if own_scale else highest
            axis.imshow(S, cmap="magma", alpha=0.6, vmin=0, vmax=top, extent=corners)
            if not own_scale:
                p = models[name].scores[truth.image[pair], finding]
                axis.set_title(f"p = {p:.2f}", fontsize=8)
    for axis, name in zip(axes[1:, 0], models, strict=True):
        place = {"transform": axis.transAxes, "rotation": 90, "va": "center", "ha": "right"}
        axis.text(-0.04, 0.5, name, fontsize=9, **place)
    no_ticks(axes.ravel())
    return figure


def arms(runs: pd.DataFrame, arm: str, rows: Mapping[str, Row], names: Mapping[str, str]) -> Figure:
    """What each arm of a study scores: one dot per seed, their mean and its 95 % interval.

    Beside a localization score each arm's location prior and grid ceiling.

    Args:
        runs, arm: of :func:`cxrlib.studies.by_seed`.
        rows: title -> metric, findings and part; a chart each.
        names: arm -> what to call it, in the order to show.
    """
    figure, axes = plt.subplots(
        1,
        len(rows),
        figsize=(3.3 * len(rows), 0.34 * len(names) + 1.3),
        sharey=True,
        layout="constrained",
    )
    controls = {"location_prior": ("D", COLOURS[1]), "grid_ceiling": ("|", "0.3")}
    for axis, (title, (metric, findings, part)) in zip(axes, rows.items(), strict=True):
        values = by_seed(runs, arm, metric, findings, part)
        means = over_seeds(values)
        for place, name in enumerate(names):
            row = means.loc[name]
            axis.plot(values[name], [place] * len(values), "o", color="0.75", markersize=3)
            axis.plot([row["low"], row["high"]], [place, place], color=COLOURS[0], linewidth=1.4)
            axis.plot(row["value"], place, "o", color=COLOURS[0], markersize=5)
        for control, (marker, colour) in controls.items() if part == "localization" else ():
            at = by_seed(runs, arm, metric, findings, control).mean()[list(names)]
            label = CONTROLS[control]
            axis.plot(
                at, range(len(names)), marker, color=colour, markersize=6, alpha=0.8, label=label
            )
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", color="0.92")
        axis.margins(x=0.08)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=2, loc="outside lower right", fontsize=9)
    axes[0].set_yticks(range(len(names)), list(names.values()))
    axes[0].invert_yaxis()
    return figure


def pylon_diagram() -> Figure:
    """PYLON at 256 px: encoder on the left, what carries its features down to stride 4."""
    figure, axis = plt.subplots(figsize=(8.6, 3.9), layout="constrained")
    rows = [(4, 64, 256), (8, 32, 512), (16, 16, 1024), (32, 8, 2048)]  # stride, cells, channels

    def box(x: float, y: float, text: str, colour: tuple[float, ...] | str, width: float) -> None:
        patch = FancyBboxPatch(
            (x - width / 2, y - 0.3), width, 0.6, "round,pad=0.02", facecolor=colour, linewidth=0
        )
        axis.add_patch(patch)
        axis.text(x, y, text, ha="center", va="center", fontsize=8.5)

    def arrow(start: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.35"})
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1
        axis.text(*middle, label, ha="center", fontsize=7.5, color="0.3")

    def light(colour: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(0.35 * channel + 0.65 for channel in colour)

    blue, orange, green = (light(colour) for colour in COLOURS[:3])
    box(0.1, 0, "image\n256 × 256", "0.92", 0.9)
    for place, (stride, side, channels) in enumerate(rows):
        box(1.6, -place, f"stride {stride}\n{side} × {side} × {channels}", blue, 1.3)
        if place:
            arrow((1.6, 0.65 - place), (1.6, 0.35 - place))
    arrow((0.6, 0), (0.92, 0))
    for place, (_, side, _) in enumerate(rows[:-1]):
        box(4.2, -place, f"UP\n{side} × {side} × 128", orange, 1.3)
        arrow((2.28, -place), (3.52, -place), "1 × 1, twice")
        arrow((4.2, -0.65 - place), (4.2, -0.35 - place))
        axis.text(4.3, -0.5 - place, "enlarge, add", va="center", fontsize=7.5, color="0.3")
    box(4.2, -3, "PA\n8 × 8 × 128", green, 1.3)
    arrow((2.28, -3), (3.52, -3))
    box(6.1, 0, "maps of logits\n64 × 64 × 14", "0.92", 1.2)
    arrow((4.88, 0), (5.48, 0), "1 × 1")
    box(7.9, 0, "image's logits\n14", "0.92", 1.2)
    arrow((6.72, 0), (7.28, 0), "max")
    axis.set(xlim=(-0.5, 8.7), ylim=(-3.5, 0.5))
    axis.set_axis_off()
    return figure
