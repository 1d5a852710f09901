"""Training augmentation, one random transform per image, computed for the whole batch at once."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_affine(
    images: Tensor, *, degrees: float = 7, shift: float = 0.05, zoom: float = 0.1
) -> Tensor:
    """Rotate, shift and zoom every image by its own random amount; never mirror.

    A mirrored chest has its heart on the right: an anatomy the labels do not describe.

    Args:
        images: float (B, C, H, W).
        degrees: largest rotation.
        shift: largest shift, as a fraction of the side.
        zoom: largest relative change of size.

    Returns:
        float (B, C, H, W); what comes from outside the image repeats its border.

    >>> random_affine(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """
    angle, scale, across, down = torch.empty(4, len(images), device=images.device).uniform_(-1, 1)
    angle, scale = angle * math.radians(degrees), 1 + scale * zoom
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack(  # (B, 2, 3); the grid spans -1 to 1, so a shift of s sides is 2 s
        [
            torch.stack([cos, -sin, 2 * shift * across], 1),
            torch.stack([sin, cos, 2 * shift * down], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images), padding_mode="border", align_corners=False)


def random_exposure(images: Tensor, *, gamma: float = 0.35, noise: float = 0.03) -> Tensor:
    """Bend the greys of every image by its own random power and add its own amount of noise.

    Args:
        images: float (B, C, H, W), 0 to 1.
        gamma: the exponent lies between exp(-gamma) and exp(gamma).
        noise: largest standard deviation.

    Returns:
        float (B, C, H, W), not clipped.

    >>> random_exposure(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """
    power, amount = torch.rand(2, len(images), 1, 1, 1, device=images.device)
    bent = images.clamp(1e-3, 1) ** torch.exp((2 * power - 1) * gamma)
    return bent + noise * amount * torch.randn_like(images)
