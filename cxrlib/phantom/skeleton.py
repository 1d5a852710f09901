"""Bones of the phantom, as path lengths through cortical bone, cm.

Ribs are hollow tubes on helices around the rib cage: behind they run from the spine outwards, in
front they come back lower, so their shadows cross and crowd along the chest wall by themselves.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cxrlib.phantom.anatomy import arm_line
from cxrlib.phantom.chest import FIELD, Chest, cage, chord, grid, midline


def bones(chest: Chest, patient: np.random.Generator, size: int) -> np.ndarray:
    """Path lengths through all bones, float32 (size, size), cm of cortical bone.

    Args:
        chest: the patient.
        patient: draws what differs between skeletons.
        size: pixels per side.
    """
    x, y = grid(chest, size)
    wobble = patient.normal(0, 1, 6).tolist()
    # Old bones hold less calcium.
    mineral = 1.0 - 0.004 * max(chest.age - 40, 0)
    total = _ribs(chest, x, y, wobble) + _spine(chest, x, y) + _clavicles(chest, x, y, wobble)
    return mineral * (total + _drawn(chest, size, wobble))


def _ribs(chest: Chest, x: np.ndarray, y: np.ndarray, wobble: list[float]) -> np.ndarray:
    across = x - midline(chest, y)
    a = np.abs(across)
    half = cage(chest, y) + 0.7
    u = (a / half).clip(0, 0.995)
    front = np.sqrt(1 - u * u)  # cosine of the angle around the cage, from the spine
    slope = 0.5 * chest.rib_drop * u / (front * half)
    y = y + 0.12 * wobble[0] * np.where(x > 0, 1, -1) + 0.1 * wobble[1] * np.sin(0.35 * y)
    within = (a < half) * ((y - chest.apex + 1.6) / 0.8).clip(0, 1)
    # Behind: the ribs leave the spine a little upwards, then turn down.
    behind = y - 0.5 * chest.rib_drop * (1 - front) + 0.35 * np.sin(math.pi * u.clip(0, 0.6) / 0.6)
    posterior = _tubes(behind, chest, slope, 0.62) * ((a - 1.6) / 0.8).clip(0, 1)
    ahead = y - 0.5 * chest.rib_drop * (1 + front)
    # The front ends are cartilage, which does not show; the lower the rib, the further out it ends.
    end = 4.2 + 0.16 * (y - chest.apex)
    anterior = _tubes(ahead, chest, slope, 0.72) * ((a - end) / 0.8).clip(0, 1)
    first = ((ahead - chest.apex + 3.0) / 1.0).clip(0, 1)
    low = ((chest.base + 5.5 - behind) / 2).clip(0, 1)
    return within * (posterior * low + 0.62 * anterior * first * (ahead < chest.base - 4))


def _tubes(level: np.ndarray, chest: Chest, slope: np.ndarray, radius: float) -> np.ndarray:
    """Chords through the cortex of tubes whose axes are one rib spacing apart in level."""
    u = (level - chest.apex) / chest.rib_spacing + chest.rib_phase
    stretch = np.sqrt(1 + slope * slope)
    square = ((u - np.rint(u)) * chest.rib_spacing / (stretch * radius)) ** 2
    shell = chord(square) - 0.62 * chord(square * 1.4)
    # Seen along its run a rib is thicker, up to the chest wall's own curvature.
    return 1.35 * radius * shell * (0.8 + 0.2 * stretch.clip(1, 3.5))


def _spine(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertebral bodies with discs between them, pedicles and spinous processes."""
    across = x - midline(chest, y)
    columns = np.flatnonzero(np.abs(across).min(axis=0) < 3)
    inside = slice(columns[0], columns[-1] + 1)
    u = across[:, inside]
    level = (y - chest.apex) / (1.02 * chest.rib_spacing) + chest.rib_phase
    phase = level - np.rint(level)  # -0.5 to 0.5 from disc to disc
    width = 1.6 + 0.03 * (y - chest.apex)
    body = chord((u / width) ** 4) * (0.55 + 0.75 * (np.abs(phase) < 0.30) - 0.15)
    plate = 0.35 * np.exp(-(((np.abs(phase) - 0.36) / 0.05) ** 2)) * (np.abs(u) < width)
    pedicles = 0.5 * np.exp(
        -(((np.abs(u) - 0.75 * width) / 0.28) ** 2) - ((phase + 0.1) / 0.17) ** 2
    )
    process = 0.5 * np.exp(-((u / 0.3) ** 2) - ((phase - 0.25) / 0.2) ** 2)
    total = np.zeros_like(across)
    total[:, inside] = 0.22 * body + 0.3 * plate + 0.5 * pedicles + 0.5 * process
    return total


def _clavicles(chest: Chest, x: np.ndarray, y: np.ndarray, wobble: list[float]) -> np.ndarray:
    a = np.abs(x - 0.5 * chest.rotation)
    reach = chest.lung_half_width + 3
    rise = (0.06 if chest.ap else -0.06) + 0.03 * wobble[2]
    level = chest.apex + 2.9 - (rise + 0.14) * a + 0.55 * np.sin(2 * math.pi * (a - 1) / 15)
    radius = 0.58 + 0.35 * np.exp(-(((a - 1.5) / 1.3) ** 2))
    square = ((y - level) / radius) ** 2
    ends = ((a - 1.5) / 0.5).clip(0, 1) * ((reach - a) / 0.8).clip(0, 1)
    return 1.3 * ends * (chord(square) - 0.6 * chord(1.4 * square))


def _drawn(chest: Chest, size: int, wobble: list[float]) -> np.ndarray:
    """Shoulder blades and arms, drawn on a canvas."""
    canvas = Canvas(chest, size)
    blades = [blade(chest, side, wobble) for side in (-1, 1)]
    for outline in blades:
        canvas.polygon(outline, 0.20)
    edges = Canvas(chest, size)
    for side, outline in zip((-1, 1), blades, strict=True):
        edges.line([*outline, outline[0]], 0.55, 0.35)
        crest = [
            outline[0],
            ((outline[1][0] + outline[2][0]) / 2, (outline[1][1] + outline[2][1]) / 2),
        ]
        edges.line(crest, 0.45, 0.4)
        x0, y0, dx, dy = arm_line(chest)
        shaft = [(side * (x0 + 1.2 + t * dx), y0 + t * dy) for t in (1.0, 24.0)]
        edges.line(shaft, 2.1, 0.9)
        edges.line(shaft, 1.2, 0.55)
        edges.disc((side * (x0 + 0.7), y0), 2.3, 0.75)
        edges.disc((side * (x0 + 0.7), y0), 2.1, 0.5)
    return canvas.values() + edges.values()


def blade(chest: Chest, side: int, wobble: list[float]) -> list[tuple[float, float]]:
    """Outline of a shoulder blade; upright patients roll it off the lung, those in bed cannot."""
    inner = 0.78 if chest.ap else 0.95
    w, top = chest.lung_half_width, chest.apex
    points = [
        (inner * w * 0.66 + 0.6, top + 2.2),
        (w + 2.6, top + 2.6),
        (w + 2.2, top + 5.0),
        (inner * w + 1.4, top + 13.0 + 0.6 * wobble[3]),
        (inner * w - 0.6, top + 12.4 + 0.6 * wobble[3]),
    ]
    return [(side * px, py) for px, py in points]


class Canvas:
    """A drawing in the chest's own centimetres, made at twice the image's pixels and averaged down.

    Args:
        chest: gives the detector's place.
        size: pixels per side of the image.
    """

    def __init__(self, chest: Chest, size: int) -> None:
        self.chest, self.side = chest, 2 * size
        self.image = Image.new("F", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)
        self.scale = self.side / FIELD / chest.zoom

    def _flat(self, points: Sequence[tuple[float, float]]) -> list[float]:
        return (detector(self.chest, np.asarray(points, float)) * self.side).ravel().tolist()

    def polygon(self, points: Sequence[tuple[float, float]], value: float) -> None:
        """Fill an outline, cm, with a value."""
        self.draw.polygon(self._flat(points), fill=value)

    def line(self, points: Sequence[tuple[float, float]], width: float, value: float) -> None:
        """A line of a width in cm; if that is less than a pixel, it is as much fainter."""
        width *= self.scale
        value *= min(width, 1.0)
        self.draw.line(self._flat(points), value, max(1, round(width)), joint="curve")

    def disc(self, centre: tuple[float, float], radius: float, value: float) -> None:
        """A filled circle."""
        (x, y), r = self._flat([centre]), radius * self.scale
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=value)

    def values(self) -> np.ndarray:
        """The drawing as float32 (size, size)."""
        return np.asarray(self.image.reduce(2))


def detector(chest: Chest, points: np.ndarray) -> np.ndarray:
    """Places in the chest, cm (n, 2), as shares of the image's width and height (n, 2)."""
    x = points[:, 0] - chest.shift_x - chest.tilt * points[:, 1]
    return np.stack([x, points[:, 1] - chest.shift_y], axis=1) / (FIELD * chest.zoom) + 0.5
