"""HAM's level 1: foreground attention, which reweighs the features that both classifiers see.

Ouyang et al. 2021; the layers are those of the released code, weight for weight.
"""

import torch
from torch import Tensor, nn

REDUCTION = 8
"""Narrowing of the gate of channels."""


class ForegroundModule(nn.Module):
    """Level 1: two convolutions around a foreground attention block; no loss acts on it directly.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*conv_norm(inputs, outputs))
        self.block = ForegroundAttention(outputs)
        self.after = nn.Sequential(*conv_norm(outputs, outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, h, w) -> (B, outputs, h, w) and what attention added, (B, 1, h, w)."""
        x = self.before(x)
        added = self.block(x)
        return self.after(x + added), added


class ForegroundAttention(nn.Module):
    """A gate of channels, then one of places; what it gives is added to every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.w = nn.Conv2d(channels, 1, 1, bias=False)
        self.g = nn.Sequential(
            nn.Linear(channels, channels // REDUCTION, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // REDUCTION, channels, bias=False),
        )
        self.u = nn.Conv2d(channels, channels, 1, bias=False)
        self.p = nn.Conv2d(channels, 1, 1, bias=False)
        self.z = nn.Sequential(*conv_norm(1, 1))
        self.gamma = nn.Parameter(torch.zeros(1))  # the block starts as the identity
        for convolution in (self.w, self.u, self.p):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> gamma p z, (B, 1, h, w)."""
        w = self.w(x).flatten(2).softmax(-1)  # (B, 1, hw)
        context = (x.flatten(2) * w).sum(-1)  # (B, C)
        u = self.u(x) * self.g(context).sigmoid()[..., None, None]  # (B, C, h, w)
        p = self.p(u)  # (B, 1, h, w)
        return self.gamma * p * self.z(p).sigmoid()


def conv_norm(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    """A 3 x 3 convolution and its normalization."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outputs)
