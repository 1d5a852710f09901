"""Small figures of the exercises on attention mining, HAM and CLARiTy; as in cxrlib.figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from cxrlib.figures import COLOURS, no_ticks

TRUTH = "#00e5ff"
"""Colour of the outline of what is true, on radiographs and on maps."""

_MARKERS = "osD^vP"


def panels(
    maps: Mapping[str, np.ndarray],
    truth: np.ndarray | None = None,
    image: np.ndarray | None = None,
    limits: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """Maps side by side, each with its own colours, from its lowest value to its highest.

    Args:
        maps: title -> (h, w), of any size.
        truth: bool (H, W), outlined in every panel.
        image: (H, W), shown in grey on the left, and under every map.
        limits: values of the darkest and the brightest colour, where all maps share them.
    """
    count = len(maps) + (image is not None)
    figure, grid = plt.subplots(
        1, count, figsize=(min(1.6 * count, 6.4), 1.95), layout="constrained", squeeze=False
    )
    corners = (-0.5, 0.5, 0.5, -0.5)  # every map fills the same square
    axes = list(grid[0])
    for axis in axes if image is not None else ():
        axis.imshow(image, cmap="gray", extent=corners)
    see_through = 1 if image is None else 0.6
    for axis, (title, map_) in zip(axes[-len(maps) :], maps.items(), strict=True):
        values = np.asarray(map_, float)
        low, high = limits
        axis.imshow(values, "magma", extent=corners, alpha=see_through, vmin=low, vmax=high)
        axis.set_title(title, fontsize=8)
    for axis in axes if truth is not None else ():
        assert truth is not None
        at = (np.arange(truth.shape[-1]) + 0.5) / truth.shape[-1] - 0.5
        axis.contour(at, at, truth.astype(float), [0.5], colors=[TRUTH], linewidths=1)
    no_ticks(axes)
    return figure


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    **axis_options: Any,
) -> Figure:
    """Numbers against another, a line for each name.

    Args:
        x: n values.
        curves: name -> n values.
        xlabel, ylabel: what they are.
        axis_options: given to the axes, such as ``ylim`` or ``xscale``.
    """
    figure, axis = plt.subplots(figsize=(6.2, 2.8), layout="constrained")
    for place, (name, y) in enumerate(curves.items()):
        style = {"color": COLOURS[place], "marker": _MARKERS[place], "markersize": 4}
        axis.plot(x, y, label=name, **style)
    axis.set(xlabel=xlabel, ylabel=ylabel, **axis_options)
    axis.grid(axis="y", color="0.92")
    axis.legend(frameon=False, fontsize=8)
    return figure


def bars(groups: Mapping[str, Mapping[str, float]], ylabel: str, **axis_options: Any) -> Figure:
    """Bars in groups, with their numbers on them.

    Args:
        groups: name of the bar -> {name of the group: height}; all have the same groups.
        ylabel: what the heights are.
        axis_options: given to the axes.
    """
    figure, axis = plt.subplots(figsize=(6.2, 2.8), layout="constrained")
    places = np.arange(len(next(iter(groups.values()))))
    width = 0.8 / len(groups)
    for k, (name, heights) in enumerate(groups.items()):
        at = places + (k - (len(groups) - 1) / 2) * width
        drawn = axis.bar(at, list(heights.values()), 0.94 * width, color=COLOURS[k], label=name)
        axis.bar_label(drawn, fmt="%.2f", fontsize=8)
    axis.set_xticks(places, list(next(iter(groups.values()))))
    axis.margins(y=0.1)
    axis.set(ylabel=ylabel, **axis_options)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
