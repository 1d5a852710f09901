"""Charts of the chapter on pooling: one function, one figure, as in cxrlib.figures."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxrlib.figures import COLOURS, no_ticks
from cxrlib.studies import over_seeds

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))


def who_learns(scores: np.ndarray, shares: Mapping[str, np.ndarray]) -> Figure:
    """The scores of a bag, and the share of the gradient that each instance gets.

    Args:
        scores: (h, w) log-odds.
        shares: pooling -> (h, w), the derivative of the bag's log-odds by those of each instance.
    """
    rows = -(-(len(shares) + 1) // 3)
    figure, grid = plt.subplots(rows, 3, figsize=(5, 1.95 * rows), layout="constrained")
    axes = grid.ravel()
    axes[0].imshow(1 / (1 + np.exp(-scores)), cmap="magma", vmin=0, vmax=1)
    axes[0].set_title("probabilities S", fontsize=9)
    for axis, (name, share) in zip(axes[1:], shares.items(), strict=False):
        axis.imshow(share, cmap="viridis", vmin=0, vmax=share.max())
        top = np.sort(share, axis=None)[-1] / share.sum()
        axis.set_title(f"{name}\nhighest gets {top:.0%}", fontsize=9)
    no_ticks(axes)
    return figure


def against(table: pd.DataFrame, xlabel: str, ylabel: str) -> Figure:
    """A line for each pooling.

    Args:
        table: poolings as columns, what is varied as index, > 0.
        xlabel, ylabel: of the axes; x is logarithmic.
    """
    figure, axis = plt.subplots(figsize=(5, 3.8), layout="constrained")
    for (name, values), colour, line in zip(table.items(), COLOURS, _LINES, strict=False):
        axis.plot(table.index, values, color=colour, linestyle=line, label=name)
    axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel, ylim=(-0.02, 1.02))
    axis.set_xticks(table.index, [f"{value:g}" for value in table.index])
    axis.minorticks_off()
    axis.grid(axis="y", color="0.92")
    figure.legend(loc="outside upper center", frameon=False, ncols=3)
    return figure


def learned(panels: Mapping[str, Mapping[str, pd.DataFrame]], xlabel: str, ylabel: str) -> Figure:
    """Scores of every pooling with 95 % intervals over seeds, on the same scale in each chart.

    Args:
        panels: title of a chart -> pooling -> scores, seeds as rows, what is varied as columns.
        xlabel, ylabel: of the axes.
    """
    figure, grid = plt.subplots(
        -(-len(panels) // 2), 2, figsize=(5.6, 5.6), layout="constrained", sharex=True, sharey=True
    )
    for axis, (title, of_panel) in zip(grid.ravel(), panels.items(), strict=True):
        for k, (name, values) in enumerate(of_panel.items()):
            numbers = over_seeds(values)
            at = np.arange(len(numbers)) + 0.09 * (k - (len(of_panel) - 1) / 2)  # side by side
            ends = (numbers["value"] - numbers["low"], numbers["high"] - numbers["value"])
            style = {"color": COLOURS[k], "linestyle": _LINES[k], "marker": "osD^vX"[k]}
            bars = axis.errorbar(at, numbers["value"], ends, **style, markersize=4, label=name)
            bars[-1][0].set_linewidth(0.8)
        axis.axhline(0.5, color="0.6", linewidth=0.8, zorder=0)
        axis.set_xticks(range(len(numbers)), [f"{value:g}" for value in numbers.index])
        axis.set_title(title, fontsize=10)
        axis.set(ylim=(0, 1.02))
        axis.grid(axis="y", color="0.93")
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", frameon=False, ncols=3)
    return figure
