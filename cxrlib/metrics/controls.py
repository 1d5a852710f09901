"""Three maps without a model, which every localization table carries beside it.

A number means little before one knows what noise scores (``random``), what knowing only where a
finding usually sits scores (``location_prior``), and what a perfect map on so coarse a grid scores
(``grid_ceiling``).
"""

import math

import numpy as np
import torch
from torch import Tensor

from cxrlib.datasets.base import Truth
from cxrlib.metrics.localization import chunks, score_frames, score_pairs, upsample

PRIOR_GRID = 64


def random_maps(truth: Truth, grid: int, seed: int = 0) -> Tensor:
    """Independent uniform noise for each pair, with a margin of one cell around the frame.

    Bilinear upsampling mixes neighbouring cells everywhere but at the rim, which is why the maximum
    of noise that ends at the frame lies on its edge nearly always: noise would point worse than
    chance and flatter every model beside it. With the margin it points by area.

    Returns:
        float32 (P, grid + 2, grid + 2).
    """
    side = grid + 2
    return torch.rand(len(truth), side, side, generator=torch.Generator().manual_seed(seed))


def _without_margin(noise: Tensor, size: int) -> Tensor:
    """Noise (k, g + 2, g + 2) on a frame of g × g cells: float32 (k, size, size)."""
    cell = math.ceil(size / (noise.shape[-1] - 2))
    return upsample(noise, size + 2 * cell)[:, cell:-cell, cell:-cell]


def grid_ceiling_maps(truth: Truth, grid: int) -> Tensor:
    """The truth itself, averaged over each cell of a grid: float32 (P, grid, grid), 0 to 1.

    It scores below 1 wherever the grid is too coarse for the finding: a nodule of 70 px in a 1024
    px frame is about one cell of a 16 × 16 grid.
    """
    masks = [truth.masks(pairs, grid) for pairs in chunks(len(truth), grid)]
    return torch.cat(masks) if masks else torch.zeros(0, grid, grid)


def location_prior_maps(truth: Truth, grid: int = PRIOR_GRID) -> Tensor:
    """The mean mask of the same finding in all *other* patients, for each pair.

    Leaving the patient out keeps the truth that is scored from predicting itself.

    Returns:
        float32 (P, grid, grid), 0 to 1; NaN for a pair whose finding no other patient has: there
        is no prior, so the pair is left out of this control's numbers (their ``n`` shows it).
    """
    priors = grid_ceiling_maps(truth, grid)
    for finding in np.unique(truth.finding):
        pairs = np.flatnonzero(truth.finding == finding)
        _, patient = np.unique(truth.patient[pairs], return_inverse=True)
        priors[pairs] = _mean_of_others(priors[pairs], torch.from_numpy(patient))
    return priors


def _mean_of_others(masks: Tensor, patient: Tensor) -> Tensor:
    """For each of the masks (m, g, g) the mean of those of other patients; NaN if there are none.

    In float64, so that taking a patient's own masks off the sum leaves no trace in float32.
    """
    masks = masks.double()
    patients = int(patient.max()) + 1
    own = masks.new_zeros(patients, *masks.shape[1:]).index_add(0, patient, masks)
    others = len(masks) - patient.bincount()[:, None, None]
    mean = (own.sum(dim=0) - own).clamp_min(0) / others  # (patients, g, g); 0 / 0 is NaN
    return mean.clamp_max(1)[patient].float()


def score_controls(
    truth: Truth, grid: int, size: int, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Every metric of every pair for the three controls.

    Args:
        truth: the P pairs.
        grid: side of the model's maps, for noise and ceiling; the prior has its own grid.
        size: S, side of the frame in pixels.
        seed: of the noise.

    Returns:
        control -> metric -> float32 (P,); NaN where there is no location prior.
    """
    noise, prior = random_maps(truth, grid, seed), location_prior_maps(truth)
    without = prior.isnan().all(dim=2).all(dim=1).numpy()
    controls = {
        "random": score_frames(lambda pairs: _without_margin(noise[pairs], size), truth, size),
        "location_prior": score_pairs(prior.nan_to_num(0.0), truth, size),
        "grid_ceiling": score_pairs(grid_ceiling_maps(truth, grid), truth, size),
    }
    for values in controls["location_prior"].values():
        values[without] = np.nan
    return controls
