"""Where findings lie and how large they are: the official boxes of ChestX-ray14 as distributions.

Only quantiles of the 984 boxes are kept (``official_boxes.csv``), so that no single official box,
nor its image, is known to the phantom. A network trained on the phantom has thereby been told what
the location prior of the official boxes knows; no more. Source: Wang et al., *ChestX-ray8*, CVPR
2017.
"""

import csv
import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np

from cxrlib.phantom.chest import FIELD, LEFT, RIGHT, Chest

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles that are kept; draws beyond the outermost are clipped to them."""


_FIT = {
    "Atelectasis": (0.85, 0.05, 1.0, 0.035, 1.5),
    "Effusion": (1.06, 0.0, 1.2, 0.02, 1.15),
    "Infiltration": (1.08, 0.06, 1.15, 0.09, 2.2),
    "Mass": (1.1, 0.01, 1.15, 0.04, 2.3),
    "Nodule": (1.12, 0.1, 1.4, 0.0, 1.15),
    "Pneumonia": (1.03, 0.1, 1.35, 0.02, 1.5),
    "Pneumothorax": (0.66, -0.05, 1.15, 0.02, 0.65),
}
"""Area factor, shift and spread of y, shift of x towards the midline and its spread, which a draw
needs for the *drawn* findings to match.

The border of a lung cuts off what a draw puts outside it, which pulls findings up and together.
"""


@dataclass(frozen=True)
class Target:
    """Where a lesion is meant to lie, in cm of the chest's frame.

    Attributes:
        x, y: centre.
        a, b: half width and half height.
        side: lung, 0 right or 1 left.
    """

    x: float
    y: float
    a: float
    b: float
    side: int

    @property
    def sign(self) -> int:
        """-1 in the right lung, 1 in the left."""
        return LEFT if self.side else RIGHT


@functools.cache
def official_boxes() -> dict[tuple[str, str], tuple[int, np.ndarray]]:
    """Number of official boxes and quantiles at :data:`LEVELS`, by finding and quantity.

    Quantities: ``x_right`` and ``x_left`` (centres in either half of the image), ``y``, ``area`` in
    shares of the image, ``aspect`` (width / height).

    >>> n, quantiles = official_boxes()["Nodule", "area"]
    >>> n, float(quantiles[2])
    (79, 0.0046)
    """
    file = resources.files("cxrlib.phantom") / "official_boxes.csv"
    with file.open(encoding="utf-8") as lines:
        return {
            (row["finding"], row["quantity"]): (
                int(row["n"]),
                np.array([float(row[key]) for key in ("q05", "q25", "q50", "q75", "q95")]),
            )
            for row in csv.DictReader(lines)
        }


def draw_target(name: str, chest: Chest, rng: np.random.Generator, scale: float = 1.0) -> Target:
    """A place and a size for a finding as the official boxes have them.

    Args:
        name: one of the eight findings with official boxes.
        chest: gives the detector's place.
        rng: draws.
        scale: of width and height.
    """
    table = official_boxes()
    right = table.get((name, "x_right"), (0, None))[0]
    side = int(rng.random() >= right / (right + table[name, "x_left"][0]))
    x, y, area, aspect = (
        float(np.interp(rng.random(), LEVELS, table[name, quantity][1]))
        for quantity in ("x_left" if side else "x_right", "y", "area", "aspect")
    )
    factor, lower, tall, inwards, wide = _FIT.get(name, (1.0, 0.0, 1.0, 0.0, 1.0))
    x_middle = table[name, "x_left" if side else "x_right"][1][2]
    y_middle = table[name, "y"][1][2]
    x = x_middle + wide * (x - x_middle) + (inwards if side == 0 else -inwards)
    y, area = y_middle + tall * (y - y_middle) + lower, factor * area
    half = 0.5 * FIELD * chest.zoom * scale
    level = (y - 0.5) * FIELD * chest.zoom + chest.shift_y
    return Target(
        x=(x - 0.5) * FIELD * chest.zoom + chest.shift_x + chest.tilt * level,
        y=level,
        a=half * (area * aspect) ** 0.5,
        b=half * (area / aspect) ** 0.5,
        side=int(x > 0.5),
    )
