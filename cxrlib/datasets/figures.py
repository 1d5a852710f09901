"""Charts of the tables about data: one function, one figure, as in :mod:`cxrlib.figures`."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrlib.figures import COLOURS
from cxrlib.findings import BOXED, FINDINGS
from cxrlib.phantom.targets import official_boxes

MARKERS = "osD^vP"


def shares(counts: pd.DataFrame) -> Figure:
    """How frequent each label is in both official lists.

    Args:
        counts: of :func:`cxrlib.datasets.facts.label_counts`.
    """
    table = counts.pivot(index="label", columns="split", values="share").drop("No Finding")
    table = table.sort_values("train_val")
    images = counts.groupby("split")["images"].first()
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    at = np.arange(len(table))
    axes.hlines(at, table["train_val"], table["test"], color="0.75", zorder=0)
    for name, marker, colour in zip(("train_val", "test"), MARKERS, COLOURS, strict=False):
        axes.plot(table[name], at, marker, color=colour, label=f"{name}, {images[name]:,} images")
    axes.set(xscale="log", xlabel="share of the images with the label (logarithmic)")
    ticks = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
    axes.set_xticks(ticks, [f"{tick:.1%}" for tick in ticks])
    axes.minorticks_off()
    _findings(axes, table.index.tolist())
    axes.legend(frameon=False, loc="lower right")
    return figure


def lifts(pairs: pd.DataFrame) -> Figure:
    """How many times as frequent a finding is beside another one.

    Args:
        pairs: of :func:`cxrlib.datasets.facts.cooccurrence`.
    """
    table = pairs.pivot(index="given", columns="finding", values="lift")
    table = table.loc[list(FINDINGS), list(FINDINGS)]
    names = [name.replace("_", " ") for name in FINDINGS]
    figure, axes = plt.subplots(figsize=(7.4, 6.2), layout="constrained")
    norm = TwoSlopeNorm(0, -np.log(4), np.log(4))
    with np.errstate(divide="ignore"):
        shown = axes.imshow(np.log(table), cmap="PuOr_r", norm=norm)
    for (row, column), lift in np.ndenumerate(table):
        if np.isfinite(lift):
            text = f"{lift:.0f}" if lift >= 9.95 else f"{lift:.1f}"
            dark = abs(np.log(max(lift, 0.1))) > np.log(2.5)
            colour = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("how many times as frequent the column's label is beside the row's", fontsize=10)
    bar = figure.colorbar(shown, shrink=0.7, ticks=np.log([0.25, 0.5, 1, 2, 4]))
    bar.ax.set_yticklabels(["≤ 1/4", "1/2", "1", "2", "≥ 4"])
    return figure


def agreement(table: pd.DataFrame) -> Figure:
    """Of the labelled images, the share on which radiologists saw it; and of those, the labelled.

    Args:
        table: of :func:`cxrlib.datasets.agreement.label_agreement`.
    """
    questions = table[["reference", "seen", "label"]].drop_duplicates()
    texts = [_question(*question) for question in questions.itertuples(index=False)]
    height = 0.36 * len(questions) + 1.0
    figure, panels = plt.subplots(1, 2, figsize=(9.2, height), sharey=True, layout="constrained")
    titles = {"ppv": "of the labelled, seen", "sensitivity": "of the seen, labelled"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        rows = questions.merge(table[table["measure"] == measure])
        for at, row in rows.iterrows():
            colour = COLOURS[0] if row["reference"] == "RSNA" else COLOURS[1]
            axes.plot([row["low"], row["high"]], [at, at], color=colour)
            axes.plot(row["value"], at, "o" if row["reference"] == "RSNA" else "s", color=colour)
            axes.text(1.04, at, f"{row['k']}/{row['n']}", va="center", fontsize=8)
        axes.set(xlim=(0, 1.36), xlabel="share, with 95 % interval")
        axes.set_xticks(np.arange(0, 1.1, 0.25))
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", color="0.92")
    panels[0].set_yticks(range(len(texts)), texts)
    panels[0].invert_yaxis()
    return figure


def _question(reference: str, seen: str, label: str) -> str:
    """Names the label, and what was seen where that has another name."""
    label = "any pneumonia-like label" if "|" in label else label.replace("_", " ")
    seen = seen.replace("_", " ")
    return f"{label} ({reference})" if label == seen else f"{label} ({reference}: {seen})"


def noise(table: pd.DataFrame) -> Figure:
    """Mean AUROC against the probability of a flip, by which labels were flipped.

    Args:
        table: of :func:`cxrlib.datasets.experiments.label_noise`.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for (name, part), marker, colour in zip(
        table.groupby("flipped", sort=False), MARKERS, COLOURS, strict=False
    ):
        if name == "formula":
            axes.plot(part["noise"], part["value"], "k--", lw=1.2, label="formula for both")
            continue
        axes.fill_between(part["noise"], part["low"], part["high"], color=colour, alpha=0.15, lw=0)
        axes.plot(
            part["noise"], part["value"], marker=marker, color=colour, label=f"{name} flipped"
        )
    axes.axhline(0.5, color="0.6", linewidth=0.8)
    axes.set(xlabel="share of labels that are wrong", ylabel="mean AUROC of 14 findings")
    axes.set_title(f"{int(table['n'].iloc[0])} test images; bands: 95 % over patients", fontsize=9)
    axes.legend(frameon=False)
    return figure


def places(columns: int = 4) -> Figure:
    """Sizes and places of the official boxes of each finding.

    At the median centre of the boxes in either half of the image lie boxes of the median shape with
    the 5, 50 and 95 % quantiles of the area.
    """
    table = official_boxes()
    figure, grid = plt.subplots(8 // columns, columns, figsize=(9, 5.3), layout="constrained")
    for axes, name in zip(grid.ravel(), BOXED, strict=True):
        n, areas = table[name, "area"]
        aspect, y = table[name, "aspect"][1][2], table[name, "y"][1][2]
        for side, colour in (("x_right", COLOURS[0]), ("x_left", COLOURS[1])):
            if (name, side) in table and table[name, side][0] >= 5:
                x = table[name, side][1][2]
                for area, style in zip(areas[[0, 2, 4]], (":", "-", "--"), strict=True):
                    axes.add_patch(_box(x, y, area, aspect, colour, style))
        axes.set(xlim=(0, 1), ylim=(1, 0), aspect="equal", xticks=[], yticks=[])
        axes.set_title(f"{name}, {n} boxes", fontsize=9)
    figure.supxlabel("area: dotted 5 %, solid 50 %, dashed 95 % quantile", fontsize=9)
    return figure


def _box(x: float, y: float, area: float, aspect: float, colour: object, style: str) -> Rectangle:
    width, height = (area * aspect) ** 0.5, (area / aspect) ** 0.5
    corner = (x - width / 2, y - height / 2)
    return Rectangle(corner, width, height, fill=False, edgecolor=colour, linestyle=style)


def leak(table: pd.DataFrame, chronic: Sequence[str]) -> Figure:
    """What a leak adds to the AUROC of each finding, with its interval.

    Args:
        table: the first of :func:`cxrlib.datasets.experiments.leak_worth`.
        chronic: names of the findings that stay with a patient.
    """
    stays = table["finding"].isin([*chronic, "chronic"])
    table = table[table["finding"] != "all"].assign(group=~stays, mean=False)
    table["mean"] = table["finding"].isin(["chronic", "acute"])
    table = table.sort_values(["group", "mean", "value"], ascending=[True, True, False])
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for at, (_, row) in enumerate(table.iterrows()):
        colour, mean = COLOURS[0 if row["group"] else 1], row["mean"]
        axes.plot(row[["low", "high"]], [at, at], color=colour, lw=2.5 if mean else 1.2)
        axes.plot(row["value"], at, "D" if mean else "o", color=colour)
    axes.axvline(0, color="0.5", linewidth=0.8)
    names = table["finding"].replace({"chronic": "mean, chronic", "acute": "mean, acute"})
    _findings(axes, names.tolist())
    axes.invert_yaxis()
    axes.set(xlabel="AUROC with the leak minus AUROC without, 95 % over patients")
    n = table.loc[table["mean"], "n"].max()
    axes.set_title(f"the same {n} test images, training sets of one size", fontsize=9)
    return figure


def crops(images: Mapping[int, np.ndarray], masks: Mapping[int, np.ndarray], part: float) -> Figure:
    """The surroundings of one lesion in images of several sizes, pixel by pixel.

    Args:
        images: side in pixels -> uint8 (side, side), of one patient.
        masks: side in pixels -> bool (side, side), the lesion.
        part: side of what is shown, as a share of the image's side.
    """
    rows, columns = np.nonzero(masks[max(masks)])
    centre = np.array([columns.mean(), rows.mean()]) / max(masks)
    figure, axes = plt.subplots(
        1, len(images), figsize=(2 * len(images), 2.45), layout="constrained"
    )
    grey: dict[str, Any] = dict(cmap="gray", interpolation="nearest")
    for axis, (size, pixels) in zip(np.ravel(axes), images.items(), strict=True):
        # One window for all sizes, or a picture of few pixels would be stretched more.
        low, high = _window(images[max(images)], centre, part)
        axis.imshow(pixels, extent=(0, 1, 1, 0), vmin=low, vmax=high, **grey)
        axis.set(xlim=centre[0] + np.array([-0.5, 0.5]) * part, xticks=[], yticks=[])
        axis.set(ylim=centre[1] + np.array([0.5, -0.5]) * part)
        side = masks[size].sum() ** 0.5
        axis.set_title(f"{size} px\nlesion {side:.0f} x {side:.0f} px", fontsize=9)
    return figure


def _window(pixels: np.ndarray, centre: np.ndarray, part: float) -> tuple[float, float]:
    low, high = ((centre[:, None] + np.array([-0.5, 0.5]) * part) * len(pixels)).astype(int).T
    shown = pixels[max(low[1], 0) : high[1], max(low[0], 0) : high[0]]
    darkest, brightest = np.quantile(shown, [0.01, 0.99])
    return float(darkest), float(brightest)


def ceilings(table: pd.DataFrame, findings: Sequence[str]) -> Figure:
    """What a perfect map scores against the cells of its grid, for pointing and continuous Dice.

    Args:
        table: of :func:`cxrlib.datasets.facts.grid_ceiling`.
        findings: names, and "macro".
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    names = {"pointing": "pointing", "continuous_dice": "continuous Dice"}
    for axes, (metric, title) in zip(panels, names.items(), strict=True):
        for name, marker, colour in zip(findings, MARKERS, COLOURS, strict=False):
            part = table[(table["metric"] == metric) & (table["finding"] == name)]
            style = dict(color=colour, marker=marker, markersize=5)
            label = f"{name.replace('macro', 'mean of eight')}, n = {part['n'].iloc[0]}"
            axes.plot(part["grid"], part["value"], label=label, **style)
        axes.set(xscale="log", xlabel="cells per side of the map", ylim=(0, 1.03))
        axes.set_title(f"{title} of a perfect map", fontsize=10)
        grids = sorted(set(table["grid"]) - {8})
        axes.set_xticks(grids, [str(grid) for grid in grids])
        axes.minorticks_off()
    panels[0].set_ylabel("score")
    panels[1].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _findings(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
