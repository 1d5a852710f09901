"""Anatomy of the phantom: how much lung, soft tissue and bone each ray through a chest crosses.

All lengths are centimetres in the plane of a 36 cm x 36 cm detector, x to the patient's left (the
image's right), y downwards, origin in the middle. Shapes are analytic, so the same chest can be
drawn at any number of pixels.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

FIELD = 36.0
"""Side of the detector, cm."""

LUNG_DENSITY = 0.26
"""Density of inflated lung relative to soft tissue (ICRU Report 44: 0.26 g/cm3)."""


@dataclass
class Chest:
    """One patient's chest on one day, in cm; by default an average adult at full inspiration."""

    half_width: float = 18.5  # of the trunk
    depth: float = 21.0  # front to back
    lung_half_width: float = 14.0
    apex: float = -14.5
    base: float = 10.5  # level of the lowest lung, laterally
    dome: float = 3.6  # height of the diaphragm's dome over that
    heart_x: float = 1.6
    heart_y: float = 5.2
    heart_a: float = 5.6  # half the transverse diameter
    heart_b: float = 5.6
    rib_spacing: float = 3.1
    rib_phase: float = 0.0
    breast: float = 0.0  # thickness
    rotation: float = 0.0  # of the patient, shifts the mediastinum
    gas: float = 1.5  # radius of the stomach bubble
    shift_x: float = 0.0  # of the detector against the chest
    shift_y: float = 0.0
    zoom: float = 1.0  # field of view, relative


def draw_chest(patient: np.random.Generator, visit: np.random.Generator) -> Chest:
    """Draw a patient's build and, from a second generator, what differs from image to image."""
    build = patient.normal(size=12)
    day = visit.normal(size=7)
    scale = 1 + 0.05 * np.clip(build[0], -2, 2)
    female = patient.random() < 0.45
    return Chest(
        half_width=18.5 * scale + 0.8 * build[1],
        depth=21 + 2.2 * np.clip(build[2], -2, 2),
        lung_half_width=14 * scale + 0.4 * build[3],
        apex=-14.5 + 0.7 * build[4] + 0.4 * day[0],
        base=10.5 + 0.9 * build[5] + 0.7 * day[1],
        dome=3.6 + 0.5 * build[6] - 0.3 * day[1],
        heart_x=1.6 + 0.3 * build[7],
        heart_y=5.2 + 0.5 * build[8] + 0.5 * day[1],
        heart_a=5.6 * scale + 0.35 * np.clip(build[9], -2, 2),
        heart_b=5.6 + 0.35 * np.clip(build[10], -2, 2),
        rib_spacing=3.1 + 0.15 * build[11],
        rib_phase=patient.uniform(0, 1),
        breast=max(0.0, 2.5 + 0.8 * build[1]) if female else 0.0,
        rotation=0.6 * day[2],
        gas=max(0.0, 1.5 + 0.8 * day[3]),
        shift_x=0.8 * day[4],
        shift_y=1.0 * day[5],
        zoom=1 + 0.05 * np.clip(day[6], -2, 2),
    )


@dataclass
class Scene:
    """Path lengths in cm on the detector, each float32 (size, size), and where the organs are.

    Lesions change ``lung`` and ``tissue``; physics reads them.

    Attributes:
        x, y: coordinates of the pixels' centres, cm.
        lung: of aerated lung.
        tissue: of soft tissue outside the lung's own density; negative where air replaces it.
        bone: of bone.
        vessels: of blood in the lung's vessels.
        fields: bool, the lung fields in projection (right, left), the part over the diaphragm.
        heart: bool, the cardiac silhouette.
    """

    chest: Chest
    x: np.ndarray
    y: np.ndarray
    lung: np.ndarray
    tissue: np.ndarray
    bone: np.ndarray
    vessels: np.ndarray
    fields: tuple[np.ndarray, np.ndarray]
    heart: np.ndarray
    texture: np.ndarray = field(repr=False)

    @property
    def lungs(self) -> np.ndarray:
        """Both lung fields, bool (size, size)."""
        return self.fields[0] | self.fields[1]


def project(chest: Chest, rng: np.random.Generator, size: int) -> Scene:
    """Path lengths through a healthy chest.

    Args:
        chest: the patient.
        rng: draws vessels and lung texture.
        size: pixels per side.

    Returns:
        the scene, arrays float32 (size, size).
    """
    centre = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * FIELD
    x = np.broadcast_to(centre[None] * chest.zoom + chest.shift_x, (size, size))
    y = np.broadcast_to(centre[:, None] * chest.zoom + chest.shift_y, (size, size))
    diaphragm = tuple(_diaphragm(chest, x[:1], side) for side in (-1, 1))
    edges = [
        _lung_edge(chest, x, y, side, level) for side, level in zip((-1, 1), diaphragm, strict=True)
    ]
    air = sum(_lung_depth(chest, edge) for edge in edges)
    rho2 = ((x - chest.heart_x - chest.rotation) / chest.heart_a) ** 2 + _tilted(chest, x, y) ** 2
    heart_depth = 1.7 * chest.heart_a * np.sqrt(np.clip(1 - rho2, 0, None))
    air = np.clip(air - heart_depth, 0, None)
    texture = _smooth_noise(rng, 40, size) + 0.6 * _smooth_noise(rng, 90, size)
    return Scene(
        chest=chest,
        x=x,
        y=y,
        lung=air,
        tissue=_trunk(chest, x, y, diaphragm) - air,
        bone=_spine(chest, x, y) + _ribs(chest, x, y) + _clavicles(chest, x, y),
        vessels=_vessels(chest, rng, size),
        fields=(edges[0] > 0, edges[1] > 0),
        heart=(rho2 < 1) & (y < chest.base + 2),
        texture=texture,
    )


def _tilted(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The heart's long axis points down and to the left."""
    return (y - chest.heart_y - 0.12 * (x - chest.heart_x)) / chest.heart_b


def _diaphragm(chest: Chest, x: np.ndarray, side: int) -> np.ndarray:
    """Level of the diaphragm; the right dome stands higher, over the liver."""
    centre = 0.52 * chest.lung_half_width
    dome = chest.dome + (0.7 if side < 0 else -0.3)
    return chest.base - dome * np.clip(
        1 - ((side * x - centre) / (0.55 * chest.lung_half_width)) ** 2, -2, 1
    )


def _lung_edge(
    chest: Chest, x: np.ndarray, y: np.ndarray, side: int, diaphragm: np.ndarray
) -> np.ndarray:
    """Distance in cm to the edge of a lung, positive inside."""
    across = side * (x - 0.3 * chest.rotation)
    height = np.clip((y - chest.apex) / (chest.base + 1 - chest.apex), 0, 1)
    # The chest wall: narrow at the apex, widest in the lower third.
    wall = chest.lung_half_width * np.sqrt(
        np.clip(1 - (1 - np.clip(height, 0, 0.72) / 0.72) ** 2.3, 0, 1)
    )
    shadows = 2.2 + 1.0 * np.exp(-(((y - 0.5) / 3) ** 2))  # mediastinum and hilum
    if side > 0:
        shadows = shadows + 0.9 * np.exp(-(((y + 6.5) / 1.6) ** 2))  # aortic knob
    medial = across - shadows - side * chest.rotation * 0.5
    return np.minimum.reduce([wall - across, medial, diaphragm - y, y - chest.apex])


def _lung_depth(chest: Chest, edge: np.ndarray) -> np.ndarray:
    """Front-to-back depth of a lung, thinning towards its edge like a rounded body."""
    inside = np.clip(edge / 4.5, 0, 1)
    return 0.66 * chest.depth * np.sqrt(inside * (2 - inside))


def _trunk(chest: Chest, x: np.ndarray, y: np.ndarray, diaphragm: tuple) -> np.ndarray:
    """Depth of the body: trunk, shoulders and neck, breasts, stomach bubble."""
    neck = 6.5 + 12.5 * np.clip((y + 19.5) / 5.5, 0, 1) ** 0.8
    half = np.minimum(chest.half_width + 1.2 * np.clip(-(y + 6) / 6, 0, 1), neck + 3)
    u = np.abs(x) / half
    depth = (
        chest.depth * np.sqrt(np.clip(1 - u**4, 0, 1)) * (1 - 0.28 * np.clip(-(y + 9) / 10, 0, 1))
    )
    for side in (-1, 1):
        fat = 1 - ((x - side * 8) / 6.5) ** 2 - ((y - 6) / 5.5) ** 2
        depth = depth + chest.breast * np.sqrt(np.clip(fat, 0, None))
    gas = (
        1
        - ((x - 6.5) / (1.4 * chest.gas + 0.1)) ** 2
        - ((y - chest.base + 0.2) / (chest.gas + 0.1)) ** 2
    )
    under = np.clip((y - diaphragm[1] - 0.5) / 0.5, 0, 1)
    return depth - 2.2 * chest.gas * np.sqrt(np.clip(gas, 0, None)) * under


def _spine(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u = (x - 0.2 * chest.rotation) / 1.9
    body = np.sqrt(np.clip(1 - u**4, 0, None))
    disc = 0.75 + 0.25 * np.cos(2 * np.pi * (y / 2.7 + chest.rib_phase))
    return 0.8 * body * disc


def _ribs(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Hollow posterior and anterior ribs: the cortex shows as two bright lines."""
    a = np.abs(x)
    inside = np.clip((chest.lung_half_width + 0.8 - a) / 1.0, 0, 1) * np.clip(
        (y + 14.5) / 1.5, 0, 1
    )
    inside = inside * np.clip((chest.base + 4 - y) / 3, 0, 1)
    posterior = _hollow(y + 0.55 * a - 0.075 * a**2 + 0.0018 * a**3, chest, 0.62)
    anterior = _hollow(y - 0.9 * (a - 6) + 0.5 * chest.rib_spacing, chest, 0.75)
    front = np.clip((a - 4.5) / 2.5, 0, 1) * np.clip((y + 10) / 4, 0, 1)
    return inside * (np.clip((a - 1.5) / 1, 0, 1) * posterior + 0.55 * front * anterior)


def _hollow(along: np.ndarray, chest: Chest, half: float) -> np.ndarray:
    u = along / chest.rib_spacing + chest.rib_phase
    across = (u - np.round(u)) * chest.rib_spacing
    outer = np.sqrt(np.clip(half**2 - across**2, 0, None))
    inner = np.sqrt(np.clip((half - 0.16) ** 2 - across**2, 0, None))
    return 1.1 * (outer - 0.8 * inner)


def _clavicles(chest: Chest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a = np.abs(x - 0.5 * chest.rotation)
    level = chest.apex + 3.0 - 0.22 * a + 0.7 * np.sin(a / 3.2)
    u = (y - level) / 0.65
    ends = np.clip((a - 1.5) / 0.8, 0, 1) * np.clip((15 - a) / 2, 0, 1)
    return 0.9 * ends * np.sqrt(np.clip(1 - u**2, 0, None))


_CANVAS = 512  # vessels are drawn once at this size, then averaged down, so all sizes agree


def _vessels(chest: Chest, rng: np.random.Generator, size: int) -> np.ndarray:
    """Branching pulmonary vessels: random walks outwards from the hila that split and thin."""
    image = Image.new("F", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(image)
    for side in (-1, 1):
        hilum = (side * 3.2, 0.5)
        for angle in np.linspace(-1.35, 1.35, 9) + rng.normal(0, 0.1, 9):
            _branch(draw, chest, rng, hilum, side * angle + (math.pi if side < 0 else 0), 0.62)
    blurred = ndimage.gaussian_filter(np.asarray(image), 0.8) * 1.6
    return resample(blurred, size)


def _branch(
    draw: ImageDraw.ImageDraw,
    chest: Chest,
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    diameter: float,
) -> None:
    scale = _CANVAS / FIELD / chest.zoom
    middle = _CANVAS / 2
    while diameter > 0.12:
        length = 2.0 + 2.2 * diameter
        angle += 0.22 * rng.standard_normal()
        end = (start[0] + length * math.cos(angle), start[1] + length * math.sin(angle))
        line = [
            (middle + scale * (x - chest.shift_x), middle + scale * (y - chest.shift_y))
            for x, y in (start, end)
        ]
        draw.line(line, fill=diameter, width=max(1, round(diameter * scale)))
        start, diameter = end, diameter * 0.80
        if diameter > 0.16:
            turn = math.copysign(0.5 + 0.4 * rng.random(), rng.random() - 0.5)
            _branch(draw, chest, rng, start, angle + turn, diameter * 0.72)


def _smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Noise of unit variance, correlated over FIELD / cells cm, the same at every size."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return resample(coarse, size) * 1.3


def resample(values: np.ndarray, size: int) -> np.ndarray:
    """Resize a float32 field: average where it shrinks, interpolate where it grows."""
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
