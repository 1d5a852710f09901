"""Figures of the chapter on attention mining: one function, one figure, as in cxrlib.figures."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.figures import COLOURS, first_pair, no_ticks, radiograph
from cxrlib.findings import FINDINGS
from cxrlib.models.mining_steps import claimed

CONTROLS = {
    "localization": ("the maps", COLOURS[0], "o-"),
    "location_prior": ("location prior", COLOURS[1], "D--"),
    "random": ("random = area claimed", "0.55", "x:"),
    "grid_ceiling": ("grid ceiling", "0.3", "|:"),
}
"""Part of a table of steps -> its name, colour and line."""


def stages(history: pd.DataFrame) -> Figure:
    """Validation loss of every stage by epoch, and the terms of the loss in mining steps.

    Args:
        history: what :func:`cxrlib.models.mining_stages.fit_stages` returns.
    """
    terms = [name for name in ("whole", "hidden", "kp") if name in history]
    figure, axes = plt.subplots(
        1, 1 + bool(terms), figsize=(4.2 * (1 + bool(terms)), 2.9), layout="constrained"
    )
    left, *right = np.atleast_1d(axes)
    passes = np.arange(1, len(history) + 1)
    for t in history["stage"].unique().tolist():
        of_stage, place = history[history["stage"] == t], passes[history["stage"] == t]
        label = "base network $f_0$" if t == 0 else f"$f_{t}$"
        colour = COLOURS[t % len(COLOURS)]
        left.plot(place, of_stage["val_loss"], "o-", markersize=3, color=colour, label=label)
    left.set(xlabel="epoch, of all stages", ylabel="validation loss of the stage")
    left.legend(frameon=False)
    mining = history["stage"] > 0
    for name, colour in zip(terms, COLOURS, strict=False):
        label = {"whole": "whole images", "hidden": "hidden cells", "kp": "preservation"}[name]
        for axis in right:
            axis.plot(
                passes[mining], history[name][mining], "o-", markersize=3, color=colour, label=label
            )
    for axis in right:
        axis.set(xlabel="epoch, of all stages", ylabel="term of the training loss", ylim=(0, None))
        axis.legend(frameon=False)
    for axis in (left, *right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def mined(dataset: CXRDataset, truth: Truth, steps: np.ndarray, findings: Sequence[str]) -> Figure:
    """What is looked at and hidden, step by step, for the first image of each finding.

    Each row: the radiograph with its true boxes, the map of every step by itself (dark: hidden from
    that step), and the union of all.

    Args:
        dataset: the images.
        truth: of the same dataset.
        steps: float (T + 1, P, h, w), 0 to 1, the maps of every step for the pairs of the truth.
        findings: names; those without a box are left out.
    """
    pairs = [pair for name in findings if (pair := first_pair(truth, name)) is not None]
    figure, axes = plt.subplots(
        len(pairs),
        len(steps) + 2,
        figsize=(1.75 * (len(steps) + 2), 1.85 * len(pairs) + 0.2),
        layout="constrained",
        squeeze=False,
    )
    for place, (row, pair) in enumerate(zip(axes, pairs, strict=True)):
        for axis, (title, map_, hidden) in zip(row, scenes(steps[:, pair]), strict=True):
            radiograph(axis, dataset, truth, pair)
            overlay(axis, map_, hidden, dataset.image_size)
            if place == 0:
                axis.set_title(title, fontsize=9)
        name = FINDINGS[truth.finding[pair]].replace("_", " ")
        beside = {"transform": row[0].transAxes, "rotation": 90, "va": "center", "ha": "right"}
        row[0].text(-0.04, 0.5, name, fontsize=9, **beside)
    no_ticks(axes.ravel())
    return figure


def toy(steps: np.ndarray) -> Figure:
    """The scenes of made-up maps, without a radiograph.

    Args:
        steps: float (T + 1, h, w), 0 to 1.
    """
    _, *shown = scenes(steps)
    figure, axes = plt.subplots(
        1, len(shown), figsize=(1.8 * len(shown), 2.1), layout="constrained"
    )
    for axis, (title, map_, hidden) in zip(axes, shown, strict=True):
        overlay(axis, map_, hidden, steps.shape[-1])
        axis.set_title(title, fontsize=9)
    no_ticks(axes)
    return figure


def scenes(steps: np.ndarray) -> Iterator[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """What to show of one finding in one image: title, map, hidden cells.

    Args:
        steps: float (T + 1, h, w), 0 to 1, each relative to its maximum.
    """
    E = claimed(steps)
    yield "radiograph", None, None
    for t, map_ in enumerate(steps):
        yield (f"$f_{t}$" if t == 0 else f"$f_{t}$, $E_{t}$ dark"), map_, E[t - 1] if t else None
    yield "union", steps.max(axis=0), None


def overlay(axis: Axes, map_: np.ndarray | None, hidden: np.ndarray | None, side: int) -> None:
    """Lay a map (h, w) over an image of this side, and darken cells (h, w)."""
    corners = (-0.5, side - 0.5, side - 0.5, -0.5)
    if map_ is not None:
        axis.imshow(map_, cmap="magma", alpha=0.6, vmin=0, vmax=1, extent=corners)
    if hidden is not None:
        dark = np.zeros((*hidden.shape, 4))
        dark[..., 3] = 0.85 * hidden
        axis.imshow(dark, extent=corners, interpolation="nearest")


def animation(
    dataset: CXRDataset, truth: Truth, steps: np.ndarray, finding: str, seconds: float = 1.2
) -> str:
    """The same for the first image of one finding, as a picture that moves.

    Args:
        dataset, truth, steps: of :func:`mined`.
        finding: its name.
        seconds: that each scene is shown.

    Returns:
        HTML without scripts: an ``<img>`` with its text alternative, or a sentence where no image
        has a box of it.
    """
    name, pair = finding.replace("_", " "), first_pair(truth, finding)
    if pair is None:
        return f"<p>No image has a box of {name}.</p>"
    frames = []
    for title, map_, hidden in scenes(steps[:, pair]):
        figure, axis = plt.subplots(figsize=(3.2, 3.4), dpi=80, layout="constrained")
        radiograph(axis, dataset, truth, pair)
        overlay(axis, map_, hidden, dataset.image_size)
        axis.set_title(f"{name}: {title}", fontsize=10)
        no_ticks([axis])
        stored = io.BytesIO()
        figure.savefig(stored, format="png")
        plt.close(figure)
        frames.append(Image.open(stored).convert("RGB"))
    moving = io.BytesIO()
    first, *others = frames
    options = {"duration": round(1000 * seconds), "loop": 0}
    first.save(moving, format="GIF", save_all=True, append_images=others, **options)
    alt = (
        f"Moving picture of {name}: the radiograph with the true box, the map of each network in "
        "turn with what is hidden from it darkened, and the union of the maps."
    )
    code = base64.b64encode(moving.getvalue()).decode()
    return f'<img alt="{alt}" src="data:image/gif;base64,{code}">'


def by_step(panels: Mapping[str, pd.DataFrame], ylabel: str) -> Figure:
    """A number and its controls, step by step, with 95 % intervals.

    Args:
        panels: title -> rows with step, part (a key of :data:`CONTROLS`), value, low, high.
        ylabel: what the number is.
    """
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(2.9 * len(panels), 3.2),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        for part, (label, colour, style) in CONTROLS.items():
            of_part = rows[rows["part"] == part].sort_values("step")
            axis.plot(
                of_part["step"], of_part["value"], style, color=colour, markersize=5, label=label
            )
            if part == "localization":
                axis.vlines(of_part["step"], of_part["low"], of_part["high"], color=colour)
        axis.set(title=title, xlabel="step t", ylim=(0, 1))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(axis="y", color="0.92")
    axes[0, 0].set_ylabel(ylabel)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=4, loc="outside lower center", fontsize=9)
    return figure
