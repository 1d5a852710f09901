"""Charts of the studies: one function, one figure, as in :mod:`cxrlib.figures`."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlib.figures import COLOURS, CONTROLS, no_ticks
from cxrlib.studies import differences, over_seeds

_GREYS = {
    CONTROLS["location_prior"]: ("0.2", "--"),
    CONTROLS["centre_prior"]: ("0.4", "-."),
    CONTROLS["random"]: ("0.5", ":"),
    CONTROLS["grid_ceiling"]: ("0.65", "-"),
}
"""Control -> colour and line."""


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


def trends(panels: Mapping[str, Mapping[str, pd.DataFrame]], xlabel: str) -> Figure:
    """Scores against a parameter: means over seeds with 95 % intervals, seeds as thin lines.

    Args:
        panels: title of a chart -> name of a line -> values of :func:`cxrlib.studies.by_seed`, a
            column for each value of the parameter. A control is drawn dashed, without intervals.
        xlabel: the parameter.
    """
    figure, grid = plt.subplots(
        1, len(panels), figsize=(2.55 * len(panels) + 0.6, 3.2), layout="constrained", squeeze=False
    )
    lines = {name for of_panel in panels.values() for name in of_panel}
    models = sorted(lines - set(_GREYS), key=[n for p in panels.values() for n in p].index)
    colours = dict(zip(models, COLOURS, strict=False))
    for axis, (title, of_panel) in zip(grid[0], panels.items(), strict=True):
        for name, values in of_panel.items():
            values = values.sort_index(axis=1)
            at = np.arange(values.shape[1])
            if name in _GREYS:
                grey, style = _GREYS[name]
                axis.plot(at, values.mean(), color=grey, linestyle=style, linewidth=1.1, label=name)
                continue
            axis.plot(at, values.T, color=colours[name], alpha=0.25, linewidth=0.8)
            _intervals(axis, at, over_seeds(values), "value", colours[name], name, "o-")
        ticks = [f"{value:g}" for value in sorted(values.columns)]
        axis.set_xticks(np.arange(len(ticks)), ticks)
        axis.set(xlabel=xlabel)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="y", color="0.93")
    _one_legend(figure, grid[0], grid[0][:0])
    return figure


def change_by_row(values: Mapping[str, pd.DataFrame], against: Any, xlabel: str) -> Figure:
    """How much each row changes with a parameter: paired differences over seeds as a heat map.

    A star marks a difference whose 95 % interval leaves out zero.

    Args:
        values: row, such as a finding -> values of :func:`cxrlib.studies.by_seed`.
        against: the value of the parameter that the others are compared with.
        xlabel: the parameter.
    """
    rows = {name: differences(of_row, against).sort_index() for name, of_row in values.items()}
    changes = pd.DataFrame({name: of_row["value"] for name, of_row in rows.items()}).T
    sure = pd.DataFrame({n: (of["low"] > 0) | (of["high"] < 0) for n, of in rows.items()}).T
    size = (0.85 * changes.shape[1] + 2.6, 0.3 * len(changes) + 1.0)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    most = float(changes.abs().max().max())
    image = axis.imshow(changes, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
    for (row, column), change in np.ndenumerate(changes.to_numpy()):
        star = "*" if sure.to_numpy()[row, column] else ""
        ink = "white" if abs(change) > 0.6 * most else "black"
        axis.text(
            column, row, f"{change:+.2f}{star}", ha="center", va="center", color=ink, fontsize=8
        )
    axis.set_xticks(range(changes.shape[1]), [f"{value:g}" for value in changes.columns])
    axis.set_yticks(range(len(changes)), [str(name).replace("_", " ") for name in changes.index])
    axis.set(xlabel=f"{xlabel}, against {against:g}")
    figure.colorbar(image, ax=axis, label="difference", shrink=0.8)
    return figure


def ranks(table: pd.DataFrame, methods: Sequence[str], metrics: Mapping[str, str]) -> Figure:
    """Ranks of methods with their intervals, a chart for each metric.

    Args:
        table: of :func:`cxrlib.ranks.ranking`.
        methods: from above.
        metrics: metric -> title.
    """
    size = (2.2 * len(metrics) + 1.6, 0.28 * len(methods) + 1.0)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, layout="constrained")
    for axis, (metric, title) in zip(np.atleast_1d(axes), metrics.items(), strict=True):
        rows = table[table["metric"] == metric].set_index("method").loc[list(methods)]
        for place, row in enumerate(rows.itertuples()):
            ends = [row.rank_low, row.rank_high]
            axis.plot(ends, [place, place], color=COLOURS[0], linewidth=3, alpha=0.5)
            axis.plot(row.rank, place, "o", color=COLOURS[0], markersize=5)
        axis.set_title(title, fontsize=10)
        axis.set(
            xlabel="rank",
            xlim=(0.5, len(methods) + 0.5),
            xticks=[1, len(methods) // 2, len(methods)],
        )
        axis.grid(axis="x", color="0.92")
    np.atleast_1d(axes)[0].set_yticks(range(len(methods)), list(methods))
    np.atleast_1d(axes)[0].invert_yaxis()
    return figure


def gain_and_cost(scores: pd.DataFrame, cost: pd.DataFrame, score: str, control: str) -> Figure:
    """A score against the number of weights, one named dot for each method.

    Args:
        scores: methods as rows; the columns ``score`` and ``control`` are drawn.
        cost: methods as rows, column weights.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    at = cost["weights"].loc[scores.index]
    axis.plot(at, scores[score], "o", color=COLOURS[0])
    middle = float(at.median())
    for name, x, y in zip(scores.index, at, scores[score], strict=True):
        look: dict[str, Any] = {"fontsize": 8, "ha": "right" if x > middle else "left"}
        place = (-5 if x > middle else 5, 4)
        axis.annotate(name, (x, y), place, textcoords="offset points", **look)
    prior = float(scores[control].mean())
    axis.axhline(prior, color="0.4", linestyle="--", linewidth=1, label="location prior")
    axis.set(xscale="log", xlabel="weights", ylabel=score)
    axis.margins(x=0.15)
    axis.legend(frameon=False)
    return figure


def gains(table: pd.DataFrame, panels: Mapping[str, tuple[str, str]]) -> Figure:
    """Scores on real images against the number of phantom images that came before them.

    Args:
        table: of :func:`cxrlib.phantom.tuning.compared`, the scores themselves.
        panels: title -> metric and mean.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.55 * len(panels), 3.2), layout="constrained", squeeze=False
    )
    sizes = sorted(table["phantom_images"].unique())
    for axis, (title, (metric, mean)) in zip(axes[0], panels.items(), strict=True):
        rows = table[(table["metric"] == metric) & (table["mean"] == mean)]
        for stage, colour in zip(("tuned", "phantom only"), COLOURS, strict=False):
            of = rows[rows["stage"] == stage].sort_values("phantom_images")
            at = [sizes.index(size) for size in of["phantom_images"]]
            _intervals(axis, at, of, "value", colour, stage, "o-")
        for control, (grey, style) in _GREYS.items():
            for value in rows[rows["stage"] == control]["value"]:
                axis.axhline(value, color=grey, linestyle=style, linewidth=1.1, label=control)
        axis.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        axis.set(xlabel="phantom images")
        axis.set_title(title, fontsize=10)
        axis.grid(axis="y", color="0.93")
    _one_legend(figure, axes[0], axes[0][:0])
    return figure


def where_it_looks(film: np.ndarray, maps: pd.DataFrame, device: str) -> Figure:
    """A film, and beside it the mean map of networks at each share of telling devices.

    Args:
        film: uint8 (size, size), with the device.
        maps: strength, row, column, value: one finding of
            :func:`cxrlib.phantom.shortcuts.mean_maps`.
        device: its name.
    """
    shares = sorted(maps["strength"].unique())
    figure, axes = plt.subplots(
        1, len(shares) + 1, figsize=(1.75 * len(shares) + 2.6, 2.3), layout="constrained"
    )
    axes[0].imshow(film, cmap="gray", vmin=0, vmax=255)
    axes[0].set_title(f"a film with a {device}", fontsize=9)
    for axis, share in zip(axes[1:], shares, strict=True):
        cells = maps[maps["strength"] == share]
        mean = cells.pivot(index="row", columns="column", values="value")
        shown = axis.imshow(mean, cmap="magma", vmin=0, vmax=maps["value"].max())
        axis.set_title(f"it tells on {share:.0%}", fontsize=9)
    no_ticks(axes)
    figure.colorbar(shown, ax=axes, label="mean map", shrink=0.9)
    return figure


def costs(ratios: pd.DataFrame) -> Figure:
    """What ours costs, the other being 1, on a logarithmic axis: dots and their range over rounds.

    Args:
        ratios: columns ``question``, the heading above its rows, ``ours``, ``value``, ``low`` and
            ``high``, the last two NaN where no range is known.
    """
    names: list[str] = []
    headings = list(ratios["question"].unique())
    size = (7.6, 0.19 * (len(ratios) + len(headings)) + 0.9)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for number, (question, rows) in enumerate(ratios.groupby("question", sort=False)):
        at = np.arange(len(names) + 1, len(names) + 1 + len(rows))
        names += [str(question), *rows["ours"]]
        colour = COLOURS[number % 4]  # the dark ones; they only part the questions
        value, low, high = rows[["value", "low", "high"]].to_numpy(float).T
        axis.hlines(at, low, high, color=colour, linewidth=3, alpha=0.45)
        axis.plot(value, at, "o", color=colour, markersize=4)
    axis.axvline(1, color="0.4", linestyle="--", linewidth=1, zorder=0)
    axis.set(xscale="log", xlabel="cost, the other being 1 (less to the left)")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in headings else "normal")
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", color="0.93")
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
