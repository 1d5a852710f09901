"""Where a map points, pair by pair: one number for each (image, finding) that has a box.

A map of any grid is upsampled bilinearly (``align_corners=False``) to the frame, S × S pixels, and
compared with the truth there. Boxes are half-open in continuous pixel coordinates: the pixel in
column j spans j to j + 1 and its centre is j + 1/2. Only pairs that are present are scored.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import Estimate, mean_over_findings, patient_weights, ratio

PairMetric = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(maps (k, S, S), masks (k, S, S), boxes (k, K, 4) as fractions, NaN = no box) -> float (k,)."""

# Interpolating a plateau rounds it, by some 1e-7; a slope differs by more from pixel to pixel.
_ROUNDING = 1e-6
_CHUNK_PIXELS = 2**24


def pointing(maps: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    """Pointing game without tolerance: is the centre of the highest pixel inside a box?

    Where several pixels share the maximum (a constant map, a saturated plateau) the value is the
    fraction of them that is inside, the expectation of a random choice; taking the first would
    always point at the upper left. Zhang et al., "Top-down neural attention by excitation
    backprop", IJCV 2018, with zero tolerance as in PYLON.

    >>> maps = torch.zeros(1, 4, 4)
    >>> boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5]]])
    >>> pointing(maps, maps, boxes)  # all pixels are the maximum, a quarter is inside
    tensor([0.2500])
    """
    highest = maps.amax(dim=(1, 2), keepdim=True)
    peak = maps >= highest * (1 - _ROUNDING)
    return (peak & _inside(boxes, maps.shape[-1])).sum(dim=(1, 2)) / peak.sum(dim=(1, 2))


def continuous_dice(maps: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    """2 Σ S G / (Σ S + Σ G) of the unthresholded map S and the truth's coverage G.

    Yao et al., "Weakly supervised medical diagnosis and localization from multiple resolutions",
    2018.

    >>> half = torch.full((1, 4, 4), 0.5)
    >>> continuous_dice(half, torch.ones(1, 4, 4), torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]))
    tensor([0.6667])
    """
    total = maps.sum(dim=(1, 2)) + masks.sum(dim=(1, 2))
    return 2 * (maps * masks).sum(dim=(1, 2)) / total.clamp_min(torch.finfo(total.dtype).tiny)


def iou_half(maps: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of {S >= max(S) / 2} and {G >= 1/2}; 0 for an all-zero map.

    A truth so small that it covers no pixel by half counts every pixel it touches.

    >>> left = torch.tensor([[[1.0, 0.2], [0.6, 0.2]]])
    >>> iou_half(left, torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), torch.zeros(1, 1, 4))
    tensor([0.3333])
    """
    highest = maps.amax(dim=(1, 2), keepdim=True)
    predicted = (maps >= highest / 2) & (highest > 0)
    covered = masks >= 0.5
    true = torch.where(covered.any(dim=2).any(dim=1)[:, None, None], covered, masks > 0)
    union = (predicted | true).sum(dim=(1, 2))
    return (predicted & true).sum(dim=(1, 2)) / union.clamp_min(1)


METRICS: dict[str, PairMetric] = {
    "pointing": pointing,
    "continuous_dice": continuous_dice,
    "iou@0.5": iou_half,
}
"""Every localization metric by the name it has in ``metrics.json``; higher is better."""


def score_pairs(maps: Tensor, truth: Truth, size: int) -> dict[str, np.ndarray]:
    """Every metric of every pair.

    Args:
        maps: float (P, h, w), 0 to 1, the map of each pair of ``truth``, on any grid.
        truth: the P pairs.
        size: S, side of the frame in pixels.

    Returns:
        metric -> float32 (P,).

    Raises:
        ValueError: the number of maps is not the number of pairs, or a value is not in 0 to 1.
    """
    _check(maps, truth)
    return score_frames(lambda pairs: upsample(maps[pairs], size), truth, size)


def score_frames(
    frames: Callable[[np.ndarray], Tensor], truth: Truth, size: int
) -> dict[str, np.ndarray]:
    """Like :func:`score_pairs`, of maps that ``frames`` makes when they are needed.

    Args:
        frames: int (k,) indices of pairs -> float32 (k, S, S), 0 to 1.
        truth: the P pairs.
        size: S, side of the frame in pixels.
    """
    values = {name: np.empty(len(truth), np.float32) for name in METRICS}
    for pairs in chunks(len(truth), size):
        masks = truth.masks(pairs, size)  # (k, S, S)
        boxes = torch.from_numpy(truth.boxes[pairs])  # (k, K, 4)
        maps = frames(pairs)  # (k, S, S)
        for name, metric in METRICS.items():
            values[name][pairs] = metric(maps, masks, boxes).numpy()
    return values


def summarise(
    values: np.ndarray, truth: Truth, replicates: int = 1000, seed: int = 0
) -> dict[str, Estimate | dict[str, Estimate]]:
    """Mean per finding, over findings and over pairs, with patient-clustered 95 % intervals.

    Args:
        values: float (P,), one metric of every pair of ``truth``; NaN is left out.
        truth: the P pairs.
        replicates: of the bootstrap.
        seed: of the bootstrap; the same for every metric, so that their draws are the same.

    Returns:
        ``{"macro": Estimate, "micro": Estimate, "per_finding": {name: Estimate}}``: macro is the
        mean over the findings present, micro over the pairs. ``n`` is the number of pairs; a
        finding without any is NaN with n = 0.
    """
    resamples = patient_weights(truth.patient, replicates, seed)
    defined = np.flatnonzero(~np.isnan(values))
    finding, rows = truth.finding[defined], len(FINDINGS)
    pairs = resamples.gather(finding, rows, defined)  # (14, patients)
    total = resamples.gather(finding, rows, defined, values[defined])
    sums, n = resamples.apply(lambda counts: np.stack([total @ counts, pairs @ counts]))
    means = ratio(sums, n)  # (14, 1 + R)
    return {
        "macro": Estimate.of(mean_over_findings(means), len(defined)),
        "micro": Estimate.of(ratio(sums.sum(axis=0), n.sum(axis=0)), len(defined)),
        "per_finding": {
            name: Estimate.of(mean, int(count))
            for name, mean, count in zip(FINDINGS, means, n[:, 0], strict=True)
        },
    }


def chunks(pairs: int, size: int) -> list[np.ndarray]:
    """Indices of the pairs, at most 64 and at most 2^24 pixels at a time.

    >>> [chunk.tolist() for chunk in chunks(3, 4096)]
    [[0], [1], [2]]
    """
    step = max(1, min(64, _CHUNK_PIXELS // size**2))
    return [np.arange(start, min(start + step, pairs)) for start in range(0, pairs, step)]


def upsample(maps: Tensor, size: int) -> Tensor:
    """Maps (k, h, w) on a frame: float32 (k, size, size), bilinear, ``align_corners=False``."""
    shape = (size, size)
    return torch.nn.functional.interpolate(maps[:, None].float(), shape, mode="bilinear")[:, 0]


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Which pixels have their centre in any of the boxes (k, K, 4): bool (k, size, size)."""
    centre = torch.arange(size, device=boxes.device) + 0.5
    edges = boxes[..., None] * size  # (k, K, 4, 1); NaN edges contain nothing
    across = (edges[:, :, 0] <= centre) & (centre < edges[:, :, 2])  # (k, K, size)
    down = (edges[:, :, 1] <= centre) & (centre < edges[:, :, 3])
    # A sum over boxes, not an "any": no (k, K, size, size) in memory.
    return torch.einsum("bkh,bkw->bhw", down.float(), across.float()) > 0


def _check(maps: Tensor, truth: Truth) -> None:
    if maps.ndim != 3 or len(maps) != len(truth):
        raise ValueError(
            f"maps have shape {tuple(maps.shape)}, expected ({len(truth)}, h, w): one map for each "
            "(image, finding) pair of the truth"
        )
    outside = int((~((maps >= 0) & (maps <= 1))).sum())  # NaN is neither
    if outside:
        raise ValueError(f"{outside} of {maps.numel()} map values are NaN or not in 0 to 1")
