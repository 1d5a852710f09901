"""The 14 findings of the phantom, each after its radiological description.

Every function changes a scene's path lengths the way the disease would and returns the mask a
radiologist would outline. Descriptions: Hansell et al., *Fleischner Society: Glossary of Terms for
Thoracic Imaging*, Radiology 246:697-722, 2008; for edema, Gluecker et al., RadioGraphics
19:1507-1531, 1999; for collapse and effusion on supine films, Goodman, *Felson's Principles*, 2014.
The eight findings with official boxes take place and size from :mod:`cxrlib.phantom.targets`.
"""

import math
from collections.abc import Callable

import numpy as np

from cxrlib.phantom.brush import FLUID, Brush, Mask, cloud, placed
from cxrlib.phantom.chest import LUNG_DENSITY, cage, chord, rotate
from cxrlib.phantom.targets import Target


def atelectasis(brush: Brush) -> Mask:
    """Collapsed lung: plates across the bases, or a wedge with one sharp edge."""
    mask = brush.empty_mask()
    for target in brush.targets("Atelectasis"):
        plate = brush.rng.random() < min(0.9, 0.25 + 0.3 * target.a / target.b)
        mask |= (_plates if plate else _wedge)(brush, target)
    return mask


def _plates(brush: Brush, target: Target) -> Mask:
    """One to three bands of airless lung, a few millimetres to 2 cm thick."""
    scene, rng = brush.scene, brush.rng
    where, field = brush.window(target, 1.2), scene.fields[target.side]
    x, y = scene.x[where] - target.x, scene.y[where] - target.y
    mask = brush.empty_mask()
    ends = ((1.05 - np.abs(x) / target.a) / 0.4).clip(0, 1)
    for offset in np.linspace(-0.6, 0.6, rng.integers(1, 4)):
        slope = rng.uniform(-0.5, 0.5) * target.b / target.a
        thick = rng.uniform(0.12, 0.32) * target.b + 0.12
        d = y - offset * target.b - slope * x + 0.25 * scene.texture[where] * thick
        band = ends * np.exp(-((d / thick) ** 2))
        scene.tissue[where] += brush.contrast * rng.uniform(1.5, 3.6) * band * field[where]
        mask[where] |= (ends > 0.2) & (np.abs(d) < 1.5 * thick + 0.3)
    brush.fill(where, 0.22 * ends * np.exp(-((y / target.b) ** 2)), target.side)
    inside = (np.abs(x) < target.a) & (np.abs(y) < target.b)
    mask[where] |= inside & (np.abs(y) < 0.85 * target.b) & (np.abs(x) < 0.9 * target.a)
    return mask & field


def _wedge(brush: Brush, target: Target) -> Mask:
    """Airless lung that narrows towards the hilum, drawn flat by a fissure."""
    scene, rng = brush.scene, brush.rng
    where, field = brush.window(target, 1.3), scene.fields[target.side]
    opacity, inside = cloud(brush, target, where, ragged=0.15)
    x, y = scene.x[where] - target.x, scene.y[where] - target.y
    edge = rng.uniform(-0.3, 0.3) * target.b + rng.uniform(-0.4, 0.4) * x
    sharp = ((y - edge) / 0.25 + 0.5).clip(0, 1) * 0.7 + 0.3
    brush.fill(where, opacity * sharp * rng.uniform(0.4, 0.85), target.side)
    return placed(brush, where, inside, field)


def cardiomegaly(brush: Brush) -> Mask:
    """A heart wider than half of the thorax, after :func:`prepare`."""
    return brush.scene.heart.copy()


def effusion(brush: Brush) -> Mask:
    """Fluid that fills the costophrenic angle up to a meniscus; a veil over supine patients."""
    scene, rng, target = brush.scene, brush.rng, brush.plan["Effusion"]
    side, field = target.side, scene.fields[target.side]
    top, bottom = target.y - target.b, target.y + target.b
    inwards = scene.wall[side] - target.sign * scene.x  # cm from the chest wall
    # The meniscus climbs along the wall and sinks towards the heart.
    level = top + 1.5 * target.b * (inwards / (2.4 * target.a)).clip(0, 1.6) ** 0.8
    depth = scene.y - level
    veil = scene.chest.ap * rng.uniform(0.1, 0.35)  # layered out behind the lung
    layer = (depth / (0.9 * target.b + 1.0)).clip(0, 1) * (rng.uniform(0.6, 0.95) - veil)
    haze = veil * ((scene.y - top) / max(bottom - top, 1)).clip(0, 1)
    everywhere = (slice(None), slice(None))
    brush.fill(everywhere, layer + haze, side)
    return field & (depth > 0.02 * target.b) & (inwards < 2.6 * target.a)


def infiltration(brush: Brush) -> Mask:
    """Faint, patchy, ill-defined opacity."""
    return _opacities(brush, "Infiltration", ragged=0.5, low=0.22, high=0.6)


def pneumonia(brush: Brush) -> Mask:
    """Air-space opacity with aerated islands left in it."""
    return _opacities(brush, "Pneumonia", ragged=0.55, low=0.3, high=0.75)


def consolidation(brush: Brush) -> Mask:
    """Homogeneous opacity of a segment, sharp where a fissure bounds it, bronchi dark within."""
    scene, rng = brush.scene, brush.rng
    mask = brush.empty_mask()
    for _ in range(brush.foci or 1):
        target = brush.place("Pneumonia")
        where, field = brush.window(target, 1.3), scene.fields[target.side]
        opacity, inside = cloud(brush, target, where, ragged=0.12)
        x, y = scene.x[where] - target.x, scene.y[where] - target.y
        sign, slope = 1 - 2 * int(rng.integers(2)), rng.uniform(-0.3, 0.3)
        cut = ((sign * (y - slope * x) + 0.55 * target.b) / 0.3 + 0.5).clip(0, 1)
        angle = math.atan2(y.mean() + 4, target.sign * 5)
        _, across = rotate(x, y, angle)
        bronchi = 0.2 * np.exp(-(((np.abs(across + 0.2 * np.sin(1.3 * x)) - 0.6) / 0.12) ** 2))
        brush.fill(where, opacity * cut * (rng.uniform(0.55, 0.85) - bronchi), target.side)
        mask |= placed(brush, where, inside & (cut > 0.5), field)
    return mask


def mass(brush: Brush) -> Mask:
    """A round opacity over 3 cm, lobulated or spiculated."""
    return _balls(brush, "Mass", lobes=0.10)


def nodule(brush: Brush) -> Mask:
    """One to a few round opacities under 3 cm, now and then calcified."""
    return _balls(brush, "Nodule", lobes=0.04)


def pneumothorax(brush: Brush) -> Mask:
    """Air without vessels between chest wall and a thin pleural line, widest at the apex."""
    scene, rng = brush.scene, brush.rng
    chest, target = scene.chest, brush.place("Pneumothorax")
    side, field = target.side, scene.fields[target.side]
    top, low = target.y - target.b, target.y + target.b
    inwards, y = target.sign * scene.x, scene.y[:, :1]
    apical = top < chest.apex + 0.38 * (chest.base - chest.apex)
    if apical:
        fall = rng.uniform(0.15, 0.45) * min(2 * target.b, 9)
        gap = (
            rng.uniform(0.15, 0.5)
            * target.a
            * ((low - y) / (low - chest.apex + 0.1)).clip(0, 1) ** 0.6
        )
        sunk = cage(chest, y - fall * ((low - y) / 6).clip(0, 1)) - cage(chest, y)
        lung_edge = scene.wall[side] + sunk - gap
        lung_edge = np.where(y - fall < chest.apex - 0.3, 0.0, lung_edge)
        reach = scene.y < low
    else:
        gap = 1.2 * target.a * chord(((y - target.y) / (1.1 * target.b)) ** 2)
        lung_edge = scene.wall[side] - gap
        reach = np.abs(scene.y - target.y) < target.b
    mask = field & (inwards > lung_edge) & reach
    soft = max(0.07, 0.6 * scene.pixel)
    slope = np.sqrt(1 + np.gradient(lung_edge[:, 0], scene.pixel)[:, None].clip(-4, 4) ** 2)
    line = np.exp(-(((inwards - lung_edge) / (soft * slope)) ** 2)) * field * reach
    emptied = min(brush.contrast * rng.uniform(0.5, 0.95), 1.0)  # of the lung in front and behind
    scene.tissue += brush.contrast * 0.09 / soft * line - emptied * LUNG_DENSITY * scene.lung * mask
    # The lung that is left holds less air.
    scene.tissue += 0.08 * brush.contrast * scene.lung * (field & ~mask) * min(target.a, 4) / 4
    scene.vessels[mask] = 0
    return mask


def edema(brush: Brush) -> Mask:
    """Haze around both hila, the bat's wings, with wide vessels and septal lines."""
    scene, rng, chest = brush.scene, brush.rng, brush.scene.chest
    strength, mask = rng.uniform(0.15, 0.5), brush.empty_mask()
    middle = chest.apex + rng.uniform(0.5, 0.75) * (chest.base - chest.apex)
    everywhere = (slice(None), slice(None))
    patchy = 1 + 0.35 * brush.noise(16)
    lines = np.abs(np.sin(2 * np.pi * (scene.y + 0.1 * scene.x) / 0.8 + brush.noise(24))) > 0.93
    for side, sign in enumerate((-1, 1)):
        u = (sign * scene.x - rng.uniform(4.0, 6.0)) / (brush.size * rng.uniform(3.5, 5.0))
        v = (scene.y - middle - rng.normal(0, 1)) / (brush.size * rng.uniform(4.5, 7.0))
        haze = np.exp(-(u * u + v * v))
        brush.fill(everywhere, strength * haze * patchy, side)
        scene.vessels *= 1 + 0.5 * brush.contrast * haze
        here = (haze > 0.33) & scene.fields[side]
        far = (sign * scene.x / scene.wall[side] - 0.8).clip(0, 0.2) / 0.2
        scene.tissue += brush.contrast * 0.25 * far * (lines & here & (scene.y > middle))
        mask |= here
    return mask


def emphysema(brush: Brush) -> Mask:
    """Destroyed lung: lucent, poor in vessels, with thin-walled bullae, after :func:`prepare`."""
    scene, rng, chest = brush.scene, brush.rng, brush.scene.chest
    mask = brush.empty_mask()
    sides = [(0, 1), (0, 1), (0,), (1,)][rng.integers(4)]
    for side in sides:
        depth = chest.apex + rng.uniform(0.35, 0.7) * (chest.base - chest.apex)
        upper = scene.fields[side] & (scene.y < depth)
        fade = ((depth - scene.y) / 3).clip(0, 1) * scene.fields[side]
        scene.vessels *= 1 - 0.6 * min(brush.contrast, 1.5) * fade
        scene.tissue -= 0.07 * brush.contrast * scene.lung * fade
        for _ in range(rng.integers(0, 4)):
            radius = brush.size * rng.uniform(1.0, 2.8)
            x0, y0 = (2 * side - 1) * rng.uniform(4, 10), rng.uniform(chest.apex + 2, depth)
            square = ((scene.x - x0) / radius) ** 2 + ((scene.y - y0) / (1.2 * radius)) ** 2
            shell = np.exp(-(((square - 1) * radius / 0.3) ** 2)) * scene.fields[side]
            scene.tissue += brush.contrast * (
                0.25 * shell - 0.03 * scene.lung * chord(square) * upper
            )
        mask |= upper
    return mask


def fibrosis(brush: Brush) -> Mask:
    """Coarse reticulation with lost volume, at the bases and periphery, or over an apex."""
    scene, rng, chest = brush.scene, brush.rng, brush.scene.chest
    sides = [(0,), (1,), (0, 1)][rng.integers(3)]
    apical = rng.random() < 0.3
    mask = brush.empty_mask()
    middle = chest.apex + (0.15 if apical else rng.uniform(0.65, 0.9)) * (chest.base - chest.apex)
    mesh = np.zeros_like(scene.lung)
    for angle in rng.uniform(0, np.pi, 4):
        _, across = rotate(scene.x, scene.y, float(angle))
        wave = np.sin(2 * np.pi * across / rng.uniform(0.9, 1.8) + 1.2 * scene.texture)
        mesh = np.maximum(mesh, (3 * np.abs(wave) - 2).clip(0, 1))
    for side in sides:
        u = (scene.wall[side] - (2 * side - 1) * scene.x) / (brush.size * rng.uniform(4, 8))
        v = (scene.y - middle) / (brush.size * rng.uniform(3.0, 6.0))
        extent = np.exp(-(u * u + v * v)) * scene.fields[side]
        scene.tissue += brush.contrast * rng.uniform(1.2, 2.6) * extent * (0.3 + mesh)
        mask |= extent > 0.4
    return mask


def pleural_thickening(brush: Brush) -> Mask:
    """A rind of soft tissue along the lateral chest wall or over an apex."""
    scene, rng, chest = brush.scene, brush.rng, brush.scene.chest
    side = int(rng.integers(2))
    thick = brush.size * rng.uniform(0.6, 1.8)
    inwards = scene.wall[side] - (2 * side - 1) * scene.x
    if rng.random() < 0.4:
        along = (scene.y - chest.apex) / (brush.size * rng.uniform(2.0, 4.0))
        rind = (1.2 - along).clip(0, 1)
    else:
        middle = chest.apex + rng.uniform(0.3, 0.95) * (chest.base - chest.apex)
        bulge = thick * chord(((scene.y - middle) / (brush.size * rng.uniform(3.0, 7.0))) ** 2)
        rind = ((bulge - inwards) / 0.3 + 0.5).clip(0, 1) * (bulge > 0)
    rind = rind * scene.fields[side]
    scene.tissue += brush.contrast * rng.uniform(2.0, 4.5) * rind
    return rind > 0.3


def hernia(brush: Brush) -> Mask:
    """A hiatal hernia: a round shadow behind the heart, often with gas over a fluid level."""
    scene, rng, chest = brush.scene, brush.rng, brush.scene.chest
    radius = brush.size * rng.uniform(2.0, 4.0)
    x0 = rng.uniform(-1.5, 3.5)
    y0 = chest.base - chest.dome + 0.4 - rng.uniform(0.2, 0.7) * radius
    square = ((scene.x - x0) / radius) ** 2 + ((scene.y - y0) / (0.85 * radius)) ** 2
    through = 2 * radius * chord(square)
    level = y0 + rng.uniform(-0.4, 0.3) * radius
    gas = ((level - scene.y) / 0.15 + 0.5).clip(0, 1) * (rng.random() < 0.7)
    shell = np.exp(-(((square - 1) * radius / 0.4) ** 2))
    scene.tissue += brush.contrast * (0.3 * through * (1 - 2.0 * gas) + 0.3 * shell)
    return square < 1


LESIONS: dict[str, Callable[[Brush], Mask]] = {
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


def _opacities(brush: Brush, name: str, ragged: float, low: float, high: float) -> Mask:
    mask = brush.empty_mask()
    for target in brush.targets(name):
        where, field = brush.window(target, 1.3), brush.scene.fields[target.side]
        opacity, inside = cloud(brush, target, where, ragged)
        brush.fill(where, opacity * brush.rng.uniform(low, high), target.side)
        mask |= placed(brush, where, inside, field)
    return mask


def _balls(brush: Brush, name: str, lobes: float) -> Mask:
    """Spheres of soft tissue where lung was."""
    scene, rng, mask = brush.scene, brush.rng, brush.empty_mask()
    for target in brush.targets(name):
        where = brush.window(target, 1.3)
        u, v = (scene.x[where] - target.x) / target.a, (scene.y[where] - target.y) / target.b
        angle = np.arctan2(v, u)
        edge = 1 + lobes * np.sin(rng.integers(3, 7) * angle + rng.uniform(0, 6)) * rng.random()
        square = (u * u + v * v) / edge**2 + 0.10 * lobes * brush.noise(60)[where]
        through = 2 * min(target.a, target.b) * chord(square)
        # A ball with a rim: its density rises faster at the edge than a perfect ball's.
        rise = (through / 1.2).clip(0, 1)
        calcified = 1.6 if name == "Nodule" and rng.random() < 0.12 else 1.0
        gain = FLUID * calcified * (0.8 * through.clip(None, 5) + 0.9 * rise)
        scene.tissue[where] += brush.contrast * gain * scene.fields[target.side][where]
        mask |= placed(brush, where, square < 1, scene.fields[target.side])
    return mask
