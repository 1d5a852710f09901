"""The chart of the page on the shipped models: one function, one figure, as in cxrlib.figures."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cxrlib.figures import COLOURS, CONTROLS
from cxrlib.metrics.scorer import MODEL
from cxrlib.weights import SHIPPED

_MARKS = {
    "location_prior": ("D", COLOURS[1]),
    "random": ("x", "0.55"),
    "grid_ceiling": ("|", "0.3"),
}


def pointing_of_models(numbers: pd.DataFrame, mean: str) -> Figure:
    """Pointing of each shipped model with its interval, beside its controls.

    Args:
        numbers: of :func:`cxrlib.weights.scoring.score`.
        mean: ``"macro"`` or ``"micro"``.
    """
    rows = numbers[(numbers["protocol"] == "pointing") & (numbers["finding"] == mean)]
    rows = rows.set_index(["source", "model"])
    figure, axis = plt.subplots(figsize=(7.5, 2.6), layout="constrained")
    places = range(len(SHIPPED))
    model = rows.loc[MODEL].loc[[*SHIPPED]]
    axis.hlines(places, model["low"], model["high"], color=COLOURS[0], linewidth=1.4)
    axis.plot(model["value"], places, "o", color=COLOURS[0], markersize=5, label="model")
    for source, (marker, colour) in _MARKS.items():
        at = rows.loc[source].loc[[*SHIPPED], "value"]
        axis.plot(at, places, marker, color=colour, markersize=6, label=CONTROLS[source])
    axis.set_yticks(places, [*SHIPPED.values()])
    pairs = int(model["n"].iloc[0])
    label = f"pointing, {mean} mean, n = {pairs:,} (95 % interval over patients)"
    axis.set(xlim=(-0.02, 1.02), xlabel=label)
    axis.invert_yaxis()
    axis.grid(axis="x", color="0.92")
    axis.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return figure
