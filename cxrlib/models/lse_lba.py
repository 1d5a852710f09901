"""LSE-LBA: a sharpness-bounded pooling on a multi-resolution network.

Yao, Prosky, Poblenz, Covington, Lyman, "Weakly Supervised Medical Diagnosis and Localization from
Multiple Resolutions", 2018, arXiv:1803.07703.

A network that learns at several resolutions gives every finding a sigmoid map S at a quarter of the
image's side; log-sum-exp pooling with a lower-bounded, learnable sharpness turns S into the image's
probability p, and cross-entropy on p is the whole supervision. No official code was released; what
is the paper's and what is our reading stands in ``cxrlib/literature/fidelity.csv``.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

from cxrlib.datasets.base import Batch
from cxrlib.findings import FINDINGS
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.parameters import Parameters
from cxrlib.pooling import LSELBAPool

BETA_RATE = 0.3
"""Learning rate of beta, as a share of the other weights'."""

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "image_size": 64,
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "network": {"width": 8, "levels": 2, "growth": 8, "layers": 1},
        "phantom": {"n_train": 192, "n_val": 48, "n_test": 96},
        "nih": {"limit_train": 256},
    },
    "quick": {
        "image_size": 96,
        "epochs": 22,
        "batch_size": 16,
        "learning_rate": 6e-3,
        "network": {"width": 32, "levels": 1, "growth": 24, "layers": 1},
        # Two minutes of training must be enough to see the method at work: findings are plain,
        # frequent and independent of each other.
        "phantom": {
            "n_train": 2400,
            "n_val": 240,
            "n_test": 480,
            "prevalence": 0.2,
            "cooccurrence": 0.0,
            "lesion_contrast": 4.0,
        },
        "nih": {},
    },
    "gpu": {
        "image_size": 256,
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "network": {},
        "phantom": {"n_train": 12000, "n_val": 1200, "n_test": 2400},
        "nih": {},
    },
    "paper": {
        "image_size": 512,
        "epochs": 30,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "network": {},
        "phantom": {"n_train": 86400, "n_val": 8640, "n_test": 25600},
        "nih": {},
    },
}
"""Sizes and schedules; ``"paper"`` is the published input size and our reading of the rest.

An empty ``network`` is the published one, the defaults of :class:`LSELBA`.
"""


@dataclass(frozen=True, kw_only=True)
class LSELBAParameters(Parameters):
    """Parameters of ``notebooks/lse_lba.ipynb``."""

    r0: float

    def __post_init__(self) -> None:
        """Refuse an impossible sharpness prior."""
        super().__post_init__()
        if not 0 <= self.r0 <= 1e4:
            raise ValueError(f"r0 = {self.r0}; the sharpness prior is a number from 0 to 10000")


class LSELBA(CXRModule):
    """The method: multi-resolution network, LSE-LBA pooling, multi-label cross-entropy.

    Args:
        r0: lower bound of the sharpness r = r0 + exp(beta), the paper's sharpness prior, >= 0.
        num_classes: number of findings.
        width: channels at strides 4 and 8; they double with each coarser level.
        levels: how often the network halves the stem's resolution; 4 reaches stride 64.
        growth: channels each dense layer adds.
        layers: dense layers per block.
        learning_rate: peak of Adam's schedule.

    >>> model = LSELBA(r0=5, width=8, levels=2, growth=4, layers=1)
    >>> output = model(torch.rand(2, 1, 64, 64))
    >>> output.logits.shape, output.maps.shape
    (torch.Size([2, 14]), torch.Size([2, 14, 16, 16]))
    """

    def __init__(
        self,
        r0: float = 5.0,
        *,
        num_classes: int = len(FINDINGS),
        width: int = 32,
        levels: int = 4,
        growth: int = 16,
        layers: int = 4,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.network: MultiResolutionNet = MultiResolutionNet(
            num_classes, width, levels, growth, layers, r0
        )

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds and maps."""
        return self.network(images)

    def groups(self) -> list[dict[str, Any]]:
        """All learn at ``learning_rate``, but beta at a share of it.

        Adam moves a parameter by about its rate whatever the size of the gradient. The one scalar
        beta, pulled the same way in every step, would run to an r several times as large.
        """
        beta = self.network.pool.beta
        rest = [weights for weights in self.parameters() if weights is not beta]
        return [
            {"params": rest, "lr": self.learning_rate},
            {"params": [beta], "lr": BETA_RATE * self.learning_rate},
        ]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy between the pooled probabilities and the image labels."""
        p = self(batch.images)
        loss = multilabel_cross_entropy(p.logits, batch.labels)
        self.log("loss", loss, batch_size=len(batch.images), on_epoch=True, on_step=False)
        self.log("r", self.network.pool.r.mean(), on_epoch=True, on_step=False)
        return loss


class MultiResolutionNet(nn.Module):
    """Encoder of residual blocks, decoder of nearest upsampling, dense blocks at every resolution.

    Maps have stride 4. The arguments are those of :class:`LSELBA`.
    """

    stride = 4

    def __init__(
        self, num_classes: int, width: int, levels: int, growth: int, layers: int, r0: float
    ) -> None:
        super().__init__()
        self.multiple = self.stride * 2**levels  # of which the image's side must be a multiple
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 6, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels = [width]  # at strides 4, 8, 16, ...
        for level in range(levels):
            dense = DenseBlock(width * 2**level, growth, layers)
            self.encoder.append(nn.Sequential(down(channels[-1], width * 2**level), dense))
            channels.append(dense.channels)
        coarse = channels.pop()
        for level, skip in reversed(list(enumerate(channels))):
            fused = width * 2 ** max(level - 1, 0)
            dense = DenseBlock(fused, growth, layers)
            self.decoder.append(nn.Sequential(fuse(coarse + skip, fused), dense))
            coarse = dense.channels
        self.head = conv1x1(coarse, num_classes)
        # Findings are rare: start from maps that say so, or the first epochs only learn that.
        self.bias = nn.Parameter(torch.full((num_classes, 1, 1), -2.0))
        self.pool = LSELBAPool(r0)

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> maps (B, C, H/4, W/4), pooled log-odds."""
        if any(side % self.multiple for side in images.shape[-2:]):
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} px were given; this network shrinks "
                f"{self.multiple} px to one, so an image_size that is a multiple of "
                f"{self.multiple} was expected"
            )
        features = [self.stem(standardize(images))]  # (B, k, H/4, W/4)
        for block in self.encoder:
            features.append(block(features[-1]))  # H/8, H/16, ...
        x = features.pop()
        for block in self.decoder:
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, features.pop()], dim=1))
        scores = (self.head(x) + self.bias).float()  # (B, C, H/4, W/4)
        return Output(logits=self.pool.log_odds(scores), maps=scores.sigmoid())


def standardize(images: Tensor) -> Tensor:
    """Zero mean and unit variance in each image, so that exposure says nothing."""
    images = images - images.mean(dim=(-2, -1), keepdim=True)
    return images / images.std(dim=(-2, -1), keepdim=True).clamp(min=1e-3)


def down(inputs: int, outputs: int) -> nn.Module:
    """Residual block (He et al. 2016) that halves the resolution without a lean.

    With the usual 3 x 3 convolution of stride 2, a cell looks half a pixel to the upper left of the
    pixels that it stands for; three of them move a map by 3.5 pixels. 4 x 4 looks to all sides.
    """
    shortcut = nn.Sequential(nn.AvgPool2d(2), conv1x1(inputs, outputs), nn.BatchNorm2d(outputs))
    block = BasicBlock(inputs, outputs, stride=2, downsample=shortcut)
    block.conv1 = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return block


def fuse(inputs: int, outputs: int) -> nn.Module:
    """Learned refinement of concatenated coarse and fine features."""
    return nn.Sequential(conv1x1(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class DenseBlock(nn.Module):
    """Dense layers (Huang et al. 2017) at one resolution; each sees all before it."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.channels = inputs + growth * layers
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(inputs + growth * layer),
                nn.ReLU(),
                nn.Conv2d(inputs + growth * layer, growth, 3, padding=1, bias=False),
            )
            for layer in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, inputs + growth * layers, h, w)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x
