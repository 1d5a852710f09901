"""Charts of the chapter on CLARiTy: one function, one figure, as in :mod:`cxrlib.figures`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.figures import COLOURS, first_pair, no_ticks, radiograph
from cxrlib.findings import FINDINGS


def outlines(dataset: CXRDataset, masks: Mapping[str, np.ndarray]) -> Figure:
    """Radiographs with outlines of organs.

    Args:
        dataset: N images.
        masks: name -> (N, h, w), of any size; the outline is at one half.
    """
    count = len(dataset)
    figure, axes = plt.subplots(
        1, count, figsize=(1.9 * count, 2.3), layout="constrained", squeeze=False
    )
    side = dataset.image_size
    for place, (axis, image_id) in enumerate(zip(axes[0], dataset.image_ids, strict=True)):
        axis.imshow(dataset.read_pixels(str(image_id)), cmap="gray", vmin=0, vmax=255)
        for (_, of), colour in zip(masks.items(), COLOURS, strict=False):
            cell = side / of.shape[-1]
            at = (np.arange(of.shape[-1]) + 0.5) * cell - 0.5  # centres of cells, in pixels
            axis.contour(at, at, of[place].astype(float), [0.5], colors=[colour], linewidths=1.4)
    lines = [plt.Line2D([], [], color=colour) for _, colour in zip(masks, COLOURS, strict=False)]
    figure.legend(lines, list(masks), ncols=len(masks), loc="outside lower center", frameon=False)
    no_ticks(axes.ravel())
    return figure


def stages(
    dataset: CXRDataset, truth: Truth, maps: Mapping[str, np.ndarray], findings: Sequence[str]
) -> Figure:
    """What each stage makes of a finding: a row for each stage, a column for each finding.

    The first image of each finding, whatever the maps look like; every map has its own colours,
    from its lowest value to its highest, and a cross at the highest.

    Args:
        dataset: the images.
        truth: of the same dataset, P pairs.
        maps: name of the stage -> (P, h, w).
        findings: names; those without a box are left out.
    """
    pairs = [pair for name in findings if (pair := first_pair(truth, name)) is not None]
    figure, axes = plt.subplots(
        1 + len(maps),
        len(pairs),
        figsize=(1.65 * len(pairs), 1.75 * (1 + len(maps))),
        layout="constrained",
        squeeze=False,
    )
    side = dataset.image_size
    for column, pair in zip(axes.T, pairs, strict=True):
        for axis in column:
            radiograph(axis, dataset, truth, pair)
        column[0].set_title(FINDINGS[truth.finding[pair]].replace("_", " "), fontsize=9)
        for axis, of_stage in zip(column[1:], maps.values(), strict=True):
            S = of_stage[pair]
            corners = (-0.5, side - 0.5, side - 0.5, -0.5)
            axis.imshow(S, cmap="magma", alpha=0.6, extent=corners)
            y, x = divmod(int(S.argmax()), S.shape[-1])
            cell = side / S.shape[-1]
            axis.plot((x + 0.5) * cell, (y + 0.5) * cell, "+", color="white", markersize=8)
    for axis, name in zip(axes[1:, 0], maps, strict=True):
        place = {"transform": axis.transAxes, "rotation": 90, "va": "center", "ha": "right"}
        axis.text(-0.04, 0.5, name, fontsize=9, **place)
    no_ticks(axes.ravel())
    return figure


def cosines(matrix: np.ndarray) -> Figure:
    """Cosine between the tokens of any two findings.

    Args:
        matrix: (C, C), -1 to 1.
    """
    figure, axis = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
    names = [name.replace("_", " ") for name in FINDINGS]
    image = axis.imshow(matrix, cmap="PuOr", vmin=-1, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    figure.colorbar(image, label="mean cosine", shrink=0.8)
    return figure


def accuracy_by_overlap(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]],
    points: Mapping[str, Mapping[float, float]],
    thresholds: Sequence[float],
) -> Figure:
    """Share of boxes met with an IoU of T or more, against T.

    Args:
        curves: name -> values at each T, and the ends of their intervals; a line each.
        points: name -> T -> value of someone else's; a dotted line each.
        thresholds: T.
    """
    figure, axis = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
    for (name, (values, low, high)), colour, marker in zip(
        curves.items(), COLOURS, "oDs^", strict=False
    ):
        axis.plot(thresholds, values, marker=marker, markersize=4, color=colour, label=name)
        axis.fill_between(thresholds, low, high, color=colour, alpha=0.12, linewidth=0)
    for name, numbers in points.items():
        axis.plot(list(numbers), list(numbers.values()), "k:x", markersize=5, label=name)
    axis.set(xlabel="T", ylabel="boxes with IoU ≥ T", ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8)
    return figure
