"""The still pictures of the interactive pages: one function, one figure, as in cxrlib.figures.

They are narrow, so that their words can be read on a phone.
"""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrlib.explorers.packing import case_of, picture, unpack
from cxrlib.explorers.thresholds import at_threshold
from cxrlib.figures import COLOURS, no_ticks
from cxrlib.metrics.regions import region_boxes, upsample
from cxrlib.pooling import lse_pool

_TRUE, _PREDICTED = "#00e5ff", "#ffb000"


def sharpness(data: Mapping[str, Any]) -> Figure:
    """A map, who learns from it at three sharpnesses, and what two maps pool to at all of them.

    Args:
        data: of :func:`cxrlib.explorers.sharpness.data`.
    """
    shown = data["shown"]
    row = [scene["name"] for scene in data["findings"]].index(shown["finding"])
    (run,) = (run for run in data["runs"] if run["r0"] == shown["r0"])
    scene, maps = data["findings"][row], [unpack(text) for text in run["findings"][row]["maps"]]
    figure, axes = plt.subplot_mosaic(
        [["map", "a"], ["b", "c"], ["curve", "curve"]], figsize=(4.6, 7), height_ratios=(3, 3, 3.4)
    )
    figure.set_layout_engine("constrained")
    _radiograph(axes["map"], data, scene)
    axes["map"].imshow(upsample(maps[0], data["size"]), cmap="magma", alpha=0.55)
    axes["map"].set_title(f"{scene['name']}, map S", fontsize=9)
    for name, r in zip("abc", (1.0, 10.0, 100.0), strict=True):
        weights = torch.softmax(r * torch.from_numpy(maps[0]).flatten(), 0).view(maps[0].shape)
        axes[name].imshow(weights, cmap="viridis", vmin=0)
        axes[name].set_title(f"who learns at r = {r:g}", fontsize=9)
    no_ticks([axes[name] for name in ("map", *"abc")])
    rs = np.geomspace(0.1, 1000, 120)
    for S, label, colour, line in zip(
        maps,
        (f"with {scene['name'].lower()}", "without"),
        (COLOURS[0], COLOURS[1]),
        ("-", "--"),
        strict=True,
    ):
        pooled = [lse_pool(torch.from_numpy(S), r).item() for r in rs]
        axes["curve"].plot(rs, pooled, line, color=colour, label=f"image {label}")
    axes["curve"].axvline(run["r"], color="0.6", linewidth=0.8, label="r of the trained network")
    axes["curve"].set(
        xscale="log", ylim=(0, 1), xlabel="sharpness r", ylabel="pooled probability p"
    )
    axes["curve"].legend(frameon=False, loc="lower right")
    return figure


def thresholds(data: Mapping[str, Any]) -> Figure:
    """One map cut at four thresholds, the boxes around its regions and two overlaps.

    Args:
        data: of :func:`cxrlib.explorers.thresholds.data`.
    """
    shown, wang = data["shown"], data["own"]["wang"]
    row = [scene["name"] for scene in data["findings"]].index(shown["finding"])
    (method,) = (method for method in data["methods"] if method["name"] == shown["method"])
    scene = data["findings"][row]
    case = case_of(unpack(method["findings"][row]["map"]), scene, data["size"])
    cuts = {
        "Wang's first, 60 of 255": ("range", wang[0]),
        f"HAM's, {data['own']['ham']:.3f} of range": ("range", data["own"]["ham"]),
        "PYLON's, half of maximum": ("maximum", data["own"]["pylon"]),
        "Wang's second, 180 of 255": ("range", wang[1]),
    }
    figure, axes = plt.subplots(2, 2, figsize=(4.6, 5.6), layout="constrained")
    low, spread = case.map.min(), np.ptp(case.map)
    for axis, (name, (kind, share)) in zip(axes.ravel(), cuts.items(), strict=True):
        level = share * case.map.max() if kind == "maximum" else low + share * spread
        _radiograph(axis, data, scene)
        region = np.where(case.map > level, 1.0, math.nan)
        axis.imshow(region, cmap="autumn", vmin=0, vmax=1.5, alpha=0.5)
        for x0, y0, x1, y1 in region_boxes(case.map, [(level - low) / spread]):
            _box(axis, (x0, y0, x1, y1), _PREDICTED, "--")
        at = at_threshold(case, kind, share)
        axis.set_title(
            f"{name}\nIoU: region {at['pylon_iou']:.2f}, best box {at['wang_iou']:.2f}",
            fontsize=8,
        )
    no_ticks(axes.ravel())
    return figure


def _radiograph(axis: Axes, data: Mapping[str, Any], scene: Mapping[str, Any]) -> None:
    axis.imshow(picture(data["images"][scene["image"]]), cmap="gray", vmin=0, vmax=255)
    for box in scene["boxes"]:
        _box(axis, box, _TRUE, "-")


def _box(axis: Axes, box: Any, colour: str, line: str) -> None:
    x0, y0, x1, y1 = box
    edges = Rectangle(
        (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linestyle=line
    )
    axis.add_patch(edges)
