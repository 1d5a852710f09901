"""What reads the tokens and patches of CLARiTy: SegmentCAM, attention pooling, a linear readout.

The paper names the first two; what is inside them is our reading, see
``cxrlib/literature/fidelity.csv``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST = 1e-6
"""Of a token's attention as a share of the mean, so that its logarithm exists."""


def softmax(q: Tensor, k: Tensor) -> Tensor:
    """Attention of queries (..., n, d) to keys (..., m, d): float32 (..., n, m), rows sum to 1."""
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).float().softmax(dim=-1)


class Readout(nn.Module):
    """A linear functional of its own for each finding: (B, C, D) -> (B, C)."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D) -> (B, C)."""
        return (x * self.weight).sum(dim=-1) + self.bias


class AttentionPool(nn.Module):
    """A query for each finding asks all patches; what they answer is weighted and read out."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_classes, width))
        self.read = Readout(num_classes, width)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, D, h, w) -> log-odds (B, C)."""
        x = patches.flatten(2).transpose(1, 2)  # (B, P, D)
        return self.read(softmax(self.queries, x).to(x) @ x)


class SegmentCAM(nn.Module):
    """Two convolutions of the patches: what each place shows, and whether it can show anything."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.class_map = nn.Conv2d(width, num_classes, 3, padding=1)
        self.foreground = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) -> log-odds float32: class map (B, C, h, w) and foreground (B, 1, h, w)."""
        return self.class_map(patches).float(), self.foreground(patches).float()

    def cells(self, S: Tensor, foreground: Tensor, attention: Tensor) -> Tensor:
        r"""The log-odds of each cell: :math:`S_{cj} + \log \sigma(F_j) + \log (P A_{cj})`.

        With even attention, over a sure foreground, it is the class map. A cell in the background
        says less, and so does one that the finding's token does not look at.

        Args:
            S: class map, (B, C, h, w) log-odds.
            foreground: F, (B, 1, h, w) log-odds.
            attention: A, (B, C, h, w), sums to 1 over the P = h w cells.

        Returns:
            (B, C, h, w).
        """
        relative = attention * attention[0, 0].numel()  # 1 where attention is even
        return S + F.logsigmoid(foreground) + relative.clamp(min=LEAST).log()
