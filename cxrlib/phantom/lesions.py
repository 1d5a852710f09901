"""The 14 findings of the phantom: each changes a scene's path lengths and says at which pixels.

Appearance after the Fleischner Society's glossary (Hansell et al., Radiology 2008) and Goodman's
*Felson's Principles of Chest Roentgenology*. Lengths in cm. Every function takes the scene and a
random generator, changes the scene in place and returns its mask, bool (size, size).
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from cxrlib.phantom.anatomy import LUNG_DENSITY, Chest, Scene

Mask = np.ndarray
ALVEOLAR = 0.85
"""Share of the lung's air that a dense consolidation replaces by fluid."""


def enlarge_heart(chest: Chest, rng: np.random.Generator) -> None:
    """Cardiomegaly: a cardiothoracic ratio above one half, mostly to the left."""
    chest.heart_a = chest.lung_half_width * rng.uniform(0.56, 0.70)
    chest.heart_b *= rng.uniform(1.1, 1.3)
    chest.heart_x += 0.22 * chest.heart_a


def hyperinflate(chest: Chest, rng: np.random.Generator) -> None:
    """Emphysema: low, flat diaphragms and a deep chest."""
    chest.base += rng.uniform(0.3, 1.2)
    chest.dome *= rng.uniform(0.4, 0.8)
    chest.depth *= 1.05
    chest.heart_a *= 0.93


BEFORE: dict[str, Callable[[Chest, np.random.Generator], None]] = {
    "Cardiomegaly": enlarge_heart,
    "Emphysema": hyperinflate,
}
"""Findings that change the anatomy itself, before it is projected."""


def atelectasis(scene: Scene, rng: np.random.Generator) -> Mask:
    """A plate or wedge of collapsed lung in a lower zone."""
    side = int(rng.integers(2))
    x0, y0 = _place(scene, rng, side, low=0.5, high=0.95)
    angle = rng.normal(0, 0.35)
    u, v = _rotate(scene.x - x0, scene.y - y0, angle)
    half = rng.uniform(0.5, 1.3) * (1 + 0.12 * u)
    profile = np.clip(1 - (v / half) ** 2, 0, 1) * np.clip(
        1 - (u / rng.uniform(2.8, 4.5)) ** 2, 0, 1
    )
    return _fill(scene, np.sqrt(profile) * 1.3, scene.fields[side], rng.uniform(0.65, 0.95))


def cardiomegaly(scene: Scene, rng: np.random.Generator) -> Mask:
    """The enlarged silhouette itself; :func:`enlarge_heart` has made it."""
    return scene.heart.copy()


def effusion(scene: Scene, rng: np.random.Generator) -> Mask:
    """Fluid that fills the costophrenic angle and climbs the chest wall in a meniscus."""
    side = int(rng.integers(2))
    outwards = np.abs(scene.x) / scene.chest.lung_half_width
    level = scene.chest.base - rng.uniform(3.0, 9.0) - rng.uniform(2.5, 5) * (outwards - 0.6)
    return _fill(scene, np.clip((scene.y - level) / 1.2, 0, 1), scene.fields[side], 0.95)


def infiltration(scene: Scene, rng: np.random.Generator) -> Mask:
    """Faint, patchy, ill-defined opacity."""
    side = int(rng.integers(2))
    cloud = _cloud(
        scene, rng, _place(scene, rng, side, 0.25, 0.9), rng.uniform(2.6, 4.8), ragged=0.35
    )
    return _fill(scene, cloud, scene.fields[side], rng.uniform(0.4, 0.55))


def mass(scene: Scene, rng: np.random.Generator) -> Mask:
    """A round opacity over 3 cm, sometimes lobulated."""
    return _ball(scene, rng, rng.uniform(1.7, 3.4), lobes=0.07)


def nodule(scene: Scene, rng: np.random.Generator) -> Mask:
    """One to three round opacities under 3 cm."""
    balls = [
        _ball(scene, rng, rng.uniform(0.9, 1.5), lobes=0.04) for _ in range(rng.integers(1, 4))
    ]
    return np.logical_or.reduce(balls)


def pneumonia(scene: Scene, rng: np.random.Generator) -> Mask:
    """Patchy air-space opacity with aerated islands left in it."""
    side = int(rng.integers(2))
    cloud = _cloud(
        scene, rng, _place(scene, rng, side, 0.3, 0.95), rng.uniform(2.6, 4.4), ragged=0.75
    )
    return _fill(scene, cloud, scene.fields[side], rng.uniform(0.45, 0.65))


def pneumothorax(scene: Scene, rng: np.random.Generator) -> Mask:
    """Air without vessels between the chest wall and a thin pleural line, widest at the apex."""
    side = int(rng.integers(2))
    chest, sign = scene.chest, 2 * side - 1
    size = rng.uniform(0.74, 0.9)
    across = (sign * scene.x - 2.5) / ((chest.lung_half_width - 2.5) * size)
    upwards = (chest.base + 1 - scene.y) / ((chest.base + 1 - chest.apex) * (size + 0.04))
    radius = np.abs(across) ** 2.6 + np.clip(upwards, 0, None) ** 2.6
    mask = scene.fields[side] & (radius > 1)
    line = scene.fields[side] * np.exp(-(((radius - 1) / 0.03) ** 2))
    scene.tissue += 0.9 * line - 2.2 * mask
    scene.vessels = np.where(mask, 0, scene.vessels)
    return mask


def consolidation(scene: Scene, rng: np.random.Generator) -> Mask:
    """Homogeneous opacity of a segment, sharp where a fissure bounds it."""
    side = int(rng.integers(2))
    x0, y0 = _place(scene, rng, side, 0.3, 0.9)
    cloud = _cloud(scene, rng, (x0, y0), rng.uniform(3.0, 4.6), ragged=0.12)
    fissure = y0 + rng.uniform(-0.5, 1.5) + rng.normal(0, 0.1) * (scene.x - x0)
    half = scene.y < fissure if rng.random() < 0.5 else scene.y > fissure - 2
    return _fill(scene, cloud * half, scene.fields[side], ALVEOLAR)


def edema(scene: Scene, rng: np.random.Generator) -> Mask:
    """Haze around both hila, the bat's wings, with thickened vessels."""
    strength = rng.uniform(0.35, 0.55)
    mask = np.zeros_like(scene.heart)
    for side in (0, 1):
        u = (np.abs(scene.x) - rng.uniform(5.0, 6.5)) / rng.uniform(3.6, 4.8)
        v = (scene.y - rng.uniform(-3, 4)) / rng.uniform(4.0, 6.0)
        haze = np.exp(-(u**2 + v**2)) * (1 + 0.3 * scene.texture)
        mask |= _fill(scene, np.clip(1.3 * haze - 0.1, 0, 1), scene.fields[side], strength)
    scene.vessels = scene.vessels * 1.7
    return mask


def emphysema(scene: Scene, rng: np.random.Generator) -> Mask:
    """Destroyed lung: lucent, thin-walled bullae without vessels, after :func:`hyperinflate`."""
    mask = np.zeros_like(scene.heart)
    for _ in range(rng.integers(2, 5)):
        side, radius = int(rng.integers(2)), rng.uniform(1.8, 3.6)
        x0, y0 = _place(scene, rng, side, 0.05, 0.6)
        square = ((scene.x - x0) / radius) ** 2 + (
            (scene.y - y0) / (radius * rng.uniform(0.8, 1.4))
        ) ** 2
        bulla = (square < 1) & scene.fields[side]
        wall = np.exp(-(((square - 1) / 0.15) ** 2)) * scene.fields[side]
        scene.tissue += 0.9 * wall - np.where(bulla, 0.2 * scene.lung, 0)
        mask |= bulla
    scene.vessels = np.where(mask, 0, scene.vessels)
    return mask


def fibrosis(scene: Scene, rng: np.random.Generator) -> Mask:
    """Coarse reticulation, in one lung or both, mostly towards the bases and the periphery."""
    sides = [(0,), (1,), (0, 1)][rng.integers(3)]
    where = np.logical_or.reduce([scene.fields[side] for side in sides])
    u = (np.abs(scene.x) - rng.uniform(7, 10)) / rng.uniform(3.0, 4.5)
    v = (scene.y - rng.uniform(-5, 7)) / rng.uniform(3.0, 5.0)
    extent = where * np.clip(1.6 * np.exp(-(u**2 + v**2)), 0, 1)
    mesh = np.zeros_like(scene.lung)
    for angle in rng.uniform(0, np.pi, 4):
        across, _ = _rotate(scene.x, scene.y, angle)
        wave = np.sin(2 * np.pi * across / rng.uniform(1.8, 2.6) + 0.8 * scene.texture)
        mesh = np.maximum(mesh, np.clip(2.2 * np.abs(wave) - 1.2, 0, 1))
    scene.tissue += rng.uniform(3.0, 4.0) * extent * mesh
    return extent > 0.4


def pleural_thickening(scene: Scene, rng: np.random.Generator) -> Mask:
    """A soft-tissue rind along the lateral chest wall or over an apex."""
    side = int(rng.integers(2))
    field, width = scene.fields[side], rng.uniform(0.9, 1.9)
    shift = max(1, round(width / (scene.x[0, 1] - scene.x[0, 0])))
    inner = np.roll(field, (shift // 2, (1 - 2 * side) * shift), axis=(0, 1))
    centre = rng.uniform(scene.chest.apex + 1, 5)
    rind = (
        field & ~inner & (np.abs(scene.x) > 4) & (np.abs(scene.y - centre) < rng.uniform(3.5, 6.5))
    )
    scene.tissue += rng.uniform(4.0, 6.0) * rind
    return rind


def hernia(scene: Scene, rng: np.random.Generator) -> Mask:
    """A hiatal hernia: a round shadow behind the heart with gas over a fluid level."""
    radius = rng.uniform(2.0, 4.2)
    x0, y0 = rng.uniform(-2.5, 4.0), scene.chest.base - scene.chest.dome - 0.35 * radius
    square = ((scene.x - x0) / radius) ** 2 + ((scene.y - y0) / (0.85 * radius)) ** 2
    chord = 2 * radius * np.sqrt(np.clip(1 - square, 0, None))
    level = y0 + rng.uniform(-0.3, 0.3) * radius
    gas = scene.y < level
    wall = np.exp(-(((square - 1) / 0.12) ** 2))
    scene.tissue += np.where(gas, -0.8 * chord, 0.8 * chord) + 1.5 * wall
    return square < 1


LESIONS: dict[str, Callable[[Scene, np.random.Generator], Mask]] = {
    "Atelectasis": atelectasis,
    "Cardiomegaly": cardiomegaly,
    "Effusion": effusion,
    "Infiltration": infiltration,
    "Mass": mass,
    "Nodule": nodule,
    "Pneumonia": pneumonia,
    "Pneumothorax": pneumothorax,
    "Consolidation": consolidation,
    "Edema": edema,
    "Emphysema": emphysema,
    "Fibrosis": fibrosis,
    "Pleural_Thickening": pleural_thickening,
    "Hernia": hernia,
}
"""Every finding's drawing, in the order of :data:`cxrlib.findings.FINDINGS`."""


def _place(
    scene: Scene, rng: np.random.Generator, side: int, low: float, high: float
) -> tuple[float, float]:
    """A point in a lung, between two heights: 0 the apex, 1 the base."""
    chest = scene.chest
    height = rng.uniform(low, high)
    y = chest.apex + height * (chest.base - 0.6 * chest.dome - chest.apex)
    wall = chest.lung_half_width * min(1.0, 0.35 + 1.1 * height) - 2
    return (2 * side - 1) * rng.uniform(3.8, max(wall, 4.2)), y


def _rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _cloud(
    scene: Scene,
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: float,
    ragged: float,
) -> np.ndarray:
    """A blob of opacity 0 to 1 whose edge and inside follow the lung's texture."""
    u, v = _rotate(scene.x - centre[0], scene.y - centre[1], rng.uniform(0, np.pi))
    square = (u / radius) ** 2 + (v / (radius * rng.uniform(0.7, 1.25))) ** 2
    return np.clip(1.6 * (1 - square) + ragged * scene.texture, 0, 1) * np.clip(1.5 - square, 0, 1)


def _fill(scene: Scene, opacity: np.ndarray, where: np.ndarray, density: float) -> Mask:
    """Replace a share of the air by fluid: opacity 0 to 1 times density."""
    filled = np.clip(opacity, 0, 1) * where
    scene.tissue += (1 - LUNG_DENSITY) * density * filled * scene.lung
    # The mask of a radiologist, not of the texture: what the opacity covers, small holes included.
    return ndimage.uniform_filter(filled, max(3, len(filled) // 40)) > 0.25


def _ball(scene: Scene, rng: np.random.Generator, radius: float, lobes: float) -> Mask:
    """A sphere of soft tissue in a random place of a lung."""
    side = int(rng.integers(2))
    x0, y0 = _place(scene, rng, side, 0.15, 0.95)
    u, v = scene.x - x0, scene.y - y0
    angle = np.arctan2(v, u)
    edge = radius * (1 + lobes * np.sin(rng.integers(3, 6) * angle + rng.uniform(0, 6)))
    square = (u**2 + v**2) / edge**2
    chord = 2 * min(radius, 2.4) * np.sqrt(np.clip(1 - square, 0, None))
    # Denser than the lung around it, and a little flatter in profile than a ball.
    scene.tissue += (1 - LUNG_DENSITY) * (chord + 3.0 * (square < 1))
    return square < 1
