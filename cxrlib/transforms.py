"""Augmentation: of a sample with its boxes and masks, by paper, and of a whole batch at once.

:func:`augment` sends one sample through a transform of torchvision, and :func:`augmentation` names
each paper's. :func:`random_affine` and :func:`random_exposure` change a batch of images where it
lies, on the GPU too; they are for training on image labels, which needs no boxes.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as joint

from cxrlib.datasets.base import Sample
from cxrlib.parameters import nearest

DEGREES, SHIFT, ZOOM = 7.0, 0.05, 0.1
"""Largest rotation, shift (share of the side) and change of size where a paper names none."""


class _Masks(tv_tensors.Mask):
    """Masks that keep their place when resized: a pixel takes the value at its centre.

    torchvision's own masks take the value at the pixel's corner, which moves them by up to half a
    pixel against image and boxes (measured: edges one pixel off, with the rounding).
    """


@joint.register_kernel("resize", _Masks)
def _resize_masks(
    masks: _Masks, size: list[int], *, max_size: int | None = None, **kwargs: object
) -> _Masks:
    centred = InterpolationMode.NEAREST_EXACT
    return _Masks(joint.resize_image(masks.as_subclass(Tensor), size, centred, max_size))


@joint.register_kernel("resized_crop", _Masks)
def _crop_and_resize_masks(
    masks: _Masks, top: int, left: int, height: int, width: int, size: list[int], **kwargs: object
) -> _Masks:
    return _resize_masks(joint.crop(masks, top, left, height, width), size)


def augment(
    sample: Sample, transform: Callable[..., tuple[Tensor, Tensor, Tensor | None]]
) -> Sample:
    """Send image, boxes and masks of a sample through one transform, with one draw of its numbers.

    Boxes are cut off at the new frame. A box of which less than one pixel is left, in width or in
    height, is dropped together with its finding. The image labels stay: they are what the report
    says of the film. A rotated box becomes the upright box around it, so it grows; a rotated mask
    does not.

    Args:
        sample: as a dataset gives it.
        transform: of ``torchvision.transforms.v2``, such as :func:`augmentation` returns.

    Returns:
        the sample in its new frame; the image is clipped to 0 to 1.

    >>> image, labels = torch.zeros(1, 8, 8), torch.zeros(14)
    >>> box, finding = torch.tensor([[0.0, 1.0, 2.0, 4.0]]), torch.tensor([4])
    >>> sample = Sample(image, labels, box, finding, None, "00000001_000", "1")
    >>> augment(sample, v2.RandomHorizontalFlip(1.0)).boxes
    tensor([[6., 1., 8., 4.]])
    >>> augment(sample, v2.CenterCrop(4)).box_findings  # the box has left the frame
    tensor([], dtype=torch.int64)
    """
    image, boxes, masks = transform(
        tv_tensors.Image(sample.image),
        tv_tensors.BoundingBoxes(
            sample.boxes, format="XYXY", canvas_size=tuple(sample.image.shape[-2:])
        ),
        None if sample.masks is None else _Masks(sample.masks),
    )
    boxes, kept = joint.sanitize_bounding_boxes(joint.clamp_bounding_boxes(boxes), min_size=1)
    return dataclasses.replace(
        sample,
        image=image.as_subclass(Tensor).clamp(0, 1),  # bicubic resizing overshoots at edges
        boxes=boxes.as_subclass(Tensor),
        box_findings=sample.box_findings[kept],
        masks=None if masks is None else masks.as_subclass(Tensor),
    )


def augmentation(name: str, size: int) -> v2.Transform:
    """A paper's augmentation by name, for :func:`augment`.

    Args:
        name: a key of :data:`AUGMENTATIONS`.
        size: H = W of the result, pixels.

    Raises:
        ValueError: no such augmentation, or the size is not positive.

    >>> augmentation("ham", 512)(torch.rand(1, 600, 600)).shape
    torch.Size([1, 512, 512])
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"no augmentation {name!r}; {nearest(name, list(AUGMENTATIONS))}")
    if size < 1:
        raise ValueError(f"size is {size}; give the side of the result, at least 1 pixel")
    return AUGMENTATIONS[name](size)


def upright(size: int) -> v2.Transform:
    """Rotate, shift and zoom a little, never mirror; what comes from outside the image is black.

    Our reading for three papers. LSE-LBA (Yao 2018, 512 px) is said to use "standard data
    augmentation" by a summary of it; no source we could read says what attention mining (Cai 2018)
    or CLARiTy (Statheros 2025, 224 or 512 px) use.

    Args:
        size: H = W of the result, pixels.
    """
    return v2.Compose(
        [
            v2.Resize((size, size)),
            v2.RandomAffine(
                DEGREES,
                translate=(SHIFT, SHIFT),
                scale=(1 - ZOOM, 1 + ZOOM),
                interpolation=InterpolationMode.BILINEAR,
            ),
        ]
    )


def ham(size: int) -> v2.Transform:
    """Enlarge by 0 to 12 whole per cent, crop anywhere, mirror half of the images.

    Source: official code of HAM (Ouyang 2021), at 512 px.

    Args:
        size: H = W of the result, pixels.
    """
    sizes = [size * percent // 100 for percent in range(100, 113)]
    return v2.Compose(
        [
            v2.RandomChoice([v2.Resize((side, side)) for side in sizes]),
            v2.RandomCrop(size),
            v2.RandomHorizontalFlip(0.5),
        ]
    )


def pylon(size: int) -> v2.Transform:
    """Rotate by up to 90 degrees, crop 70 to 100 % of the area, mirror, change the exposure.

    Source: official code of PYLON (Preechakul 2022), at 256 px. Rotation and exposure change half
    of the images each. One departure, our reading: we rotate bilinearly, not bicubically,
    which torchvision lacks.

    Args:
        size: H = W of the result, pixels.
    """
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(90, InterpolationMode.BILINEAR)], 0.5),
            v2.RandomResizedCrop(
                size,
                scale=(0.7, 1),
                ratio=(3 / 4, 4 / 3),
                interpolation=InterpolationMode.BICUBIC,
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.Lambda(_change_exposure, tv_tensors.Image)], 0.5),
        ]
    )


def _change_exposure(image: Tensor) -> Tensor:
    """Half to one and a half times the contrast, and up to half the range brighter or darker."""
    contrast, brightness = torch.empty(2, device=image.device).uniform_(-0.5, 0.5)
    return (image * (1 + contrast) + brightness).clamp(0, 1)


AUGMENTATIONS: dict[str, Callable[[int], v2.Transform]] = {
    "lse_lba": upright,
    "attention_mining": upright,
    "ham": ham,
    "pylon": pylon,
    "clarity": upright,
}
"""Each paper's augmentation: side of the result, pixels -> transform."""

MIRRORING = frozenset({"ham", "pylon"})
"""The augmentations that mirror the chest, as their papers' code does; the others never do."""


def random_affine(
    images: Tensor, *, degrees: float = DEGREES, shift: float = SHIFT, zoom: float = ZOOM
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
