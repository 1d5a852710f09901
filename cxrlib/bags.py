"""The chapter on pooling: bags of instances, and which instances each pooling learns to know.

A bag is a set of instances with one label, as an image is a map of places with one label. The bags
here are drawn, so that the truth of every instance is known and the experiment takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from cxrlib.losses import multilabel_cross_entropy
from cxrlib.pooling import (
    SHARPNESS,
    LSELBALogOdds,
    LSEPool,
    MaxPool,
    MeanPool,
    NoisyOr,
)

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"seeds": 2, "steps": 20, "bags": 100, "draws": 200},
    "quick": {"seeds": 5, "steps": 300, "bags": 600, "draws": 2000},
}
"""Sizes of ``notebooks/pooling.ipynb``: repetitions, steps of training, bags of each part, and bags
of chance scores."""

SIDE = 6
"""A bag has 6 × 6 instances, which no pooling can tell apart by their place."""
FEATURES, HIDDEN = 8, 16
BATCH = 50
PLAIN, SUBTLE = 3.0, 1.5
"""How far the two kinds of positive instances are from the rest, in standard deviations."""
SHARES = (1 / SIDE**2, 0.1, 0.3, 0.6)
"""Of the instances of a positive bag that are positive: one of 36, some, many, most."""
CONTEXTS = (0.0, 0.5)
"""How far all instances of a positive bag are moved along a third feature, positive or not."""


@dataclass(frozen=True, kw_only=True)
class PoolingParameters:
    """Parameters of ``notebooks/pooling.ipynb``."""

    preset: Literal["smoke", "quick"]
    seed: int

    def __post_init__(self) -> None:
        """Refuse a seed out of range."""
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}; a number of at least 0 was expected")


class AttentionPool(nn.Module):
    """Mean weighted by a second score of each instance (Ilse et al. 2018, without their gate)."""

    def forward(self, scores: Tensor) -> Tensor:
        """(2, ..., h, w), scores and scores of attention -> (...)."""
        S, attention = scores.flatten(-2)
        return (attention.softmax(dim=-1) * S).sum(dim=-1)


ATTENTION = "attention"
POOLINGS: Mapping[str, Callable[[int], nn.Module]] = {
    "mean": lambda k: MeanPool(),
    "LSE": lambda k: LSEPool(SHARPNESS),
    "LSE-LBA": lambda k: LSELBALogOdds(SHARPNESS, (k, 1)),
    "noisy-or": lambda k: NoisyOr(),
    "max": lambda k: MaxPool(),
    ATTENTION: lambda k: AttentionPool(),
}
"""Name -> a pooling of maps of logits (k, bags, h, w) to log-odds (k, bags) of k experiments."""


def pooled(name: str, scores: Tensor) -> Tensor:
    """Log-odds of bags.

    Args:
        name: a key of :data:`POOLINGS`.
        scores: (2, k, n, h, w), scores and scores of attention of k experiments with n bags.

    Returns:
        (k, n).

    >>> pooled("max", torch.zeros(2, 1, 3, 4, 4)).shape
    torch.Size([1, 3])
    """
    pool = POOLINGS[name](scores.shape[1])
    return pool(scores if name == ATTENTION else scores[0])


def by_size(sides: Sequence[int], draws: int, seed: int) -> pd.DataFrame:
    """What scores pool to that know nothing, in bags of several sizes.

    Args:
        sides: h of bags of h × h instances, whose log-odds are normal with mean -2 and deviation 1.
        draws: bags of each size.
        seed: of the scores.

    Returns:
        mean probability: poolings as columns, instances of a bag as index.
    """
    torch.manual_seed(seed)
    table = {}
    for side in sides:
        scores = torch.randn(2, 1, draws, side, side) - 2
        table[side**2] = _probabilities(scores)
    return pd.DataFrame(table).T


def by_share(shares: Sequence[float], side: int = SIDE) -> pd.DataFrame:
    """What perfect scores pool to: log-odds 3 of the positive instances, -3 of the others.

    Args:
        shares: of the instances that are positive, 0 to 1.
        side: h of bags of h × h instances.

    Returns:
        probabilities: poolings as columns, shares as index.
    """
    at = torch.arange(side**2).view(1, 1, side, side)
    table = {}
    for share in shares:
        S = torch.where(at < round(share * side**2), 3.0, -3.0)
        table[share] = _probabilities(torch.stack([S, S]))
    return pd.DataFrame(table).T


def _probabilities(scores: Tensor) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(pooled(name, scores).sigmoid().mean()) for name in POOLINGS}


@dataclass(frozen=True)
class Bags:
    """Bags of instances.

    Attributes:
        x: float32 (n, h w, d), features of the instances.
        kind: int (n, h w): 0 negative, 1 plainly positive, 2 subtly positive.
        label: float32 (n,): 1 if an instance of the bag is positive.
    """

    x: Tensor
    kind: Tensor
    label: Tensor


def draw(n: int, share: float, seed: int, context: float = 0.0) -> Bags:
    """Draw bags, every other one positive.

    Args:
        n: bags.
        share: of the instances of a positive bag that are positive; at least one is.
        seed: of the draw.
        context: how far positive bags are moved as a whole, in standard deviations.

    >>> bags = draw(4, 0.5, seed=0)
    >>> (bags.kind > 0).sum(dim=1).tolist(), bags.label.tolist()
    ([0, 18, 0, 18], [0.0, 1.0, 0.0, 1.0])
    """
    rng, size = np.random.default_rng(seed), SIDE**2
    label = np.arange(n) % 2
    positive = rng.random((n, size)).argsort(axis=1) < max(1, round(share * size))
    kind = positive * label[:, None] * rng.integers(1, 3, (n, size))
    x = rng.standard_normal((n, size, FEATURES))
    x[..., 0] += PLAIN * (kind == 1)
    x[..., 1] += SUBTLE * (kind == 2)
    x[..., 2] += context * label[:, None]
    return Bags(
        torch.from_numpy(x).float(), torch.from_numpy(kind), torch.from_numpy(label).float()
    )


class Scorers(nn.Module):
    """k small networks that score one instance at a time, trained side by side.

    Args:
        k: how many.
        outputs: scores of an instance: 2 with attention.
    """

    def __init__(self, k: int, outputs: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(k, FEATURES, HIDDEN) / FEATURES**0.5)
        self.b = nn.Parameter(torch.zeros(k, 1, HIDDEN))
        self.v = nn.Parameter(torch.randn(k, HIDDEN, outputs) / HIDDEN**0.5)
        self.c = nn.Parameter(torch.zeros(k, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(k, n, h w, d) -> (outputs, k, n, h, w)."""
        k, n, size, _ = x.shape
        hidden = torch.baddbmm(self.b, x.flatten(1, 2), self.w).relu()
        scores = torch.baddbmm(self.c, hidden, self.v)  # (k, n h w, outputs)
        return scores.view(k, n, SIDE, size // SIDE, -1).movedim(-1, 0)


def learn(pooling: str, bags: list[Bags], steps: int, seed: int) -> Scorers:
    """Train a scorer for each of k sets of bags, from the labels of the bags alone.

    Args:
        pooling: a key of :data:`POOLINGS`.
        bags: k sets of as many bags.
        steps: of Adam, each on :data:`BATCH` bags.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    k = len(bags)
    scorers, pool = Scorers(k, 1 + (pooling == ATTENTION)), POOLINGS[pooling](k)
    x, y = torch.stack([b.x for b in bags]), torch.stack([b.label for b in bags])
    weights = [*scorers.parameters(), *pool.parameters()]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    for _ in range(steps):
        batch = torch.randint(x.shape[1], (BATCH,))
        scores = scorers(x[:, batch])
        logits = pool(scores if pooling == ATTENTION else scores[0])  # (k, n)
        optimizer.zero_grad()
        (
            k * multilabel_cross_entropy(logits, y[:, batch])
        ).backward()  # the mean over bags for each scorer
        optimizer.step()
    return scorers


def experiment(seeds: int, steps: int, bags: int, seed: int) -> pd.DataFrame:
    """Every pooling on bags of every share, over several seeds.

    Args:
        seeds: repetitions; each draws its own bags.
        steps, bags: of training, and of each of both parts.
        seed: the first.

    Returns:
        a row per pooling, context, share, seed and metric, with its ``value``: the AUROC of
        :func:`instance_auroc`.
    """
    arms = [
        (context, share, seed + k) for context in CONTEXTS for share in SHARES for k in range(seeds)
    ]
    training, test = (
        [draw(bags, share, 2 * number + part, context) for context, share, number in arms]
        for part in (0, 1)
    )
    rows = []
    for pooling in POOLINGS:
        scorers = learn(pooling, training, steps, seed)
        with torch.no_grad():
            scores = scorers(torch.stack([b.x for b in test]))[-1].flatten(2)  # (k, n, h w)
        rows += [
            (pooling, *arm, metric, value)
            for arm, S, of in zip(arms, scores, test, strict=True)
            for metric, value in instance_auroc(S[of.label > 0], of.kind[of.label > 0]).items()
        ]
    return pd.DataFrame(rows, columns=["pooling", "context", "share", "seed", "metric", "value"])


def instance_auroc(scores: Tensor, kind: Tensor) -> dict[str, float]:
    """How well scores tell positive instances, all and of either kind, from negative ones.

    Args:
        scores: float, of any shape: here those of positive bags, which a map is to explain.
        kind: of :class:`Bags`, of the same shape.

    >>> scores, kind = torch.tensor([0.1, 0.9, 0.2, 0.0]), torch.tensor([0, 1, 0, 2])
    >>> instance_auroc(scores, kind)
    {'instances': 0.5, 'plain': 1.0, 'subtle': 0.0}
    """
    kinds = {"instances": (1, 2), "plain": (1,), "subtle": (2,)}
    found = {}
    for name, wanted in kinds.items():
        kept = torch.isin(kind, torch.tensor((0, *wanted)))
        found[name] = float(roc_auc_score(kind[kept] > 0, scores[kept]))
    return found
