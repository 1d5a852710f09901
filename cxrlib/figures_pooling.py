"""Charts of the chapter on pooling: one function, one figure, as in cxrlib.figures."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxrlib.figures import COLOURS, no_ticks

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))


def who_learns(scores: np.ndarray, shares: Mapping[str, np.ndarray]) -> Figure:
    """The scores of a bag, and the share of the gradient that each instance gets.

    Args:
        scores: (h, w) log-odds.
        shares: pooling -> (h, w), the derivative of the bag's log-odds by those of each instance.
    """
    columns = -(-(len(shares) + 1) // 2)
    figure, grid = plt.subplots(2, columns, figsize=(1.75 * columns, 4.1), layout="constrained")
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
    figure, axis = plt.subplots(figsize=(6.2, 3.5), layout="constrained")
    for (name, values), colour, line in zip(table.items(), COLOURS, _LINES, strict=False):
        axis.plot(table.index, values, color=colour, linestyle=line, label=name)
    axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel, ylim=(-0.02, 1.02))
    axis.set_xticks(table.index, [f"{value:g}" for value in table.index])
    axis.minorticks_off()
    axis.grid(axis="y", color="0.92")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
