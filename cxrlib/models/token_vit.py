"""A vision transformer of timm with a class token for each finding; CLARiTy's encoder."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrlib.models.encoders import load_timm
from cxrlib.models.segment_cam import softmax

DINO = "vit_small_patch16_224.dino"
"""The published size, and its self-supervised weights (Caron et al. 2021, arXiv:2104.14294)."""

GRID = 14
"""Positions are learned on a grid of 14 x 14 and interpolated to every other."""


class TokenViT(nn.Module):
    """A ViT of timm in which a token for each finding takes the place of the one for the image.

    Patches are a linear map of their pixels or, with a ``stem``, come of 3 x 3 convolutions of
    stride 2, each with twice the channels of the one before, the last with those of a token (Xiao
    et al. 2021, "Early convolutions help transformers see better", arXiv:2106.14881). The other
    arguments are those of :class:`cxrlib.models.clarity.CLARiTy`.

    Raises:
        ValueError: an argument is out of its range.
        OSError: the weights are neither in the cache nor can they be downloaded.

    >>> vit = TokenViT(14, 32, 1, 2, 8, stem=True, pretrained=False, fused=True)
    >>> [part.shape[1:] for part in vit(torch.rand(1, 1, 64, 64))]
    [torch.Size([14, 32]), torch.Size([32, 8, 8]), torch.Size([14, 8, 8])]
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        stem: bool,
        pretrained: bool,
        fused: bool,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width = {width}, heads = {heads}; a multiple of heads was expected")
        if pretrained and (width, depth, heads, patch, stem) != (384, 12, 6, 16, False):
            raise ValueError(
                f"width = {width}, depth = {depth}, heads = {heads}, patch = {patch}, stem = "
                f"{stem} with pretrained=True; DINO's weights are of the published 384, 12, 6 and "
                "16, without a stem"
            )
        sizes = {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": patch}
        vit = load_timm(DINO, pretrained, in_chans=1, num_classes=0, img_size=GRID * patch, **sizes)
        self.stride, self.fused = patch, fused
        self.embed = conv_stem(width, patch) if stem else vit.patch_embed.proj
        self.blocks, self.norm = vit.blocks, vit.norm
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


def conv_stem(width: int, patch: int) -> nn.Sequential:
    """Convolutions (B, 1, H, W) -> (B, width, H / patch, W / patch).

    Raises:
        ValueError: the patch is no power of 2, or the width cannot be halved as often.
    """
    halvings = patch.bit_length() - 1
    if patch < 2 or patch != 2**halvings or width % 2 ** (halvings - 1):
        raise ValueError(
            f"width = {width}, patch = {patch} with a stem; a power of 2 was expected for the "
            "patch, and a multiple of half of it for the width"
        )
    layers: list[nn.Module] = []
    channels = 1
    for halving in reversed(range(halvings)):
        wider = width // 2**halving
        layers += [
            nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
        ]
        channels = wider
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))
