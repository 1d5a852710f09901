"""What a radiograph shows besides the patient: wires, tubes and lines, markers, collimation.

Devices attenuate (nepers), letters and shutters are burnt into the finished image.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import CubicSpline

from cxrlib.phantom.chest import FIELD, Chest, Scene
from cxrlib.phantom.skeleton import Canvas

CONFOUNDERS = {
    "chest_tube": "Pneumothorax",
    "pacemaker": "Cardiomegaly",
    "portable_marker": "Edema",
    "wires": "Infiltration",
}
"""Devices that can be made to go with a finding, and which."""

_RATES = {  # upright, in bed
    "chest_tube": (0.01, 0.06),
    "portable_marker": (0.0, 0.6),
    "wires": (0.03, 0.6),
    "line": (0.03, 0.4),
    "tracheal_tube": (0.0, 0.2),
    "gastric_tube": (0.01, 0.2),
    "pacemaker": (0.03, 0.05),
}


@dataclass(frozen=True)
class Equipment:
    """Names of the devices on an image, and the side of a chest tube (0 right, 1 left)."""

    names: frozenset[str]
    side: int


def draw_equipment(
    rng: np.random.Generator, ap: bool, present: set[str], strength: dict[str, float], side: int
) -> Equipment:
    """Which devices are on an image.

    Args:
        rng: draws.
        ap: whether the patient lies in bed.
        present: findings of the image.
        strength: for each confounder the share of images, 0 to 1, on which it is there exactly if
            its finding is; on the others it comes at its usual rate, whatever the findings.
        side: of the pneumothorax, if there is one.
    """
    names = set()
    for name, rates in _RATES.items():
        chance, tied = rng.random(2)
        here = chance < rates[ap]
        if tied < strength.get(name, 0.0):
            here = CONFOUNDERS[name] in present
        if here:
            names.add(name)
    return Equipment(frozenset(names), side)


def attach(scene: Scene, equipment: Equipment, rng: np.random.Generator) -> None:
    """Lay the devices over a scene."""
    chest, size = scene.chest, len(scene.lung)
    if not equipment.names - {"portable_marker"}:
        return
    canvas = Canvas(chest, size)
    carina = chest.apex + 0.40 * (chest.base - chest.apex)
    neck = (rng.normal(0, 0.3), chest.apex - 8)
    if "wires" in equipment.names:
        _wires(canvas, chest, rng)
    if "chest_tube" in equipment.names:
        _chest_tube(canvas, chest, 2 * equipment.side - 1, rng)
    if "line" in equipment.names:
        side = rng.choice([-1, 1])
        start = (side * rng.uniform(3, 11), chest.apex + rng.uniform(-5, 1))
        _tube(
            canvas, [start, (-1.2, chest.apex + 4), (-1.9, carina + rng.uniform(0, 4))], 0.18, 0.35
        )
    if "tracheal_tube" in equipment.names:
        _tube(canvas, [neck, (0, chest.apex), (-0.2, carina - rng.uniform(1.5, 5))], 0.75, 0.10)
        _tube(canvas, [(neck[0] + 0.3, neck[1]), (0.3, chest.apex), (0.1, carina - 3)], 0.15, 0.5)
    if "gastric_tube" in equipment.names:
        stomach = (rng.uniform(3, 7), chest.base - chest.dome + rng.uniform(3, 6))
        _tube(canvas, [neck, (0.4, carina), (0.8, chest.base - chest.dome), stomach], 0.3, 0.3)
    if "pacemaker" in equipment.names:
        _pacemaker(canvas, chest, rng)
    scene.device += canvas.values()


def _tube(canvas: Canvas, points: list[tuple[float, float]], width: float, value: float) -> None:
    canvas.line(smooth_line(points), width, value)


def smooth_line(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A smooth curve through points, as a fine polyline."""
    steps = np.linspace(0, len(points) - 1, 12 * len(points))
    curve = CubicSpline(np.arange(len(points)), np.asarray(points, float))(steps)
    return [tuple(point) for point in curve.tolist()]


def _wires(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    """Electrodes on the skin and their leads to the edge of the bed."""
    for side, level in ((-1, 0.1), (1, 0.1), (1, 0.75), (-1, 0.75), (1, 0.5))[: rng.integers(2, 6)]:
        x = side * chest.lung_half_width * rng.uniform(0.5, 1.0)
        y = chest.apex + (level + 0.08 * rng.normal()) * (chest.base - chest.apex)
        canvas.disc((x, y), rng.uniform(0.35, 0.8), rng.uniform(0.15, 0.6))
        far = (rng.choice([-1, 1]) * rng.uniform(8, 22), rng.choice([-22.0, 22.0]))
        between = ((x + far[0]) / 2 + rng.normal(0, 3), (y + far[1]) / 2 + rng.normal(0, 3))
        _tube(canvas, [(x, y), between, far], 0.14, rng.uniform(0.5, 1.2))


def _chest_tube(canvas: Canvas, chest: Chest, sign: int, rng: np.random.Generator) -> None:
    entry = chest.apex + rng.uniform(0.5, 0.85) * (chest.base - chest.apex)
    tip = (sign * rng.uniform(3.5, 7), chest.apex + rng.uniform(1.5, 8))
    w = chest.lung_half_width
    points = [
        (sign * (w + 7), entry + 3),
        (sign * (w + 0.5), entry),
        (sign * 0.85 * w, entry - 3),
        tip,
    ]
    _tube(canvas, points, 0.85, 0.16)
    _tube(canvas, [(x + 0.2, y) for x, y in points], 0.14, 0.6)


def _pacemaker(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    x, y = 0.68 * chest.lung_half_width + rng.normal(0, 0.8), chest.apex + 4.5 + rng.normal(0, 1)
    outline = [
        (x + 2.3 * math.copysign(abs(math.cos(t)) ** 0.6, math.cos(t)), y + 2.0 * math.sin(t))
        for t in np.linspace(0, 2 * math.pi, 24)
    ]
    canvas.polygon(outline, 2.2)
    heart = (chest.heart_x + 0.5 * chest.heart_a, chest.heart_y + 0.4 * chest.heart_a)
    _tube(canvas, [(x - 1, y), (1.0, chest.apex + 5), (-2.0, chest.heart_y - 2), heart], 0.2, 0.8)


def burn_in(pixels: np.ndarray, equipment: Equipment, rng: np.random.Generator) -> np.ndarray:
    """Letters, markers and shutters on a finished image: uint8 (size, size)."""
    size = len(pixels)
    image = Image.fromarray(pixels)
    if rng.random() < 0.4:
        image = _collimated(image, rng)
    draw = ImageDraw.Draw(image)
    unit = size / FIELD
    if rng.random() < 0.9:
        left = rng.random() < 0.75
        text = ("L" if left else "R") + rng.choice(["", "", " ", "\nDB", "\n3"])
        x = size * (rng.uniform(0.86, 0.95) if left else rng.uniform(0.03, 0.1))
        y = size * rng.uniform(0.02, 0.2)
        _text(draw, (x, y), str(text), unit * rng.uniform(0.9, 1.7), int(rng.integers(190, 256)))
    if "portable_marker" in equipment.names:
        x, y = size * rng.uniform(0.75, 0.88), size * rng.uniform(0.02, 0.35)
        _text(draw, (x, y), "PORTABLE", unit * rng.uniform(0.55, 0.8), 245)
        _text(draw, (x + 1.2 * unit, y + 1.2 * unit), "AP", unit * rng.uniform(0.6, 0.9), 245)
    return np.asarray(image)


def _text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, height: float, value: int
) -> None:
    draw.text(place, text, fill=value, font=ImageFont.load_default(max(height, 3.0)))


def _collimated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Dark outside the shutters, of which one to four reach into the image, often askew."""
    size = image.width
    inset = size * rng.uniform(-0.05, 0.055, 4).clip(0, None)
    skew = size * rng.normal(0, 0.012, 4)
    left, top, right, low = inset[0], inset[1], size - inset[2], size - inset[3]
    corners = [
        (left + skew[0], top + skew[1]),
        (right + skew[2], top - skew[1]),
        (right - skew[2], low + skew[3]),
        (left - skew[0], low - skew[3]),
    ]
    mask = Image.new("1", image.size)
    ImageDraw.Draw(mask).polygon(corners, fill=1)
    return Image.composite(image, Image.new("L", image.size, int(rng.integers(0, 12))), mask)
