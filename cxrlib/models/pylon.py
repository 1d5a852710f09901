"""PYLON: fine maps without global averages, from a pyramid of attention and 1 x 1 convolutions.

Preechakul, Sriswasdi, Kijsirikul, Chuangsuwanich, "Improved image classification explainability
with high-accuracy heatmaps", iScience 25(3):103933, 2022 (arXiv:2010.11475).

A ResNet sees the radiograph at strides 4 to 32. Pyramidal attention (PA) looks wide at the coarsest
stride and says where; three UP modules carry that down to stride 4, where a 1 x 1 convolution gives
a map of logits for each finding. The maximum of a map is the image's logit, and cross-entropy on it
is the whole supervision. The paper's argument: global averages (GAP) tell every cell what
the whole image looks like, and group normalization does too, so cells can answer for findings that
are elsewhere. What is the paper's and what is our reading stands in
``cxrlib/literature/fidelity.csv``. :mod:`cxrlib.models.recipe` is how it is trained, and
:mod:`cxrlib.models.baselines` what it is compared with.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from cxrlib.findings import FINDINGS
from cxrlib.models.base import Output
from cxrlib.models.encoders import STRIDE, Normalization, normalize_with, resnet
from cxrlib.models.recipe import RecipeModule, cells
from cxrlib.pooling import logit_pooling

PA_KERNELS = (7, 5, 3)
"""Side of the attention's convolutions, from the finest level to the coarsest."""


class PYLON(RecipeModule):
    """The method: ResNet, pyramidal attention, UP modules, maximum pooling, cross-entropy.

    Args:
        num_classes: number of findings.
        encoder: a ResNet of timm; the tag says which ImageNet weights ``pretrained`` means.
        width: channels of the encoder's first stage, 64 in every published ResNet; a multiple of
            16. The decoder has twice as many.
        pretrained: start from ImageNet's weights, as the paper does; they are downloaded on first
            use.
        pa_depth: levels of the attention, 1 to 3 (published); the image's sides must be multiples
            of 32, at least 32 * 2 ** pa_depth. (The released code needs multiples of 256.)
        use_pa: ablation: without the attention, the coarsest features go up as they are.
        gap: ablation: add the branch of global averages that PYLON left out of PAN's attention.
        up_type: ``"2layer"`` (published) or ``"1layer"``.
        norm: of the decoder, ``"batch"`` (published) or ``"group"``; the encoder's is batch.
        pooling: of the maps of logits, see :func:`cxrlib.pooling.logit_pooling`.
        augmentation: ``"pylon"`` (published; rotates by up to 90 degrees and mirrors) or
            ``"upright"``.
        learning_rate: at the start.

    Raises:
        ValueError: an argument is out of its range.

    >>> import torch
    >>> model = PYLON(encoder="resnet18", width=16, pa_depth=1)
    >>> output = model(torch.rand(2, 1, 64, 64))
    >>> output.logits.shape, output.maps.shape
    (torch.Size([2, 14]), torch.Size([2, 14, 16, 16]))
    """

    def __init__(
        self,
        *,
        num_classes: int = len(FINDINGS),
        encoder: str = "resnet50.tv_in1k",
        width: int = 64,
        pretrained: bool = False,
        pa_depth: int = 3,
        use_pa: bool = True,
        gap: bool = False,
        up_type: Literal["2layer", "1layer"] = "2layer",
        norm: Normalization = "batch",
        pooling: str = "max",
        augmentation: Literal["pylon", "upright"] = "pylon",
        learning_rate: float = 1e-4,
    ) -> None:
        super().__init__(augmentation, learning_rate)
        if pa_depth not in (1, 2, 3):
            raise ValueError(f"pa_depth = {pa_depth}; the attention has 1, 2 or 3 levels")
        if up_type not in ("2layer", "1layer"):
            raise ValueError(f"up_type = {up_type!r}; '2layer' or '1layer' was expected")
        self.save_hyperparameters()
        depth = pa_depth if use_pa else 0
        self.coarsest = STRIDE * 2**depth
        self.has_gap, self.norm = gap, norm
        self.encoder = resnet(encoder, width, pretrained)
        fine, middle, coarse, coarsest = self.encoder.feature_info.channels()  # strides 4 to 32
        self.pa = PA(coarsest, 2 * width, depth, gap)
        self.up = nn.ModuleList(
            UP(channels, 2 * width, up_type) for channels in (coarse, middle, fine)
        )
        self.head = nn.Conv2d(2 * width, num_classes, 1)
        weight, bias = self.head.parameters()
        nn.init.xavier_uniform_(weight)
        nn.init.zeros_(bias)
        normalize_with(norm, self.pa, self.up)
        self.pool = logit_pooling(pooling)

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds (B, C) and maps (B, C, H/4, W/4).

        Raises:
            ValueError: the network cannot divide this size, or cannot normalize so few values.
        """
        self.refuse_shape(images)
        *finer, x = self.encoder(self.standardize(images))  # finer: strides 4, 8, 16; x: stride 32
        y = self.pa(x)  # (B, 2 width, H/32, W/32)
        for up, x in zip(self.up, reversed(finer), strict=True):
            y = up(x, y)  # H/16, H/8, H/4
        scores = self.head(y).float()  # (B, C, H/4, W/4)
        return Output(logits=self.pool(scores), maps=scores.sigmoid())

    def refuse_shape(self, images: Tensor) -> None:
        """Refuse also an attention of one cell in one channel that is to be group-normalized."""
        super().refuse_shape(images)
        if self.norm == "group" and self.pa.down and cells(images, self.coarsest) == 1:
            raise ValueError(
                f"images of {images.shape[-2]} x {images.shape[-1]} px were given; group "
                "normalization makes their single value at the coarsest level zero: "
                f"give images of {2 * self.coarsest} px or use one level less (pa_depth)"
            )


class PA(nn.Module):
    """Pyramidal attention: how much each cell of the coarsest features matters, seen from afar.

    Feature pyramid attention of PAN (Li et al. 2018, arXiv:1805.10180) without its global average.

    Args:
        inputs, outputs: channels.
        depth: levels of the pyramid; 0: no attention.
        gap: put the global average back.
    """

    def __init__(self, inputs: int, outputs: int, depth: int, gap: bool) -> None:
        super().__init__()
        kernels = PA_KERNELS[:depth]
        channels = [inputs, 1, 1]
        self.mid = conv_norm_relu(inputs, outputs, 1)
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), conv_norm_relu(k, 1, kernel))
            for k, kernel in zip(channels, kernels, strict=False)
        )
        self.side = nn.ModuleList(conv_norm_relu(1, 1, kernel) for kernel in kernels)
        average = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_relu(inputs, outputs, 1))
        self.gap = average if gap else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        y = self.mid(x)  # (B, outputs, h, w)
        if self.down:
            y = y * self.attention(x)
        return y if self.gap is None else y + self.gap(x)

    def attention(self, x: Tensor, level: int = 0) -> Tensor:
        """What this level sees, and those below it: (B, k, h, w) -> (B, 1, h, w), not negative."""
        seen = self.down[level](x)  # (B, 1, h/2, w/2)
        a = self.side[level](seen)
        if level + 1 < len(self.down):
            a = a + self.attention(seen, level + 1)
        return enlarge(a, x)  # (B, 1, h, w)


class UP(nn.Module):
    """Coarse features, enlarged, plus fine features seen cell by cell."""

    def __init__(self, inputs: int, outputs: int, up_type: str) -> None:
        super().__init__()
        layers = [conv_norm_relu(inputs, outputs, 1)]
        if up_type == "2layer":
            layers.insert(0, conv_norm_relu(inputs, inputs, 1))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fine x (B, inputs, 2h, 2w) and coarse y (B, outputs, h, w) -> (B, outputs, 2h, 2w)."""
        return enlarge(y, x) + self.conv(x)


def conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A layer of the decoder; the bias, idle before a normalization, is the released network's."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def enlarge(y: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of another; the corners' centres stay in the corners."""
    return F.interpolate(y, size=like.shape[-2:], mode="bilinear", align_corners=True)
