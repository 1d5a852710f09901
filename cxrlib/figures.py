"""Every plot of the book: one function, one figure, colours safe for the colour-blind."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.regions import upsample
from cxrlib.pooling import lse_pool
from cxrlib.predictions import Predictions

COLOURS = sns.color_palette("colorblind")
CONTROLS = {
    "location_prior": "location prior",
    "centre_prior": "centre prior",
    "random": "random map",
    "grid_ceiling": "grid ceiling",
}


def pooled_perfect_maps(areas: Mapping[str, float], rs: Sequence[float]) -> Figure:
    """What a perfect map of a finding pools to, against the sharpness r.

    Args:
        areas: share of the image that each finding covers, 0 to 1.
        rs: sharpnesses, > 0.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    side = 200
    for (name, area), colour in zip(areas.items(), COLOURS, strict=False):
        perfect = (torch.arange(side**2) < round(area * side**2)).float().view(side, side)
        pooled = [lse_pool(perfect, r).item() for r in rs]
        axes.plot(rs, pooled, color=colour, label=f"{name}, {area:.1%} of the image")
    axes.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
    axes.set(xscale="log", xlabel="sharpness r", ylabel="pooled probability p", ylim=(0, 1))
    axes.legend(frameon=False, title="perfect map of a")
    return figure


def pooling_gradients(S: torch.Tensor, rs: Sequence[float]) -> Figure:
    """A map and, for each r, the share of the pooled score's gradient that every place gets.

    Args:
        S: (h, w) probabilities.
        rs: sharpnesses.
    """
    figure, axes = plt.subplots(
        1, len(rs) + 1, figsize=(1.9 * (len(rs) + 1), 2.3), layout="constrained"
    )
    axes[0].imshow(S, cmap="magma", vmin=0, vmax=1)
    axes[0].set_title("map S")
    for axis, r in zip(axes[1:], rs, strict=True):
        leaf = S.clone().requires_grad_()
        lse_pool(leaf, r).backward()
        assert leaf.grad is not None
        axis.imshow(leaf.grad / leaf.grad.max(), cmap="viridis", vmin=0, vmax=1)
        top = leaf.grad.flatten().topk(S.numel() // 100).values.sum()
        axis.set_title(f"r = {r:g}\ntop 1 %: {top:.0%}", fontsize=9)
    no_ticks(axes)
    return figure


def examples(dataset: CXRDataset, truth: Truth, findings: Sequence[str]) -> Figure:
    """One image of each finding with its true boxes.

    Args:
        dataset: the images.
        truth: of the same dataset.
        findings: names; those without a box are left out.
    """
    pairs = [pair for name in findings if (pair := first_pair(truth, name)) is not None]
    figure, grid = plt.subplots(
        -(-len(pairs) // 4), 4, figsize=(9, 2.45 * -(-len(pairs) // 4)), layout="constrained"
    )
    axes = np.atleast_1d(grid).ravel()
    for axis, pair in zip(axes, pairs, strict=False):
        radiograph(axis, dataset, truth, pair)
        axis.set_title(FINDINGS[truth.finding[pair]].replace("_", " "), fontsize=10)
    no_ticks(axes)
    return figure


def training_curves(history: pd.DataFrame, also: str, label: str) -> Figure:
    """Training and validation loss, and one more number, by epoch.

    Args:
        history: what :func:`cxrlib.training.fit` returns.
        also: the column on the right.
        label: of its axis.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained")
    for name, part, colour in (
        ("loss", "training", COLOURS[0]),
        ("val_loss", "validation", COLOURS[1]),
    ):
        left.plot(history["epoch"], history[name], "o-", markersize=3, color=colour, label=part)
    kept = history["epoch"].iloc[int(history["val_loss"].argmin())]
    left.axvline(kept, color="0.7", linewidth=0.8, label="kept epoch")
    left.set(xlabel="epoch", ylabel="cross-entropy per label")
    left.legend(frameon=False)
    right.plot(history["epoch"], history[also], "o-", markersize=3, color=COLOURS[2])
    right.set(xlabel="epoch", ylabel=label)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def localization_by_finding(metrics: Mapping[str, Any], metric: str = "pointing") -> Figure:
    """A localization metric of each finding with its interval, beside the controls.

    Args:
        metrics: a ``metrics.json``.
        metric: key under ``localization``.
    """
    summaries = {"model": metrics["localization"][metric]}
    summaries |= {label: metrics["controls"][key][metric] for key, label in CONTROLS.items()}
    scored = [name for name in FINDINGS if summaries["model"]["per_finding"][name]["n"]]
    rows = ["macro", *scored]
    figure, axis = plt.subplots(figsize=(7.5, 0.33 * len(rows) + 1.1), layout="constrained")
    for offset, (label, summary), marker, colour in zip(
        (0.0, 0.18, 0.18, 0.18, 0.18),
        summaries.items(),
        "oDsx|",
        (COLOURS[0], COLOURS[1], COLOURS[2], "0.55", "0.3"),
        strict=True,
    ):
        for place, row in enumerate(rows):
            number = summary["macro"] if row == "macro" else summary["per_finding"][row]
            if number["value"] is not None:
                _interval(
                    axis,
                    number,
                    place + offset,
                    marker,
                    colour,
                    label if place == 0 else "",
                    label == "model",
                )
    counts = [summaries["model"]["per_finding"][name]["n"] for name in scored]
    axis.set_yticks(
        range(len(rows)),
        [
            "mean of findings",
            *(f"{n.replace('_', ' ')} (n = {k})" for n, k in zip(scored, counts, strict=True)),
        ],
    )
    axis.set(xlim=(-0.02, 1.02), xlabel=f"{metric.replace('_', ' ')} (95 % interval over patients)")
    axis.invert_yaxis()
    axis.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    axis.grid(axis="x", color="0.92")
    return figure


def _interval(
    axis: Axes,
    number: Mapping[str, Any],
    y: float,
    marker: str,
    colour: Any,
    label: str,
    whisker: bool,
) -> None:
    if whisker and number["low"] is not None:
        axis.plot([number["low"], number["high"]], [y, y], color=colour, linewidth=1.4)
    axis.plot(number["value"], y, marker, color=colour, markersize=5, linestyle="none", label=label)


def saliency_panels(
    dataset: CXRDataset,
    truth: Truth,
    predictions: Predictions,
    findings: Sequence[str],
    *,
    columns: int = 4,
) -> Figure:
    """Radiographs with their true boxes, above the same with the finding's map.

    The first test image of each finding, whatever the map looks like.

    Args:
        dataset: the images.
        truth: of the same dataset.
        predictions: of the same dataset.
        findings: names; those without a box are left out.
        columns: panels per row.
    """
    pairs = [pair for name in findings if (pair := first_pair(truth, name)) is not None]
    maps = predictions.pairs(truth)
    bands = -(-len(pairs) // columns)
    figure, axes = plt.subplots(
        2 * bands,
        columns,
        figsize=(2.3 * columns, 4.8 * bands),
        layout="constrained",
        squeeze=False,
    )
    for place, pair in enumerate(pairs):
        band, column = divmod(place, columns)
        above, below = axes[2 * band, column], axes[2 * band + 1, column]
        S = upsample(maps[pair], dataset.image_size)
        for axis in (above, below):
            radiograph(axis, dataset, truth, pair)
        below.imshow(S, cmap="magma", alpha=0.55, vmin=0, vmax=float(S.max()))
        peak = divmod(int(S.argmax()), S.shape[1])
        below.plot(peak[1], peak[0], "+", color="white", markersize=9)
        finding = truth.finding[pair]
        p = predictions.scores[truth.image[pair], finding]
        above.set_title(FINDINGS[finding].replace("_", " "), fontsize=10)
        below.set_title(f"p = {p:.2f}, max S = {S.max():.2f}", fontsize=8)
    no_ticks(axes.ravel())
    return figure


def sensitivity(table: pd.DataFrame, parameter: str) -> Figure:
    """Mean AUROC, pointing and continuous Dice against a parameter, with intervals and controls.

    Args:
        table: tidy rows of :func:`cxrlib.runs.collect`.
        parameter: the column to vary.
    """
    panels = {
        "auroc": ("classification", "mean"),
        "pointing": ("localization", "macro"),
        "continuous_dice": ("localization", "macro"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3), layout="constrained")
    for axis, (metric, (part, mean)) in zip(axes, panels.items(), strict=True):
        rows = table[(table["metric"] == metric) & (table["finding"] == mean)]
        ours = rows[rows["part"] == part].sort_values(parameter)
        places = np.arange(len(ours))
        spread = np.stack([ours["value"] - ours["low"], ours["high"] - ours["value"]])
        axis.errorbar(
            places,
            ours["value"],
            spread,
            fmt="o-",
            color=COLOURS[0],
            markersize=4,
            capsize=3,
            label="LSE-LBA",
        )
        prior = rows[rows["part"] == "location_prior"]
        if len(prior):
            axis.axhline(
                prior["value"].iloc[0],
                color=COLOURS[1],
                linestyle="--",
                linewidth=1,
                label="location prior",
            )
        axis.set_xticks(places, [f"{value:g}" for value in ours[parameter]])
        axis.set(xlabel=f"${parameter[0]}_{parameter[1:]}$", title=metric.replace("_", " "))
    axes[1].legend(frameon=False)
    return figure


def first_pair(truth: Truth, name: str) -> int | None:
    """The first (image, finding) pair of a finding; None where it has none."""
    pairs = np.flatnonzero(truth.finding == FINDINGS.index(name))
    return int(pairs[0]) if len(pairs) else None


def radiograph(axis: Axes, dataset: CXRDataset, truth: Truth, pair: int) -> None:
    """An image in its frame, with the boxes of one (image, finding) pair."""
    pixels = dataset.read_pixels(str(dataset.image_ids[truth.image[pair]]))
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    for x0, y0, x1, y1 in truth.boxes[pair] * dataset.image_size - 0.5:  # pixel edges, not centres
        if np.isfinite(x0):
            axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#00e5ff"))


def no_ticks(axes: Sequence[Axes] | np.ndarray) -> None:
    """Images without a frame."""
    for axis in axes:
        axis.set_axis_off()
