"""HAM: hierarchical attention, from foreground to abnormality to each finding.

Ouyang, Karanam, Wu, Chen, Huo, Zhou, Wang, Cheng, "Learning hierarchical attention for
weakly-supervised chest X-ray abnormality localization and diagnosis", IEEE Transactions on Medical
Imaging 40(10):2698-2710, 2021 (arXiv:2112.12349).

A dilated ResNet sees the radiograph at stride 8. A foreground attention module (level 1) reweighs
its features; log-sum-exp pooling and two linear classifiers say whether anything is abnormal (level
2) and which findings there are (level 3). The classifiers' activation maps are the attention of
levels 2 and 3. Two ordinal losses nest them: a finding lies within the abnormal, and the abnormal
within the union of the findings. Where some images have boxes, a third loss brings maps and boxes
together. What is the paper's and what is our reading stands in ``cxrlib/literature/fidelity.csv``.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors

from cxrlib import transforms
from cxrlib.datasets.base import Batch
from cxrlib.findings import FINDINGS
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.encoders import resnet
from cxrlib.models.ham_foreground import ForegroundModule, conv_norm
from cxrlib.models.ham_losses import (
    SIGMA,
    any_finding,
    bounded_loss,
    box_loss,
    masses,
    refine,
    rescale,
    union_loss,
)
from cxrlib.pooling import lse_pool

STRIDE = 8
"""Pixels to a cell of the maps."""

ABNORMALITY, CLASSES, BOX, ORDINAL = 0.01, 1.0, 0.5, 0.001
"""Weights of the losses; the last is of each ordinal constraint."""

DROPOUT, DECAY = 0.1, 0.1
"""Share of the head's channels that are dropped; the factor of the learning rate after every so
many epochs."""


class Levels(NamedTuple):
    """What the network says and where it looks, level by level; the maps are of stride 8."""

    foreground: Tensor  # (B, 1, h, w), of either sign
    abnormal: Tensor  # (B, 1) log-odds, float32
    A_abnormal: Tensor  # (B, 1, h, w) float32, 0 and above
    logits: Tensor  # (B, C) log-odds, float32
    A: Tensor  # (B, C, h, w) float32, 0 and above


class HAM(CXRModule):
    """The method: dilated ResNet, foreground attention, two classifiers, ordinal and box losses.

    Args:
        num_classes: number of findings.
        encoder: a ResNet of timm; the tag says which ImageNet weights ``pretrained`` means.
        width: channels of the encoder's first stage, 64 in every published ResNet; a multiple of
            16. The head has eight times as many.
        pretrained: start from ImageNet's weights, as the paper does; they are downloaded on first
            use.
        r: sharpness of the pooling of features, >= 0.
        ordinal: weight of each ordinal constraint, 0.001 as published; 0, the ablation, leaves both
            out.
        sigma: where a class activation map counts as active, in the units of the logits.
        augmentation: ``"ham"`` (published; enlarges, crops and mirrors) or ``"upright"``.
        learning_rate: at the start.
        decay_every: epochs after which the learning rate falls to a tenth, again and again.

    Raises:
        ValueError: an argument is out of its range.

    >>> model = HAM(encoder="resnet18", width=16)
    >>> output = model(torch.rand(2, 1, 64, 64))
    >>> output.logits.shape, output.maps.shape
    (torch.Size([2, 14]), torch.Size([2, 14, 8, 8]))
    """

    weight_decay = 1e-4

    def __init__(
        self,
        *,
        num_classes: int = len(FINDINGS),
        encoder: str = "resnet50.tv_in1k",
        width: int = 64,
        pretrained: bool = False,
        r: float = 6.0,
        ordinal: float = ORDINAL,
        sigma: float = SIGMA,
        augmentation: Literal["ham", "upright"] = "ham",
        learning_rate: float = 2e-5,
        decay_every: int = 10,
    ) -> None:
        super().__init__()
        if augmentation not in ("ham", "upright"):
            raise ValueError(f"augmentation = {augmentation!r}; 'ham' or 'upright' was expected")
        self.save_hyperparameters()
        for name, least in {"r": 0, "ordinal": 0, "decay_every": 1}.items():
            if not (value := self.hparams[name]) >= least:
                raise ValueError(f"{name} = {value}; a number of at least {least} was expected")
        self.r, self.ordinal, self.sigma = r, ordinal, sigma
        self.augmentation, self.learning_rate = augmentation, learning_rate
        self.decay_every = decay_every
        # The radiograph goes in as three equal colours, as the weights of ImageNet expect.
        self.encoder = resnet(encoder, width, pretrained, in_chans=3, output_stride=STRIDE)
        channels = self.encoder.feature_info.channels()[-1]
        self.foreground = ForegroundModule(channels, channels // 4)
        self.head = nn.Sequential(
            *conv_norm(channels + channels // 4, 8 * width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(DROPOUT),
        )
        self.abnormal = nn.Linear(8 * width, 1, bias=False)
        self.classes = nn.Linear(8 * width, num_classes, bias=False)

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds (B, C) and maps (B, C, H/8, W/8).

        The maps are the class attention, each map's minimum and maximum at 0 and 1: what
        :func:`~cxrlib.models.ham_losses.refine` makes the paper's refined maps of, which have lost
        the order of their pixels.

        Raises:
            ValueError: the sides are no multiples of 8.
        """
        levels = self.levels(images)
        return Output(logits=levels.logits, maps=rescale(levels.A))

    def levels(self, images: Tensor) -> Levels:
        """Images float32 (B, 1, H, W), 0 to 1 -> classification and attention of all levels."""
        if any(side % STRIDE or not side for side in images.shape[-2:]):
            raise ValueError(
                f"images of {images.shape[-2]} x {images.shape[-1]} px were given; the encoder "
                f"shrinks {STRIDE} px to one, so an image_size that is a multiple of {STRIDE} was "
                "expected"
            )
        e4 = self.encoder((2 * images - 1).expand(-1, 3, -1, -1))[-1]  # (B, 2048, H/8, W/8)
        e4_fa, foreground = self.foreground(e4)
        features = self.head(torch.cat([e4, e4_fa], 1))  # (B, 512, H/8, W/8)
        # Half precision would blur the constraints' thresholds.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            f = lse_pool(features, self.r)  # (B, 512)
            return Levels(
                foreground.float(),
                self.abnormal(f),
                activation(features, self.abnormal.weight),
                self.classes(f),
                activation(features, self.classes.weight),
            )

    def attention(self, images: Tensor) -> dict[str, Tensor]:
        """The three levels of attention, each map's minimum and maximum at 0 and 1, for display.

        Args:
            images: float32 (B, 1, H, W), 0 to 1.

        Returns:
            ``"foreground"`` (B, 1, H/8, W/8), what the module adds to the features, ``"abnormal"``
            (B, 1, H/8, W/8) and ``"classes"`` (B, C, H/8, W/8).

        >>> maps = HAM(encoder="resnet18", width=16).attention(torch.rand(2, 1, 64, 64))
        >>> [tuple(attention.shape) for attention in maps.values()]
        [(2, 1, 8, 8), (2, 1, 8, 8), (2, 14, 8, 8)]
        """
        levels = self.levels(images)
        maps = {"foreground": levels.foreground, "abnormal": levels.A_abnormal, "classes": levels.A}
        return {level: rescale(A) for level, A in maps.items()}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """0.01 L_abnormality + L_classes + 0.001 (L_bounded + L_union) + 0.5 L_box."""
        levels, positive = self.levels(batch.images), batch.labels == 1
        losses = {
            "loss_abnormal": multilabel_cross_entropy(levels.abnormal, any_finding(batch.labels)),
            "loss_classes": multilabel_cross_entropy(levels.logits, batch.labels),
        }
        loss = ABNORMALITY * losses["loss_abnormal"] + CLASSES * losses["loss_classes"]
        if self.ordinal:
            maps = (levels.A, levels.A_abnormal, positive, self.sigma)
            losses |= {"loss_bounded": bounded_loss(*maps), "loss_union": union_loss(*maps)}
            loss = loss + self.ordinal * (losses["loss_bounded"] + losses["loss_union"])
        if batch.masks is not None:
            losses["loss_box"] = self.box_loss(levels.A, batch.masks)
            loss = loss + BOX * losses["loss_box"]
        # The threshold sigma is of unbounded maps: how much of the positive ones is above it?
        active = levels.A.gt(self.sigma).float().mean((-2, -1))[positive].sum()
        losses |= {"loss": loss, "active": active / positive.sum().clamp(min=1)}
        self.log_dict(losses, batch_size=len(batch.images), on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The loss that chooses the checkpoint, and how far the levels are nested."""
        levels, positive = self.levels(batch.images), batch.labels == 1
        loss = multilabel_cross_entropy(levels.logits, batch.labels)
        self.log("val_loss", loss, batch_size=len(batch.images), on_epoch=True)
        if n := int(positive.sum()):  # means over all pairs of the part; their ratio is the share
            mass, beyond = masses(levels.A, levels.A_abnormal)
            logged = {"val_mass": mass[positive].mean(), "val_beyond": beyond[positive].mean()}
            self.log_dict(logged, batch_size=n, on_epoch=True)

    @staticmethod
    def box_loss(A: Tensor, masks: Tensor) -> Tensor:
        """Of class attention (B, C, h, w) and masks (B, C, H, W), where there are boxes: scalar."""
        image, finding = masks.any(-1).any(-1).nonzero(as_tuple=True)  # n pairs
        if not len(image):
            return A.new_zeros(())
        M = masks[image, finding]  # (n, H, W)
        refined = refine(A[image, finding][:, None], (M.shape[-2], M.shape[-1]))[:, 0]
        return box_loss(refined, M, finding)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment images and masks alike; a box that leaves its image no longer teaches."""
        if not self.trainer.training or batch.masks is None:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        both = self.augment(torch.cat([batch.images, batch.masks.to(batch.images)], 1))
        return batch._replace(images=both[:, :1], masks=both[:, 1:] >= 0.5)

    def augment(self, images: Tensor) -> Tensor:
        """The paper's augmentation, drawn anew for each image; or the library's upright one."""
        if self.augmentation == "upright":
            return super().augment(images)
        transform = transforms.augmentation("ham", images.shape[-1])
        return torch.stack([transform(tv_tensors.Image(image)) for image in images])

    def configure_optimizers(self) -> Any:
        """Adam, with weight decay in its gradient; the learning rate falls in steps."""
        optimizer = torch.optim.Adam(
            self.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        epochs: Any = self.trainer.max_epochs
        steps = int(self.trainer.estimated_stepping_batches) // epochs * self.decay_every
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, steps, DECAY)
        return {
            "optimizer": optimizer,
            # By steps: Lightning would count an epoch after it has saved the checkpoint.
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def activation(features: Tensor, weight: Tensor) -> Tensor:
    """Class activation maps: features (B, K, h, w) and weights (C, K) -> (B, C, h, w), >= 0.

    The weights are detached: what acts on the maps teaches the features, not the classifier.
    """
    return F.conv2d(features, weight.detach()[..., None, None]).relu()
