"""ResNet encoders through timm, and one kind of normalization for a whole network."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

from torch import Tensor, nn
from tqdm import TqdmWarning

from cxrlib.parameters import nearest

Normalization = Literal["batch", "group"]

STRIDE = 32
"""Pixels to a cell of an encoder's coarsest features, unless a smaller stride is asked for."""

STRIDES = (4, 8, 16, 32)
"""Pixels to a cell of a ResNet's features, stage by stage."""

GROUPS = 32
"""Of channels in group normalization, as in Wu & He 2018 (arXiv:1803.08494)."""

RESNETS = ("resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152")
"""timm's ResNets of the plain kind (He et al. 2016)."""


def resnet(
    name: str,
    width: int,
    pretrained: bool,
    *,
    in_chans: int = 1,
    output_stride: int = STRIDE,
    strides: Sequence[int] = STRIDES,
    stem: int | None = None,
) -> Any:
    """A ResNet of timm, which returns features at some strides, none above the largest.

    Args:
        name: in timm; a tag after a dot names the weights, ``"resnet50.tv_in1k"``.
        width: channels of the first stage's blocks, 64 as published, doubled in each further one;
            a multiple of 16. The stem always has 64.
        pretrained: load the tag's weights from the local cache of Hugging Face or else from its
            hub; for one channel the stem's are summed over colours.
        in_chans: channels of the images.
        output_stride: the largest stride, 8, 16 or 32; below 32 the last stages are dilated.
        strides: of the features, among :data:`STRIDES`, ascending; what is coarser than the last
            is left out of the network.
        stem: channels of three 3 x 3 convolutions instead of the published 7 x 7 with 64, half of
            it in the first two; even, not with pretrained weights. A small one is twice as fast.

    Raises:
        ValueError: timm has no such ResNet, or the width, the stem or a stride is not possible.
        OSError: the weights are neither in the cache nor can they be downloaded.

    >>> resnet("resnet18", 16, pretrained=False).feature_info.channels()
    [16, 32, 64, 128]
    """
    arguments = encoder_arguments(name, width, pretrained)
    if not strides or list(strides) != sorted(set(strides) & set(STRIDES)):
        raise ValueError(f"strides = {strides}; some of {STRIDES}, ascending, were expected")
    if stem is not None:
        if pretrained or stem < 2 or stem % 2:
            raise ValueError(
                f"stem = {stem} with pretrained={pretrained}; an even number from 2 up without "
                "pretrained weights was expected, or None"
            )
        arguments |= {"stem_type": "deep", "stem_width": stem // 2}
    encoder = load_timm(
        name,
        pretrained,
        in_chans=in_chans,
        output_stride=output_stride,
        features_only=True,
        out_indices=[1 + STRIDES.index(stride) for stride in strides],
        **arguments,
    )
    _dilate_first_blocks(encoder)
    return encoder


def _dilate_first_blocks(encoder: Any) -> None:
    """Give the first block of a dilated stage its stage's dilation; without dilation, do nothing.

    timm leaves it that of the stage before; HAM's released network does not.
    """
    for stage in ("layer3", "layer4"):
        for name in ("conv1", "conv2") if stage in encoder else ():
            first, second = (getattr(encoder[stage][block], name) for block in (0, 1))
            if second.dilation != (1, 1):
                first.dilation, first.padding = second.dilation, second.padding


def load_timm(name: str, pretrained: bool, **arguments: Any) -> Any:
    """A network of timm; for one channel, pretrained weights of the stem are summed over colours.

    Args:
        name: in timm; a tag after a dot names the weights, ``"resnet50.tv_in1k"``.
        pretrained: load them from the local cache of Hugging Face or else from its hub.
        arguments: of ``timm.create_model``.

    Raises:
        ValueError: timm has no such network.
        OSError: the weights are neither in the cache of Hugging Face nor can they be downloaded.
    """
    with quiet_import():
        import timm

    if not timm.is_model(name):
        known = timm.list_models(name.partition("_")[0] + "_*")
        raise ValueError(f"timm has no network {name!r}; {nearest(name, known)}")
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except OSError as error:
        raise OSError(
            f"the weights of {name!r} are neither in the cache of Hugging Face nor can they be "
            "downloaded; connect once, or train from scratch with pretrained=False"
        ) from error


def refuse_sides(images: Tensor, stride: int) -> None:
    """Raise unless the sides of images (B, 1, H, W) are multiples of the stride.

    >>> import torch
    >>> refuse_sides(torch.rand(1, 1, 64, 64), 32)
    """
    height, width = images.shape[-2:]
    if not height or not width or height % stride or width % stride:
        raise ValueError(
            f"images of {height} x {width} px were given; this network shrinks {stride} px to one "
            f"cell, so an image_size that is a multiple of {stride} was expected, such as "
            f"{max(-(-height // stride), 1) * stride} px"
        )


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import a large library where a network needs it, without its advice on progress bars.

    A notebook without widgets would show the advice of tqdm, which these libraries import, as an
    error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        yield


def encoder_arguments(name: str, width: int, pretrained: bool) -> dict[str, Any]:
    """What timm must be told for this width, after checking that name and width are possible."""
    if name.partition(".")[0] not in RESNETS:
        raise ValueError(f"encoder = {name!r}; {nearest(name, [*RESNETS])}")
    if width < 16 or width % 16:
        raise ValueError(f"width = {width}; a multiple of 16 was expected, such as 64")
    if pretrained and width != 64:
        raise ValueError(f"width = {width} with pretrained=True; the weights are of 64")
    return {"channels": tuple(width * 2**stage for stage in range(4))}


def normalize_with(norm: Normalization, *networks: nn.Module) -> None:
    """Give networks one kind of normalization throughout; learned scales and shifts stay.

    Args:
        norm: ``"batch"`` or ``"group"``: groups as in :data:`GROUPS`, fewer where a layer's
            channels cannot be divided so.
        networks: are changed in place.

    Raises:
        ValueError: there is no such normalization.

    >>> network = nn.Sequential(nn.Conv2d(1, 48, 1), nn.BatchNorm2d(48))
    >>> normalize_with("group", network)
    >>> network[1].num_groups, network[1].num_channels
    (16, 48)
    """
    if norm not in get_args(Normalization):
        raise ValueError(f"norm = {norm!r}; {nearest(norm, [*get_args(Normalization)])}")
    for network in networks:
        for parent in [*network.modules()]:
            for name, layer in parent.named_children():
                if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
                    setattr(parent, name, _normalization(norm, layer))


def _normalization(norm: Normalization, layer: nn.BatchNorm2d | nn.GroupNorm) -> nn.Module:
    wanted = nn.BatchNorm2d if norm == "batch" else nn.GroupNorm
    if isinstance(layer, wanted):
        return layer
    channels = len(layer.weight)
    new = (
        nn.BatchNorm2d(channels)
        if norm == "batch"
        else nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    )
    new.weight, new.bias = layer.weight, layer.bias
    return new
