"""Four maps without a model, which every localization table carries beside it.

A number means little before one knows what noise scores (``random``), what a spot in the middle of
the image scores (``centre_prior``), what knowing only where a finding usually sits scores
(``location_prior``), and what a perfect map on so coarse a grid scores (``grid_ceiling``).
"""

import math
import zlib

import numpy as np
import torch

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.localization import Frames, frames_of, of_pairs
from cxrlib.metrics.regions import upsample

PRIOR_GRID = 64
CENTRE_SIGMA = 0.25
"""Standard deviation of the spot in the middle, as a share of the image side (our choice)."""


def controls(truth: Truth, grid: int, size: int, seed: int = 0) -> dict[str, Frames]:
    """The four controls as sources of maps.

    Args:
        truth: the P pairs.
        grid: side of the model's maps, for noise and ceiling; the priors have their own grid.
        size: S, side of the frame in pixels.
        seed: of the noise.

    Returns:
        control -> maps on the frame, for :func:`~cxrlib.metrics.localization.measure`.
    """
    return {
        "random": random_maps(truth, grid, size, seed),
        "centre_prior": centre_prior(size),
        "location_prior": location_prior(truth, size),
        "grid_ceiling": of_pairs(grid_ceiling_maps(truth, grid), truth, size),
    }


def random_maps(truth: Truth, grid: int, size: int, seed: int = 0) -> Frames:
    """Independent uniform noise for each image and finding, with a margin of one cell.

    Bilinear upsampling mixes neighbouring cells everywhere but at the rim, which is why the maximum
    of noise that ends at the frame lies on its edge nearly always: noise would point worse than
    chance and flatter every model beside it. With the margin it points by area. The noise of an
    image depends on its name and not on its place among the others.
    """
    cell = math.ceil(size / grid)

    def frame(image: int, finding: int, aligned: bool) -> np.ndarray:
        name = str(truth.dataset.image_ids[image]).encode()
        rng = np.random.default_rng([seed, zlib.crc32(name), finding])
        noise = rng.random((grid + 2, grid + 2), np.float32)
        return upsample(noise, size + 2 * cell)[cell:-cell, cell:-cell]

    return frame


def centre_prior(size: int) -> Frames:
    """A round Gaussian spot in the middle, the same for every image and finding."""
    across = (np.arange(size) + 0.5) / size - 0.5
    profile = np.exp(-((across / CENTRE_SIGMA) ** 2) / 2).astype(np.float32)
    spot = np.outer(profile, profile)
    return lambda image, finding, aligned: spot


def location_prior(truth: Truth, size: int, grid: int = PRIOR_GRID) -> Frames:
    """The mean mask of the same finding in all *other* patients.

    Leaving the patient out keeps the truth that is scored from predicting itself. NaN for an image
    and finding that no other patient has: there is no prior, so the pair is left out of this
    control's numbers (their ``n`` shows it).
    """
    # In float64, so that taking a patient's own masks off the sum leaves no trace in float32.
    masks = grid_ceiling_maps(truth, grid).astype(float)
    total = np.zeros((len(FINDINGS), grid, grid))
    np.add.at(total, truth.finding, masks)
    count = np.bincount(truth.finding, minlength=len(FINDINGS))
    own: dict[tuple[str, int], list[int]] = {}
    for pair, key in enumerate(zip(truth.patient.tolist(), truth.finding.tolist(), strict=True)):
        own.setdefault(key, []).append(pair)

    def prior(image: int, finding: int) -> np.ndarray:
        pairs = own.get((str(truth.dataset.patient_ids[image]), finding), [])
        others = count[finding] - len(pairs)
        if not others:
            return np.full((grid, grid), np.nan)
        return ((total[finding] - masks[pairs].sum(axis=0)) / others).clip(0, 1)

    return frames_of(prior, size)


def grid_ceiling_maps(truth: Truth, grid: int) -> np.ndarray:
    """The truth itself, averaged over each cell of a grid: float32 (P, grid, grid), 0 to 1.

    It scores below 1 wherever the grid is too coarse for the finding: a nodule of 70 px in a 1024
    px frame is about one cell of a 16 × 16 grid.
    """
    chunks = torch.arange(len(truth)).split(64) if len(truth) else ()
    masks = [truth.masks(pairs.numpy(), grid).numpy() for pairs in chunks]
    return np.concatenate(masks) if masks else np.zeros((0, grid, grid), np.float32)
