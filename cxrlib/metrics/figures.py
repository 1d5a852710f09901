"""Charts of the chapter on scoring: one function, one figure, as in :mod:`cxrlib.figures`."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrlib.datasets.base import Truth
from cxrlib.figures import COLOURS
from cxrlib.findings import FINDINGS
from cxrlib.metrics.protocols import PROTOCOLS


def lineup(truth: Truth, maps: Mapping[str, np.ndarray], findings: Sequence[str]) -> Figure:
    """The same maps of a few pairs, with the true box.

    Args:
        truth: P pairs of one box each.
        maps: name -> float (P, g, g), 0 to 1.
        findings: a row for the first pair of each.
    """
    pairs = [int(np.flatnonzero(truth.finding == FINDINGS.index(name))[0]) for name in findings]
    figure, axes = plt.subplots(
        len(pairs),
        len(maps),
        figsize=(1.15 * len(maps), 1.3 * len(pairs) + 0.2),
        layout="constrained",
        squeeze=False,
    )
    for axis, name in zip(axes[0], maps, strict=True):
        axis.set_title(name, fontsize=9)
    for row, pair in zip(axes, pairs, strict=True):
        for axis, of_pairs in zip(row, maps.values(), strict=True):
            axis.imshow(of_pairs[pair], cmap="magma", vmin=0, vmax=1, extent=(0, 1, 1, 0))
            x0, y0, x1, y1 = truth.boxes[pair, 0]
            box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#00e5ff")
            axis.add_patch(box)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(FINDINGS[truth.finding[pair]], fontsize=9)
    return figure


def by_protocol(table: pd.DataFrame, protocols: Sequence[str], sources: Sequence[str]) -> Figure:
    """What each protocol says of each source of maps, as numbers on colours.

    Args:
        table: of :func:`cxrlib.metrics.experiments.tidy`, one row of numbers for each source.
        protocols: rows; those of other papers are divided by a line.
        sources: columns.
    """
    wide = table.pivot(index="protocol", columns="source", values="value")
    wide = wide.loc[list(protocols), list(sources)]
    size = (0.62 * len(sources) + 2.2, 0.27 * len(protocols) + 1.2)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    axis.imshow(wide, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(wide.to_numpy()):
        colour = "black" if value > 0.6 else "white"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    names = [name.replace("_", " ") for name in sources]
    axis.set_xticks(range(len(names)), names, rotation=45, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(protocols)), protocols, fontsize=8)
    origins = [PROTOCOLS[name].origin for name in protocols]
    for row in np.flatnonzero([one != two for one, two in pairwise(origins)]):
        axis.axhline(row + 0.5, color="white", linewidth=2)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def dots(table: pd.DataFrame, protocols: Sequence[str], sources: Mapping[str, str]) -> Figure:
    """A number with its 95 % interval for each protocol and source.

    Args:
        table: of :func:`cxrlib.metrics.experiments.tidy`, one row of numbers for each source.
        protocols: rows.
        sources: name -> label, at most five.
    """
    size = (7, 0.3 * len(protocols) + 1.1)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    shifts = np.linspace(-0.2, 0.2, len(sources))
    for (source, label), marker, colour, shift in zip(
        sources.items(), "oDsx|", COLOURS, shifts, strict=False
    ):
        rows = table[table["source"] == source].set_index("protocol").loc[list(protocols)]
        places = np.arange(len(protocols)) + shift
        axis.hlines(places, rows["low"].astype(float), rows["high"].astype(float), color=colour)
        axis.plot(rows["value"], places, marker, color=colour, markersize=5, label=label)
    axis.set_yticks(range(len(protocols)), protocols, fontsize=8)
    axis.set(xlim=(-0.02, 1.02), xlabel="score (95 % interval over patients)")
    axis.invert_yaxis()
    axis.grid(axis="x", color="0.92")
    axis.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return figure


def frame_effect(table: pd.DataFrame, protocols: Sequence[str], findings: Sequence[str]) -> Figure:
    """What a perfect box scores by the side of the frame, a panel for each finding.

    Args:
        table: of :func:`cxrlib.metrics.experiments.frames`.
        protocols: lines.
        findings: panels.
    """
    figure, axes = plt.subplots(
        1, len(findings), figsize=(3.6 * len(findings), 3), layout="constrained", sharey=True
    )
    for axis, finding in zip(axes, findings, strict=True):
        of_finding = table[table["finding"] == finding]
        for name, marker, colour in zip(protocols, "osD^vP", COLOURS, strict=False):
            line = of_finding[of_finding["protocol"] == name].sort_values("size")
            places = np.arange(len(line))
            axis.plot(places, line["value"], f"{marker}-", color=colour, markersize=4, label=name)
        axis.set_xticks(places, line["size"])
        axis.set(title=finding.replace("_", " "), xlabel="side of the frame (pixels)")
        axis.grid(axis="y", color="0.92")
    axes[0].set_ylabel("score of a perfect box")
    axes[-1].legend(frameon=False, fontsize=8)
    return figure
