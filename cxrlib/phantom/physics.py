"""Physics of the phantom: path lengths to a displayed radiograph.

Beer-Lambert attenuation at one effective energy, scatter, focal blur, quantum noise, logarithmic
detector, display processing. Attenuation of soft tissue and cortical bone at 60 keV: NIST XCOM
(Hubbell & Seltzer, NISTIR 5632), mass attenuation 0.2048 and 0.3148 cm2/g at densities 1.06 and
1.92 g/cm3 (ICRU Report 44).
"""

import numpy as np
from scipy import ndimage

from cxrlib.phantom.chest import FIELD, LUNG_DENSITY, Scene, resample

MU_TISSUE = 0.2048 * 1.06
"""Linear attenuation of soft tissue, 1/cm."""
MU_BONE = 0.3148 * 1.92
"""Linear attenuation of cortical bone, 1/cm."""

PHOTONS = 1.5e8
"""Photons per square centimetre of the open beam at dose 1.

Behind an average chest, which lets a twentieth through, that is the 2.5 µGy of a speed class 400
detector at 30,000 photons per mm2 and µGy (IEC 62220-1, beam quality RQA5).
"""

SCATTER = {False: 1.0, True: 1.8}
"""Scatter-to-primary ratio of the thickest parts: upright behind a grid, and in bed (AP)."""

_COARSE = 32  # scatter and shading are smooth: computed on so few pixels


def radiograph(scene: Scene, rng: np.random.Generator, dose: float = 1.0) -> np.ndarray:
    """The image a detector and its display make of a scene.

    Args:
        scene: path lengths, (size, size).
        rng: draws exposure, noise and display settings.
        dose: photons relative to a usual exposure, above 0.

    Returns:
        uint8 (size, size); dense is bright.
    """
    size = len(scene.lung)
    signal = primary(scene)
    # Its own stream: how many numbers the noise takes depends on the size, the display must not.
    reader = np.random.default_rng(rng.integers(2**63))
    signal = signal + scatter(scene, signal)
    blur = (0.045 if scene.chest.ap else 0.02) / scene.pixel  # focal spot, motion and detector
    if blur > 0.25:  # less than that is lost in the pixel itself
        signal = ndimage.gaussian_filter(signal, blur, truncate=3)
    photons = PHOTONS * dose * reader.uniform(0.5, 1.5) * (FIELD / size) ** 2
    # A Poisson count this large is Gaussian to all appearances, and far quicker to draw.
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + noise * np.sqrt(signal / np.float32(photons))
    return display(-np.log(signal.clip(1e-4, None)), reader)


def primary(scene: Scene) -> np.ndarray:
    """Share of the photons that pass straight through, float32 (size, size)."""
    inside = (scene.lung / 3).clip(0, 1)  # vessels show where there is air around them
    # Lumps alone are too smooth: lobules in the lung, and skin and linen everywhere, are finer.
    lung = scene.lung * (LUNG_DENSITY + 0.025 * scene.texture + 0.018 * scene.grain)
    lung += scene.vessels * inside + 0.05 * scene.grain
    water = (scene.tissue + lung).clip(0, None)
    return np.exp(-(MU_TISSUE * water + MU_BONE * scene.bone + scene.device)).astype(np.float32)


def scatter(scene: Scene, primary: np.ndarray) -> np.ndarray:
    """Scattered photons: a veil that follows how much the neighbourhood transmits and weighs."""
    thickness = resample(scene.tissue, _COARSE).clip(0, None) / (scene.chest.depth + 5)
    source = resample(primary, _COARSE) * thickness * thickness
    veil = ndimage.gaussian_filter(source, 0.1 * _COARSE, mode="nearest")
    return SCATTER[scene.chest.ap] * resample(veil, len(primary)).clip(0, None)


def display(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a reader sees: shading evened out, windowed by percentiles, an S-shaped curve; uint8.

    Departments differ in all of it, so strength, window and curve are drawn anew for each image.
    """
    size = len(density)
    shading = ndimage.gaussian_filter(
        resample(density, 2 * _COARSE), rng.uniform(4, 9), mode="nearest"
    )
    evened = density + rng.uniform(0, 1.1) * (density - resample(shading, size))
    body = evened[:: max(1, size // 64), :: max(1, size // 64)]
    low, high = np.percentile(body, [rng.uniform(0.5, 8), rng.uniform(97.5, 99.9)])
    level = ((evened - low) / max(high - low, 1e-3)).clip(0, 1.15)
    level = level ** np.float32(np.exp(rng.normal(0.42, 0.3)))
    steep = rng.uniform(0.3, 2.2)
    curve = 0.5 + 0.5 * np.tanh(steep * (level - 0.5)) / np.tanh(0.5 * steep)
    floor, top = rng.uniform(0, 25), rng.uniform(200, 250)
    return (floor + (top - floor) * curve).clip(0, 255).astype(np.uint8)
