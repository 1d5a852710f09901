"""CLARiTy: a vision transformer with a token for each finding, and a class map told of anatomy.

Statheros, Wang, Klein, "CLARiTy: A Vision Transformer for Multi-Label Classification and
Weakly-Supervised Localization of Chest X-ray Pathologies", 2025, arXiv:2512.16700.

Class tokens, one for each finding, travel with the patches through a vision transformer (ViT); what
a token attends to says where its finding is. SegmentCAM, two convolutions of the patches, gives
each finding a class map and separates foreground from background, which an anatomical prior teaches
it. The final map joins the three: a cell's odds are their product. Class tokens are held
orthogonal, so that findings do not share one; a ConvNeXt V2 teaches the image's probabilities
(:mod:`.clarity_teacher`).

Only the abstract was at hand, and no code was released: what is the paper's and what is our reading
stands in ``cxrlib/literature/fidelity.csv``.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrlib.datasets.base import Batch
from cxrlib.findings import FINDINGS
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.clarity_losses import (
    distillation_loss,
    foreground_loss,
    orthogonal_loss,
    refuse_weights,
    suppression_loss,
)
from cxrlib.models.clarity_teacher import refuse_prior
from cxrlib.models.encoders import refuse_sides
from cxrlib.models.lse_lba import standardize
from cxrlib.models.segment_cam import AttentionPool, Readout, SegmentCAM
from cxrlib.models.token_vit import TokenViT
from cxrlib.pooling import lse_pool

R = 1.0
"""Sharpness of the log-sum-exp that pools the cells: their odds are averaged."""


class Evidence(NamedTuple):
    """What the network sees and what it says on that account; without SegmentCAM three are None."""

    tokens: Tensor  # (B, C, D) class tokens
    attention: Tensor  # (B, C, h, w) float32, 0 and above, sums to 1 over the patches
    class_map: Tensor | None  # (B, C, h, w) float32 log-odds
    foreground: Tensor | None  # (B, 1, h, w) float32 log-odds
    cells: Tensor | None  # (B, C, h, w) float32 log-odds: the three above together
    heads: Tensor  # (heads, B, C) float32 log-odds of each way to classify

    @property
    def maps(self) -> Tensor:
        """Probability of each cell, or without SegmentCAM attention as a share of its maximum."""
        if self.cells is not None:
            return self.cells.sigmoid()  # (B, C, h, w)
        return self.attention / self.attention.amax(dim=(-2, -1), keepdim=True)


class CLARiTy(CXRModule):
    """The method: class tokens in a ViT, SegmentCAM, attention pooling, a teacher.

    Args:
        segment_cam: ablation: without it, the final map is the attention.
        attention_pooling: ablation: without it, no second classifier reads the patches.
        orthogonal: weight of the loss on class tokens, >= 0; 0: without.
        foreground: weight of the loss that holds the foreground to the prior, >= 0; 0: without, and
            no prior is needed.
        suppression: weight of the loss on the class map in the background, >= 0; 0: without.
        distillation: alpha, share of the teacher in the classification loss, 0 to 1; 0: without,
            and no teacher is needed.
        temperature: tau, of the distillation, above 0.
        width, depth, heads, patch: of the ViT: channels of a token, layers, attention heads, side
            of a patch in pixels. ViT-S/16 as published; 192 and 3 heads make ViT-Ti.
        stem: patches by a few 3 x 3 convolutions instead of one linear map, for networks that
            learn from little; see :class:`cxrlib.models.token_vit.TokenViT`.
        pretrained: start from DINO's weights, as the paper does; they are downloaded on first use.
        fused: attention by PyTorch's fused kernels, or by its formula; the answer is the same.
        num_classes: number of findings.
        learning_rate, weight_decay: of AdamW; the rate is the schedule's peak.

    Raises:
        ValueError: an argument is out of its range.
        OSError: the weights are neither in the cache nor can they be downloaded.

    >>> model = CLARiTy(width=32, depth=1, heads=2, patch=8)
    >>> output = model(torch.rand(2, 1, 64, 64))
    >>> output.logits.shape, output.maps.shape
    (torch.Size([2, 14]), torch.Size([2, 14, 8, 8]))
    """

    prior: Tensor  # (1, 1, h, w), or empty: none is fixed

    def __init__(
        self,
        *,
        segment_cam: bool = True,
        attention_pooling: bool = True,
        orthogonal: float = 0.1,
        foreground: float = 1.0,
        suppression: float = 1.0,
        distillation: float = 0.5,
        temperature: float = 2.0,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 16,
        stem: bool = False,
        pretrained: bool = False,
        fused: bool = True,
        num_classes: int = len(FINDINGS),
        learning_rate: float = 1e-4,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__()
        refuse_weights(orthogonal=orthogonal, foreground=foreground, suppression=suppression)
        if not 0 <= distillation <= 1 or not temperature > 0:
            raise ValueError(
                f"distillation = {distillation}, temperature = {temperature}; a share from 0 to 1 "
                "and a number above 0 were expected"
            )
        self.save_hyperparameters()
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.temperature = temperature
        self.weights = {
            "classification": 1 - distillation,
            "distillation": distillation,
            "orthogonal": orthogonal,
            "foreground": foreground if segment_cam else 0.0,
            "suppression": suppression,
        }
        self.vit: TokenViT = TokenViT(
            num_classes, width, depth, heads, patch, stem, pretrained, fused
        )
        self.read_tokens = Readout(num_classes, width)
        self.attention_pool = AttentionPool(num_classes, width) if attention_pooling else None
        self.segment_cam = SegmentCAM(num_classes, width) if segment_cam else None
        # Not a weight: only training asks for it.
        self.register_buffer("prior", torch.empty(0), persistent=False)

    def look(self, images: Tensor) -> Evidence:
        """Images float32 (B, 1, H, W), 0 to 1 -> tokens, attention, class map, foreground, logits.

        Raises:
            ValueError: a side is not a multiple of the patch.
        """
        refuse_sides(images, self.vit.stride)
        tokens, patches, attention = self.vit(standardize(images))
        heads, S, foreground, cells = [self.read_tokens(tokens)], None, None, None
        if self.attention_pool is not None:
            heads.append(self.attention_pool(patches))
        if self.segment_cam is not None:
            S, foreground = self.segment_cam(patches)
            cells = self.segment_cam.cells(S, foreground, attention)
            heads.append(lse_pool(cells, R))
        return Evidence(tokens, attention, S, foreground, cells, torch.stack(heads).float())

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds (B, C) and maps (B, C, h, w), 0 to 1."""
        seen = self.look(images)
        return Output(logits=seen.heads.mean(dim=0), maps=seen.maps)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The weighted sum of :meth:`losses`."""
        losses = self.losses(self.look(batch.images), batch)
        loss = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        logged = {"loss": loss, **{f"loss_{name}": value for name, value in losses.items()}}
        self.log_dict(logged, batch_size=len(batch.images), on_epoch=True, on_step=False)
        return loss

    def losses(self, seen: Evidence, batch: Batch) -> dict[str, Tensor]:
        """Every loss for which there is what it needs, by name, before it is weighted.

        Raises:
            ValueError: a loss that counts needs a teacher or a prior, and there is none.
        """
        labels = batch.labels.expand_as(seen.heads)  # (heads, B, C): each head answers for itself
        losses = {
            "classification": multilabel_cross_entropy(seen.heads, labels),
            "orthogonal": orthogonal_loss(seen.tokens),
        }
        if batch.teacher is not None:
            student = seen.heads.mean(dim=0)
            losses["distillation"] = distillation_loss(student, batch.teacher, self.temperature)
        if seen.class_map is not None and seen.foreground is not None:
            losses["suppression"] = suppression_loss(seen.class_map, seen.foreground)
            prior = self.prior if batch.prior is None else batch.prior
            if prior.numel():
                losses["foreground"] = foreground_loss(seen.foreground, prior)
        for name, needed in (("distillation", "teacher"), ("foreground", "prior")):
            if self.weights[name] and name not in losses:
                raise ValueError(
                    f"{name} = {self.weights[name]}, but the batches hold no {needed}: train on "
                    f"Guided(dataset, ...) of cxrlib.models.clarity_teacher, or set {name} to 0"
                )
        return losses

    def fix_prior(self, prior: Tensor) -> None:
        """Hold the foreground of all images to one map, unless a batch has its own.

        Args:
            prior: (h, w), 0 to 1, of any size, such as the mean mask of many chests.

        Raises:
            ValueError: it is no such map.
        """
        refuse_prior(prior)
        self.prior = prior.to(self.prior)[None, None]  # (1, 1, h, w)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment the images, and a batch's own prior with them."""
        if not self.trainer.training or batch.prior is None:
            return super().on_after_batch_transfer(batch, dataloader_idx)
        prior = F.interpolate(batch.prior, size=batch.images.shape[-2:], mode="bilinear")
        images, prior = self.augment(torch.cat([batch.images, prior], dim=1)).split(1, dim=1)
        return batch._replace(images=images, prior=prior)
