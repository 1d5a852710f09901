"""Plots of the phantom: one function, one figure, as in :mod:`cxrlib.figures`."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxrlib.figures import COLOURS
from cxrlib.findings import FINDINGS
from cxrlib.phantom.population import Radiograph, render


def pictures(images: Mapping[str, np.ndarray], columns: int = 4, side: float = 2.4) -> Figure:
    """Images side by side, each with its title; uint8 as a display shows them, others stretched.

    Args:
        images: title -> (H, W).
        columns: per row.
        side: of a picture, inches.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, (side + 0.25) * rows), layout="constrained"
    )
    for axis in np.ravel(axes):
        axis.axis("off")
    for axis, (title, image) in zip(np.ravel(axes), images.items(), strict=False):
        shown = dict(vmin=0, vmax=255) if image.dtype == np.uint8 else {}
        axis.imshow(image, cmap="gray", **shown)
        axis.set_title(title, fontsize=9)
    return figure


def sheet(images: Sequence[np.ndarray], columns: int = 6) -> Figure:
    """Images edge to edge, as on a light box."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1.75 * columns, 1.75 * rows),
        gridspec_kw=dict(wspace=0.02, hspace=0.02, left=0, right=1, bottom=0, top=1),
    )
    for axis in np.ravel(axes):
        axis.axis("off")
    for axis, image in zip(np.ravel(axes), images, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    return figure


def findings(index: int, size: int, columns: int = 5, **options: Any) -> Figure:
    """Every finding in one chest, with the outline of its mask; first the chest without any.

    Args:
        index: of the patient's image.
        size: pixels per side.
        columns: per row.
        options: of :func:`cxrlib.phantom.population.render`.
    """
    drawn: dict[str, Radiograph] = {"no finding": render(index, size, findings=(), **options)}
    for name in FINDINGS:
        drawn[name] = render(index, size, findings=(name,), **options)
    figure = pictures({name: image.pixels for name, image in drawn.items()}, columns, side=2.1)
    for axis, (name, image) in zip(figure.axes, drawn.items(), strict=False):
        if name in FINDINGS:
            mask = image.masks[FINDINGS.index(name)]
            axis.contour(mask, levels=[0.5], colors="cyan", linewidths=0.8)
    return figure


def histograms(shares: Mapping[str, np.ndarray]) -> Figure:
    """Shares of grey values of several populations, 256 values each."""
    figure, axes = plt.subplots(figsize=(6.4, 3), layout="constrained")
    for (name, share), colour in zip(shares.items(), COLOURS, strict=False):
        axes.plot(100 * share.reshape(64, 4).sum(axis=1), color=colour, label=name)
    ticks = np.arange(0, 65, 16)
    axes.set_xticks(ticks, [str(4 * tick) for tick in ticks])
    axes.set(xlabel="grey value", ylabel="% of pixels", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def spectra(populations: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Radial power spectra (frequency in cycles per pixel, power) of several populations."""
    figure, axes = plt.subplots(figsize=(6.4, 3), layout="constrained")
    for (name, (frequency, power)), colour in zip(populations.items(), COLOURS, strict=False):
        inside = (frequency > 0) & (frequency <= 0.5)
        axes.loglog(frequency[inside], power[inside], color=colour, label=name)
    axes.set(xlabel="spatial frequency, cycles per pixel", ylabel="power")
    axes.legend(frameon=False)
    return figure


def boxes(comparison: pd.DataFrame) -> Figure:
    """Medians of drawn against official boxes: areas on a logarithmic scale, and centres.

    Args:
        comparison: of :func:`cxrlib.phantom.realism.compare_boxes`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
    area = comparison[comparison["quantity"] == "area"]
    for (_, row), colour in zip(area.iterrows(), COLOURS, strict=False):
        left.loglog(row["official"], row["median"], "o", color=colour, label=row["finding"])
        place = comparison[comparison["finding"] == row["finding"]].set_index("quantity")
        for side in ("x_right", "x_left"):
            if side in place.index:
                x, y = place.loc[side], place.loc["y"]
                right.plot([x["official"], x["median"]], [y["official"], y["median"]], color=colour)
                right.plot(x["median"], y["median"], "o", color=colour)
    ends = np.array([0.003, 0.3])
    left.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
    left.fill_between(ends, ends / 1.15, ends * 1.15, color="0.92", zorder=0)
    left.set(xlabel="official median area, share of the image", ylabel="drawn median area")
    left.legend(frameon=False, fontsize=8)
    right.set(xlim=(0, 1), ylim=(0.9, 0.1), aspect="equal")
    right.set(xlabel="x of the centre", ylabel="y of the centre")
    right.set_title("dot: drawn; other end: official", fontsize=9)
    return figure


def bars(values: Mapping[str, float], label: str, chance: float, limit: float = 1.0) -> Figure:
    """Horizontal bars with their values, and a line at chance."""
    figure, axes = plt.subplots(figsize=(6.4, 0.32 * len(values) + 0.8), layout="constrained")
    shown = axes.barh(list(values), list(values.values()), color=COLOURS[0])
    axes.bar_label(shown, fmt="%.2f", padding=3)
    axes.axvline(chance, color="0.5", linewidth=0.8)
    axes.set(xlabel=label, xlim=(0, limit))
    axes.invert_yaxis()
    return figure


def pointing(run: pd.DataFrame) -> Figure:
    """Pointing of one collected run by finding, with 95 % intervals, beside its controls.

    Args:
        run: of :func:`cxrlib.runs.collect`.
    """
    table = run[run["metric"] == "pointing"].dropna(subset=["value"])
    scored = table[table["part"] == "localization"].set_index("finding")
    rows = ["macro", "micro", *(name for name in FINDINGS if name in scored.index)]
    figure, axes = plt.subplots(figsize=(7, 0.34 * len(rows) + 1.1), layout="constrained")
    for part, marker, colour in (
        ("localization", "o", COLOURS[0]),
        ("location_prior", "D", COLOURS[1]),
        ("random", "x", "0.5"),
    ):
        values = table[table["part"] == part].set_index("finding").reindex(rows)
        places = np.arange(len(rows)) + 0.18 * (part != "localization")
        if part == "localization":
            axes.hlines(places, values["low"], values["high"], color=colour)
        label = {"localization": "network"}.get(part, part.replace("_", " "))
        axes.plot(values["value"], places, marker, color=colour, label=label)
    counts = scored["n"].reindex(rows).astype(int)
    axes.set_yticks(range(len(rows)), [f"{name} (n = {n})" for name, n in counts.items()])
    axes.set(xlim=(-0.02, 1.02), xlabel="pointing (95 % interval over patients)")
    axes.invert_yaxis()
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return figure
