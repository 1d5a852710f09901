"""Physics of the phantom: path lengths to a displayed radiograph.

Beer-Lambert attenuation with one effective energy, a scatter veil, quantum noise, logarithmic
detector, display curve. Attenuation of soft tissue and cortical bone at 60 keV: NIST XCOM (Hubbell
& Seltzer, NISTIR 5632), mass attenuation 0.2048 and 0.3148 cm2/g at densities 1.06 and 1.92 g/cm3.
"""

import numpy as np
from scipy import ndimage

from cxrlib.phantom.anatomy import FIELD, LUNG_DENSITY, Scene, resample

MU_TISSUE = 0.2048 * 1.06
"""Linear attenuation of soft tissue, 1/cm."""
MU_BONE = 0.3148 * 1.92
"""Linear attenuation of cortical bone, 1/cm."""

SCATTER = 1.0
"""Scatter-to-primary ratio behind a grid, where lung and mediastinum average out."""
DOSE = 4e6
"""Photons that reach a square centimetre of the detector through nothing."""


def radiograph(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The image a detector and display make of a scene.

    Args:
        scene: path lengths, (size, size).
        rng: draws exposure, noise and display window.

    Returns:
        uint8 (size, size); dense is bright.
    """
    size = len(scene.lung)
    inflated = scene.lung * (LUNG_DENSITY + 0.02 * scene.texture) + scene.vessels * (
        scene.lung > 0.5
    )
    water = np.clip(scene.tissue + inflated, 0, None)
    primary = np.exp(-MU_TISSUE * water - MU_BONE * scene.bone)
    # A ray scatters in proportion to what it crosses: the open beam beside the body adds no veil.
    scattered = resample(primary * water / scene.chest.depth, 32)
    veil = resample(ndimage.gaussian_filter(scattered, 3.0, mode="nearest"), size)
    signal = (primary + SCATTER * np.clip(veil, 0, None)).astype(np.float32)
    photons = DOSE * rng.uniform(0.5, 1.5) * (FIELD / size) ** 2
    # A Poisson count this large is Gaussian to all appearances, and far quicker to draw.
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + noise * np.sqrt(signal / photons)
    return display(-np.log(np.clip(signal, 1e-4, None)), rng)


def display(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Window an image between its own percentiles and apply an S-shaped display curve, uint8."""
    low, high = np.percentile(density[::4, ::4], [1.5, 98.5])
    level = np.clip((density - low) / max(high - low, 1e-3), -0.2, 1.2)
    level = level * rng.uniform(0.9, 1.1) + rng.uniform(-0.05, 0.05)
    return np.clip(255 * (0.5 + 0.5 * np.tanh(1.5 * (level - 0.5)) / np.tanh(0.9)), 0, 255).astype(
        np.uint8
    )
