"""PYLON: fine maps without global averages, from a pyramid of attention and 1 x 1 convolutions.

Preechakul, Sriswasdi, Kijsirikul, Chuangsuwanich, "Improved image classification explainability
with high-accuracy heatmaps", iScience 25(3):103933, 2022 (arXiv:2010.11475).

A ResNet sees the radiograph at strides 4 to 32. Pyramidal attention (PA) looks wide at the coarsest
stride and says where; three UP modules carry that down to stride 4, where a 1 x 1 convolution gives
a map of logits for each finding. The maximum of a map is the image's logit, and cross-entropy on it
is the whole supervision. The paper's argument: global averages (GAP) tell every cell what
the whole image looks like, and group normalization does too, so cells can answer for findings that
are elsewhere. What is the paper's and what is our reading stands in
``cxrlib/literature/fidelity.csv``; :mod:`cxrlib.models.baselines` has what it is compared with.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors

from cxrlib import transforms
from cxrlib.datasets.base import Batch
from cxrlib.findings import FINDINGS
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.encoders import STRIDE, Normalization, normalize_with, resnet
from cxrlib.pooling import logit_pooling

PA_KERNELS = (7, 5, 3)
"""Side of the attention's convolutions, from the finest level to the coarsest."""

MEAN, SD = 0.4984, 0.2483
"""Of the pixels of ChestX-ray14, 0 to 1; from the released code."""

PATIENCE, FACTOR, LEAST_RATE = 1, 0.2, 1e-6
"""After more than ``PATIENCE`` epochs without a lower validation loss the learning rate is
multiplied by ``FACTOR``; at ``LEAST_RATE`` training ends."""


class PlateauModule(CXRModule):
    """Base of PYLON and its baselines: cross-entropy, Adam, a learning rate that falls on plateaus.

    A network writes its own ``forward`` and sets the attributes.

    Attributes:
        coarsest: side of a cell of the coarsest level, pixels; an image holds at least one.
        has_gap: whether the network normalizes a global average.
        norm: which normalization its decoder has.
    """

    coarsest: int
    has_gap: bool
    norm: Normalization

    def __init__(self, augmentation: Literal["pylon", "upright"], learning_rate: float) -> None:
        super().__init__()
        if augmentation not in ("pylon", "upright"):
            raise ValueError(f"augmentation = {augmentation!r}; 'pylon' or 'upright' was expected")
        self.augmentation = augmentation
        self.learning_rate = learning_rate

    def augment(self, images: Tensor) -> Tensor:
        """The paper's augmentation, drawn anew for each image; or the library's upright one."""
        if self.augmentation == "upright":
            return super().augment(images)
        transform = transforms.augmentation("pylon", images.shape[-1])
        return torch.stack([transform(tv_tensors.Image(image)) for image in images])

    @staticmethod
    def standardize(images: Tensor) -> Tensor:
        """Pixels 0 to 1 -> about zero mean and unit variance over ChestX-ray14."""
        return (images - MEAN) / SD

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy between the pooled maps and the image labels."""
        output: Output = self(batch.images)
        loss = multilabel_cross_entropy(output.logits, batch.labels)
        self.log("loss", loss, batch_size=len(batch.images), on_epoch=True, on_step=False)
        self.log("learning_rate", self._rate(), on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> Any:
        """Adam without weight decay; the learning rate follows the validation loss."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, fused=True)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=FACTOR, patience=PATIENCE
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: Lightning would step after it has saved, and a resumed run would miss a step."""

    def on_train_epoch_end(self) -> None:
        """Step the schedule before the checkpoint is written, so that the checkpoint has it."""
        scheduler: Any = self.lr_schedulers()
        scheduler.step(float(self.trainer.callback_metrics["val_loss"]))
        self._stop_at_least_rate()

    def on_train_start(self) -> None:
        """A run that was killed after its last epoch has nothing left to do."""
        self._stop_at_least_rate()

    def _rate(self) -> float:
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    def _stop_at_least_rate(self) -> None:
        if self._rate() <= LEAST_RATE:
            self.trainer.should_stop = True

    def refuse_shape(self, images: Tensor) -> None:
        """Raise if the network cannot divide or normalize images (B, 1, H, W)."""
        batch, _, height, width = images.shape
        given = f"images of {height} x {width} px were given"
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"{given}; the encoder shrinks {STRIDE} px to one, so an image_size that is a "
                f"multiple of {STRIDE} was expected, such as {-(-height // STRIDE) * STRIDE} px"
            )
        if min(height, width) < self.coarsest:
            raise ValueError(
                f"{given}; a cell of the coarsest level is {self.coarsest} px, so at least as much "
                "was expected: give larger images, or use fewer levels of attention (pa_depth)"
            )
        coarsest = self.coarsest if self.norm == "batch" else STRIDE
        cells = 1 if self.norm == "batch" and self.has_gap else _cells(images, coarsest)
        if self.training and batch * cells == 1:
            raise ValueError(
                f"one image of {height} x {width} px was given to train on; batch normalization "
                "needs more than a single value at its coarsest level: give 2 images, batch_size=2"
            )


def _cells(images: Tensor, side: int) -> int:
    return math.prod(pixels // side for pixels in images.shape[-2:])


class PYLON(PlateauModule):
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
        if self.norm == "group" and self.pa.down and _cells(images, self.coarsest) == 1:
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
