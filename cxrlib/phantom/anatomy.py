"""Soft anatomy of the phantom: how much lung and soft tissue each ray through a chest crosses.

Normal sizes and relations (heart below half the thorax's width, right dome and left hilum higher,
carina at the aortic arch) follow Goodman, *Felson's Principles of Chest Roentgenology*, 4th ed.,
2014.
"""

import math
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from cxrlib.phantom.chest import (
    LEFT,
    RIGHT,
    Chest,
    cage,
    chord,
    grid,
    height,
    midline,
    rotate,
    window,
)

_CAGE_DEPTH = PchipInterpolator([-0.3, 0, 0.2, 0.5, 0.8, 1.6], [0.3, 0.45, 0.76, 0.96, 1.0, 0.95])
_MEDIAL = PchipInterpolator(  # of the mediastinum, cm
    [-0.3, 0, 0.04, 0.12, 0.3, 0.5, 0.8, 1.2], [6, 4.6, 3.5, 2.7, 2.3, 2.4, 0.5, 0.8]
)


def soft_parts(chest: Chest, size: int) -> dict[str, Any]:
    """Lung and soft tissue of a healthy chest, without vessels: the fields of a :class:`Scene`."""
    x, y = grid(chest, size)
    rows = height(chest, y).clip(-0.3, 1.6)
    half, medial = cage(chest, y), _MEDIAL(rows).astype(np.float32)
    middle = midline(chest, y)
    across = x - middle
    a = np.abs(across)
    # A turned patient shows more of one lung than of the other.
    right, left = half * (1 - 0.02 * chest.rotation), half * (1 + 0.02 * chest.rotation)
    half = np.where(x > 0, left, right)
    medial = np.where(x > 0, medial + 0.4 * chest.rotation, medial - 0.4 * chest.rotation)
    diaphragm = _diaphragm(chest, a, x > 0, half)
    u2 = (a / half) ** 2
    depth = chest.depth * chest.lucency * _CAGE_DEPTH(rows).astype(np.float32)
    above = ((diaphragm - y) / 0.3 + 0.5).clip(0, 1)
    # Behind the dome the lung reaches deeper: a thin layer of air over liver and spleen.
    above = np.maximum(above, 0.09 * np.exp((diaphragm - y).clip(None, 0) / 1.6))
    beside = ((a - medial) / 2.0 + 0.5).clip(0, 1)
    air = depth * chord(u2 * u2) * above * (0.1 + 0.9 * beside * beside)
    heart, rim = _heart(chest, x, y, diaphragm)
    air = (air - heart - _great_vessels(chest, x, y, above)).clip(0, None)
    body = _body(chest, x, y) + _breasts(chest, x, y) - _gas(chest, x, y, diaphragm)
    visible = (a < half) & (y < diaphragm) & (a > medial)
    return dict(
        x=x,
        y=np.broadcast_to(y, x.shape),
        lung=air,
        tissue=body - air - _airways(chest, across, y),
        fields=(visible & (x < 0), visible & (x > 0)),
        wall=(right - middle, left + middle),
        heart=(rim < 1) & (y < diaphragm + 1.5),
        mediastinum=(a <= medial) & (a < half) & (y > chest.apex) & (y < diaphragm) & (rim >= 1),
    )


def _diaphragm(chest: Chest, a: np.ndarray, left: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Level of the diaphragm; the right dome stands higher, over the liver."""
    base = chest.base - np.where(left, chest.raised[1], chest.raised[0])
    top = base - chest.dome + np.where(left, 0.5, -0.6)
    middle = 0.44 * chest.lung_half_width
    outside = ((a - middle) / (half - middle).clip(1, None)).clip(-1.2, 1.3)
    return top + (base - top) * np.where(outside > 0, outside**2, 0.35 * outside**2)


def _heart(
    chest: Chest, x: np.ndarray, y: np.ndarray, diaphragm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Depth of the heart, cm, and its radius relative to the silhouette's rim (1 on it)."""
    x0, a = chest.heart_x + 0.5 * chest.rotation, chest.heart_a
    u, v = rotate((x - x0) / a, (y - chest.heart_y) / a, math.radians(36))
    ventricles = (u / 1.08) ** 2 + (v / 0.8) ** 2  # half as wide as a, by the choice of both axes
    atrium = ((x - x0 + 0.46 * a) / (0.54 * a)) ** 2 + (
        (y - chest.heart_y - 0.1 * a) / (0.68 * a)
    ) ** 2
    rim = np.minimum(ventricles, atrium)
    under = np.exp((diaphragm + 0.5 - y).clip(None, 0) / 0.8)
    return 2.2 * a * chord(rim * rim) * under, rim


def _great_vessels(chest: Chest, x: np.ndarray, y: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Depth of aorta, pulmonary trunk, superior vena cava and hila in the lung, cm."""
    level = chest.apex + 0.33 * (chest.base - chest.apex)
    r, lean = chest.knob, 0.4 * chest.rotation
    spots = (  # centre, half axes and depth
        (1.4 + r / 2 + lean, level - 0.6, r, r, 2.4 * r),  # aortic knob
        (2.2 + lean, level + 3.3, 1.9, 1.9, 4.0),  # pulmonary trunk
        (-1.3 + lean, level - 0.5, 1.5, 4.8, 3.0),  # superior vena cava, ascending aorta
        (3.2, level + 2.7, 1.3, 2.2, 1.6),  # left hilum, the higher one
        (-3.0, level + 3.9, 1.2, 2.4, 1.6),
        (1.7, level + 8.0, 1.3, 9.0, 2.2),  # descending aorta
    )
    total = np.zeros_like(x)
    for x0, y0, a, b, depth in spots:
        columns, rows = window(x, y, x0, y0, a, b)
        part = chord(((x[rows, columns] - x0) / a) ** 2 + ((y[rows] - y0) / b) ** 2)
        np.maximum(total[rows, columns], depth * part, out=total[rows, columns])
    return total * above


def _airways(chest: Chest, across: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Air in trachea and main bronchi, cm."""
    carina = chest.apex + 0.40 * (chest.base - chest.apex)
    trachea = 2.0 * chord(((across - 0.2 * chest.rotation + 0.2) / 0.85) ** 2)
    air = trachea * ((carina - y) / 1.0).clip(0, 1)
    for side, steep in ((RIGHT, 0.95), (LEFT, 0.62)):
        along = side * across
        d = (y - carina - steep * along) / math.hypot(1, steep)
        air = np.maximum(
            air, 1.0 * chord((d / 0.6) ** 2) * (along > 0) * ((3.8 - along) / 1.5).clip(0, 1)
        )
    return air


def _body(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of the body, cm: trunk, shoulders, neck and arms."""
    trunk = chest.lung_half_width + chest.wall
    shoulder = chest.lung_half_width + 5.5 + 0.5 * chest.wall
    level = (y - chest.apex).astype(np.float32)
    axilla = 9.0 if chest.ap else 7.0
    outline = PchipInterpolator(
        [-12, -6, -4.2, -2.6, -0.5, 2.5, axilla - 1.5, axilla + 1.5, 30],
        [5.6, 5.9, 8.5, 13.0, shoulder - 1.2, shoulder, shoulder - 0.8, trunk + 0.4, trunk + 0.8],
    )(level.clip(-12, 30)).astype(np.float32)
    full = chest.depth + 2.0 * chest.wall + 1.2
    thick = PchipInterpolator(
        [-12, -5, -3, 0, 4, 12, 24, 30], [11, 11.5, 12.5, 0.8 * full, 0.93 * full, full, full, full]
    )(level.clip(-12, 30)).astype(np.float32)
    u2 = (x / outline) ** 2
    depth = thick * chord(u2 * u2)
    # Towards the shoulders the body thins to the arm's thickness.
    depth *= 1 - 0.45 * (((np.abs(x) - 9) / 9).clip(0, 1) * ((6 - level) / 6).clip(0, 1))
    return np.maximum(depth, _arms(chest, x, y))


def arm_line(chest: Chest) -> tuple[float, float, float, float]:
    """Shoulder joint (x, y) and slope (dx, dy) per cm of the left arm; the right one mirrors it."""
    joint = (chest.lung_half_width + 3.2, chest.apex + 3.6)
    angle = 0.18 if chest.ap else 0.62
    return *joint, math.sin(angle), math.cos(angle)


def _arms(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x0, y0, dx, dy = arm_line(chest)
    radius = 3.4 + 0.5 * chest.wall
    u, v = np.abs(x) - x0 - 1.0, y - y0
    along = (u * dx + v * dy).clip(0, 40)
    return 2 * radius * chord(((u - along * dx) ** 2 + (v - along * dy) ** 2) / radius**2)


def _breasts(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Breasts, or the thin shadow of a man's pectoral muscles, cm."""
    if chest.breast:
        centre, low, a, b, depth = (
            7.8,
            0.62,
            6.0 + 0.3 * chest.breast,
            5.0 + 0.5 * chest.breast,
            chest.breast,
        )
    else:
        centre, low, a, b, depth = 8.5, 0.28, 6.0, 4.5, 1.0
    y0 = chest.apex + low * (chest.base - chest.apex) + 0.6 * depth
    u, v = (np.abs(x) - centre) / a, (y - y0) / b
    # A breast ends in a fold below and fades out above.
    v = np.where(v > 0, v * 1.25, v * 0.75)
    return depth * chord(u * u + v * v)


def _gas(chest: Chest, x: np.ndarray, y: np.ndarray, diaphragm: np.ndarray) -> np.ndarray:
    """Gas in the stomach under the left dome, cm."""
    a, b = 1.5 * chest.gas + 0.1, chest.gas + 0.1
    x0, y0 = (
        0.42 * chest.lung_half_width,
        chest.base - chest.raised[1] - chest.dome + 1.2 + 0.9 * chest.gas,
    )
    columns, rows = window(x, y, x0, y0, a, b)
    gas = np.zeros_like(x)
    part = chord(((x[rows, columns] - x0) / a) ** 2 + ((y[rows] - y0) / b) ** 2)
    below = ((y[rows] - diaphragm[rows, columns] - 0.5) / 0.4).clip(0, 1)
    level = ((y0 + 0.3 * b - y[rows]) / 0.3 + 0.5).clip(0, 1)  # of the fluid under it
    gas[rows, columns] = 1.8 * chest.gas * part * below * level
    return gas


def bowel_gas(chest: Chest, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gas in loops of bowel under the diaphragm, cm."""
    gas = np.zeros_like(x)
    for _ in range(rng.poisson(2.5)):
        x0, y0 = rng.uniform(-12, 12), chest.base - chest.dome + rng.uniform(4, 14)
        a, b = rng.uniform(0.6, 2.6), rng.uniform(0.5, 1.5)
        columns, rows = window(x, y, x0, y0, a, b)
        square = ((x[rows, columns] - x0) / a) ** 2 + ((y[rows, columns] - y0) / b) ** 2
        gas[rows, columns] += 1.6 * b * chord(square)
    return gas
