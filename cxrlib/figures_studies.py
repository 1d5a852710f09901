"""Charts of the studies: one function, one figure, as in :mod:`cxrlib.figures`."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlib.figures import COLOURS


def claimed_and_ours(table: pd.DataFrame) -> Figure:
    """Published numbers across, ours upwards with their intervals, one chart for each metric.

    On the dotted line the two are equal. Beside our localization scores, at the same published
    number, what the location prior and the random map score on our images.

    Args:
        table: of :func:`cxrlib.literature.reproduction.reproduction`; what we have no number of is
            left out.
    """
    known = table[table["ours"].notna()]
    metrics, methods = list(known["metric"].unique()), list(known["method"].unique())
    colours = dict(zip(methods, COLOURS, strict=False))
    rows = -(-len(metrics) // 3)
    figure, grid = plt.subplots(rows, 3, figsize=(8.6, 3.1 * rows), layout="constrained")
    axes = np.ravel(grid)
    for axis, metric in zip(axes, metrics, strict=False):
        of_metric = known[known["metric"] == metric]
        controls = {"location_prior": ("D", "0.45"), "random": ("s", "0.7")}
        for control, (marker, grey) in controls.items():
            label = f"{control.replace('_', ' ')} on our images"
            if of_metric[control].notna().any():
                points = of_metric["published"], of_metric[control]
                axis.plot(*points, marker, color=grey, markersize=3, label=label, zorder=1)
        for method, rows_of in of_metric.groupby("method"):
            _intervals(axis, rows_of["published"], rows_of, "ours", colours[method], str(method))
        _diagonal(axis, of_metric)
        axis.set(xlabel="published", ylabel="ours")
        axis.set_title(metric, fontsize=10)
    _one_legend(figure, axes[: len(metrics)], axes[len(metrics) :])
    return figure


def _intervals(
    axis: Axes, x: Any, numbers: pd.DataFrame, column: str, colour: Any, label: str, fmt: str = "o"
) -> None:
    """Values of a column at x, with the ends of their intervals, columns low and high."""
    value = numbers[column].to_numpy(float)
    ends = np.stack([value - numbers["low"], numbers["high"] - value])
    axis.errorbar(
        x, value, ends, fmt=fmt, color=colour, markersize=4, linewidth=1.2, label=label, zorder=2
    )


def _diagonal(axis: Axes, rows: pd.DataFrame) -> None:
    """Where both are equal; numbers that are no shares have logarithmic axes."""
    values = rows[["published", "ours", "location_prior", "random"]].to_numpy(float)
    if np.nanmax(values) > 1:
        axis.set(xscale="log", yscale="log")
    ends = [np.nanmin(values), np.nanmax(values)]
    axis.plot(ends, ends, ":", color="0.4", zorder=0)
    axis.grid(color="0.93")


def _one_legend(figure: Figure, axes: np.ndarray, empty: np.ndarray) -> None:
    """One legend for all charts, in the place of those that are empty."""
    entries = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    for axis in empty:
        axis.set_axis_off()
    if len(empty):
        empty[0].legend(entries.values(), entries, loc="center", frameon=False, fontsize=9)
    else:
        handles, labels = list(entries.values()), list(entries)
        figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=3)
