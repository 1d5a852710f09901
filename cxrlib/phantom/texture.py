"""Texture of the phantom's lungs: branching vessels and a stochastic background."""

import functools
import math

import numpy as np
from scipy import fft

from cxrlib.phantom.chest import FIELD, Chest, resample
from cxrlib.phantom.skeleton import detector

_GRID = 256  # of the background
_ANGLES = 4


def clustered_lumps(rng: np.random.Generator, size: int) -> np.ndarray:
    """Clustered lumpy background, the established model of mammographic and lung texture.

    Clusters fall at random; each holds a Poisson number of lumps of one direction around its
    centre. A lump is ``exp(-α |u|^β / L(direction))``. Source: Bochud, Abbey, Eckstein,
    *Statistical texture synthesis of mammographic images with clustered lumpy backgrounds*, Opt.
    Express 4:33-43, 1999, whose α = 2.1, β = 0.5 and axis ratio 5 : 2 are used, at lengths for a
    36 cm field.

    Args:
        rng: draws the lumps.
        size: pixels per side of the result.

    Returns:
        float32 (size, size), zero mean and unit variance over the field.
    """
    clusters = rng.poisson(260)
    lumps = rng.poisson(14, clusters)
    angle = np.repeat(rng.integers(_ANGLES, size=clusters), lumps)
    centre = np.repeat(rng.uniform(0, _GRID, (clusters, 2)), lumps, axis=0)
    column, row = ((centre + rng.normal(0, 9, centre.shape)).astype(int) % _GRID).T
    place = (angle * _GRID + row) * _GRID + column
    hits = np.bincount(place, minlength=_ANGLES * _GRID**2).astype(np.float32)
    spectrum = (fft.rfft2(hits.reshape(_ANGLES, _GRID, _GRID)) * _lumps()).sum(axis=0)
    field = fft.irfft2(spectrum, s=(_GRID, _GRID))
    field = (field - field.mean()) / field.std()
    return resample(field, size)


@functools.cache
def _lumps() -> np.ndarray:
    """Fourier transforms of a lump in each direction, complex64 (angles, grid, grid / 2 + 1)."""
    steps = fft.fftfreq(_GRID, 1 / _GRID)
    u, v = np.meshgrid(steps, steps)
    kernels = []
    for angle in np.arange(_ANGLES) * math.pi / _ANGLES:
        along, across = (
            u * math.cos(angle) + v * math.sin(angle),
            v * math.cos(angle) - u * math.sin(angle),
        )
        radius = np.hypot(u, v).clip(1e-3, None)
        # Distance from the centre to the rim of an ellipse of half axes 5 and 2 pixels.
        rim = 10 / np.hypot(2 * along / radius, 5 * across / radius).clip(2, None)
        kernels.append(np.exp(-2.1 * np.sqrt(radius) / rim))
    return fft.rfft2(np.array(kernels, np.float32))


def vessels(chest: Chest, patient: np.random.Generator, size: int) -> np.ndarray:
    """Blood along each ray in the lung's vessels, cm: trees that branch and thin from the hila.

    At a fork the cubes of the two diameters add up to the cube of the parent's (Murray, PNAS
    12:207, 1926). A vessel is a ridge along its axis with a Gaussian profile.

    Args:
        chest: the patient.
        patient: draws the trees, the same at every visit.
        size: pixels per side.

    Returns:
        float32 (size, size).
    """
    start, turn, diameter, length = _trees(chest, patient)
    side = 256 if size <= 256 else 512
    step = 0.5 * FIELD / side  # cm between points along an axis
    points = np.ceil(length / step).astype(int)
    along = (np.arange(points.sum()) - np.repeat(points.cumsum() - points, points)) * step
    axis = np.repeat(np.stack([np.cos(turn), np.sin(turn)], 1), points, axis=0)
    at = np.repeat(start, points, axis=0) + along[:, None] * axis
    column, row = (detector(chest, at) * side).astype(int).T
    width = np.searchsorted(_WIDTHS, np.repeat(diameter, points)).clip(None, len(_WIDTHS) - 1)
    seen = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    place = (width * side + row) * side + column
    hits = np.bincount(place[seen], minlength=len(_WIDTHS) * side**2).astype(np.float32)
    spectrum = fft.rfft2(hits.reshape(len(_WIDTHS), side, side)) * _ridges(side)
    return resample(fft.irfft2(spectrum.sum(axis=0), s=(side, side)), size)


_WIDTHS = np.array([0.14, 0.21, 0.33, 0.52, 0.8, 1.3])
"""Upper bounds of the classes of vessels, by diameter, cm."""


@functools.cache
def _ridges(side: int) -> np.ndarray:
    """Fourier transforms of the profile around a point of an axis, for each class of vessels."""
    u = fft.fftfreq(side, FIELD / side)[:, None] ** 2 + fft.rfftfreq(side, FIELD / side) ** 2
    step, pixel = 0.5 * FIELD / side, FIELD / side
    sigma = 0.85 * _WIDTHS[:, None, None] / 3
    # One point stands for a step of a cylinder: its volume per area of a pixel.
    volume = math.pi / 4 * _WIDTHS[:, None, None] ** 2 * step / pixel**2
    return (volume * np.exp(-2 * math.pi**2 * sigma**2 * u)).astype(np.float32)


def _trees(chest: Chest, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """All segments by generation: starts (n, 2), directions, diameters, lengths; in cm."""
    level = chest.apex + 0.5 * (chest.base - chest.apex)
    fan = np.linspace(-1.4, 1.5, 7)
    hila = np.array([(side * 3.0, level + (0.4 if side < 0 else -0.6)) for side in (-1, 1)])
    start = np.repeat(hila, len(fan), axis=0) + rng.normal(0, 0.5, (2 * len(fan), 2))
    turn = np.concatenate([math.pi - fan, fan]) + rng.normal(0, 0.12, 2 * len(fan))
    # Gravity fills the bases: their vessels are wider.
    diameter = np.tile(1.05 + 0.2 * np.sin(fan), 2) * rng.uniform(0.8, 1.2, 2 * len(fan))
    parts = []
    while len(start):
        length = (0.9 + 1.5 * diameter) * rng.uniform(0.7, 1.4, len(start))
        parts.append((start, turn, diameter, length))
        start = start + length[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
        share = rng.uniform(0.1, 0.5, len(start))  # of the smaller child, by cubed diameter
        side = np.where(rng.random(len(start)) < 0.5, 1, -1)
        away = rng.uniform(0.35, 0.95, len(start))
        turn = np.concatenate([turn + 0.2 * side, turn - away * side])
        turn += rng.normal(0, 0.12, len(turn))
        diameter = 0.93 * np.concatenate(
            [diameter * (1 - share) ** (1 / 3), diameter * share ** (1 / 3)]
        )
        start = np.concatenate([start, start])
        alive = (diameter > 0.1) & (np.abs(start[:, 0]) < chest.lung_half_width + 1)
        start, turn, diameter = start[alive], turn[alive], diameter[alive]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
