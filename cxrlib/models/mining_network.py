"""The network of attention mining: a ResNet, features of one stride or several, a map of votes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrlib.models.encoders import refuse_sides, resnet
from cxrlib.models.recipe import MEAN, SD
from cxrlib.pooling import logit_pooling

RARE = -2.0
"""The log-odds of each finding that training starts from, as in LSE-LBA."""


class Response(NamedTuple):
    """What a network answers."""

    features: Tensor  # (B, K), their means over the cells
    logits: Tensor  # (B, C), log-odds of the findings
    M: Tensor  # (B, C, h, w), class activation maps of any sign: what each cell says


class CAMNetwork(nn.Module):
    """ResNet, features of one stride or several, and a linear classifier of each cell.

    The arguments are those of :class:`~cxrlib.models.attention_mining.AttentionMining`.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str,
        width: int,
        pretrained: bool,
        msa: bool,
        strides: Sequence[int],
        pooling: str,
        stem: int | None,
    ) -> None:
        super().__init__()
        self.encoder = resnet(encoder, width, pretrained, strides=strides, stem=stem)
        self.stride = strides[-1]
        channels = self.encoder.feature_info.channels()
        self.msa = MSA(channels, 4 * width) if msa else None
        self.head = nn.Conv2d(4 * width if msa else channels[-1], num_classes, 1)
        # Findings are rare: unless the bias says so, maps must, and have nothing above 0 to show.
        _, bias = self.head.parameters()
        nn.init.constant_(bias, RARE)
        self.pool = logit_pooling(pooling)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, H, W), 0 to 1 -> features A (B, K, h, w)."""
        refuse_sides(x, self.stride)
        features = self.encoder((x - MEAN) / SD)
        return features[-1] if self.msa is None else self.msa(features)

    def answer(self, A: Tensor) -> Response:
        """Classify features (B, K, h, w)."""
        weight, bias = self.head.parameters()
        M = F.conv2d(A, weight).float()  # (B, C, h, w)
        logits = self.pool(M + bias[:, None, None])
        return Response(A.float().mean(dim=(-2, -1)), logits, M)


class MSA(nn.Module):
    """Multi-scale aggregation: features of several strides, finest first, in the finest's grid."""

    def __init__(self, inputs: list[int], outputs: int) -> None:
        super().__init__()
        self.side = nn.ModuleList(nn.Conv2d(k, outputs, 1, bias=False) for k in inputs)
        self.norm = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    def forward(self, features: list[Tensor]) -> Tensor:
        """(B, k, h, w), (B, k', h/2, w/2), ... -> (B, outputs, h, w)."""
        size = features[0].shape[-2:]
        aligned = [
            F.interpolate(side(x), size=size, mode="bilinear")  # edges stay on edges: no shift
            for side, x in zip(self.side, features, strict=True)
        ]
        return self.norm(torch.stack(aligned).sum(dim=0))
