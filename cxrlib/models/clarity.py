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

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
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
from cxrlib.models.encoders import load_timm, refuse_sides
from cxrlib.models.lse_lba import standardize
from cxrlib.models.segment_cam import AttentionPool, Readout, SegmentCAM, softmax
from cxrlib.pooling import lse_pool

DINO = "vit_small_patch16_224.dino"
"""The published size, and its self-supervised weights (Caron et al. 2021, arXiv:2104.14294)."""

R = 1.0
"""Sharpness of the log-sum-exp that pools the cells: their odds are averaged."""

GRID = 14
"""Positions are learned on a grid of 14 x 14 and interpolated to every other."""


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
        self.vit: TokenViT = TokenViT(num_classes, width, depth, heads, patch, pretrained, fused)
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


class TokenViT(nn.Module):
    """A ViT of timm in which a token for each finding takes the place of the one for the image.

    The arguments are those of :class:`CLARiTy`.
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        pretrained: bool,
        fused: bool,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width = {width}, heads = {heads}; a multiple of heads was expected")
        if pretrained and (width, depth, heads, patch) != (384, 12, 6, 16):
            raise ValueError(
                f"width = {width}, depth = {depth}, heads = {heads}, patch = {patch} with "
                "pretrained=True; DINO's weights are of the published 384, 12, 6 and 16"
            )
        sizes = {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": patch}
        vit = load_timm(DINO, pretrained, in_chans=1, num_classes=0, img_size=GRID * patch, **sizes)
        self.stride, self.fused = patch, fused
        self.embed, self.blocks, self.norm = vit.patch_embed.proj, vit.blocks, vit.norm
        position, positions = vit.pos_embed.detach().split([1, GRID**2], dim=1)  # of token, patches
        grid = positions.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
        self.positions = nn.Parameter(grid.contiguous())  # (1, D, 14, 14)
        # All start where the image's token was, but for noise that tells them apart.
        start = (vit.cls_token.detach() + position).repeat(1, num_classes, 1)
        self.tokens = nn.Parameter(start + 0.02 * torch.randn_like(start))  # (1, C, D)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, H, W) -> tokens (B, C, D), patches (B, D, h, w), attention (B, C, h, w).

        The attention of the tokens to the patches is the mean over heads and layers, as a share of
        what they pay to all patches.
        """
        x = self.embed(images)  # (B, D, h, w)
        grid = x.shape[-2:]
        x = (x + self.at(grid)).flatten(2).transpose(1, 2)  # (B, P, D), P = h w
        C = self.tokens.shape[1]
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], dim=1)  # (B, C + P, D)
        paid = []
        for block in self.blocks:
            x, a = self.layer(block, x)  # a: (B, C, P)
            paid.append(a)
        attention = torch.stack(paid).mean(dim=0)
        attention = attention / attention.sum(dim=-1, keepdim=True)
        x = self.norm(x)
        tokens, patches = x.split([C, grid.numel()], dim=1)
        return tokens, patches.transpose(1, 2).unflatten(-1, grid), attention.unflatten(-1, grid)

    def at(self, grid: torch.Size) -> Tensor:
        """The positions on another grid: (1, D, h, w)."""
        if grid == self.positions.shape[-2:]:
            return self.positions
        return F.interpolate(self.positions, size=grid, mode="bicubic", antialias=True)

    def layer(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """One layer: (B, C + P, D) -> the same, and what the tokens pay to the patches, (B, C, P).

        A fused kernel gives no weights, so those of the C tokens are computed beside it.
        """
        C, attn = self.tokens.shape[1], block.attn
        qkv = attn.qkv(block.norm1(x)).unflatten(-1, (3, attn.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, C + P, D / heads) each
        if self.fused:
            y, weights = F.scaled_dot_product_attention(q, k, v), softmax(q[:, :, :C], k)
        else:
            weights = softmax(q, k)  # (B, heads, C + P, C + P)
            y = weights.to(v) @ v
        x = x + attn.proj(y.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
        return x, weights[:, :, :C, C:].mean(dim=1)
