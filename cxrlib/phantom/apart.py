"""What a small network tells phantom and radiograph apart by."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from cxrlib.metrics.classification import binary_auroc
from cxrlib.phantom.realism import Radiographs, shrunk
from cxrlib.progress import track

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda images: images,
    "grey values evened": lambda images: _ranks(images),
    "centre only": lambda images: images[..., 12:-12, 12:-12],
    "blurred": lambda images: nn.functional.avg_pool2d(images, 4),
    "fine detail only": lambda images: images - _veil(images),
}
"""What the images are reduced to before a network tells phantom and radiograph apart."""


def _ranks(images: Tensor) -> Tensor:
    """Every image with the same, even histogram."""
    flat = images.flatten(1)
    return flat.argsort(1).argsort(1).view_as(images).float() / flat.shape[1]


def _veil(images: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)


def tell_apart(
    phantom: Radiographs, real: Radiographs, *, epochs: int = 6, seed: int = 0
) -> pd.DataFrame:
    """How well a small network tells phantom and radiograph apart, and by what.

    It is trained anew on each of :data:`VIEWS`, in three folds; an image is scored by the network
    that has not seen its patient.

    Args:
        phantom, real: n and m images; they are averaged down to 64 pixels per side.
        epochs: passes over the images.
        seed: of weights and order.

    Returns:
        one row per view: ``view``, AUROC ``value`` (0.5: cannot be told) with its 95 % interval
        over patients (``low``, ``high``), ``n``, ``seed``.
    """
    images = torch.cat([shrunk(part.pixels, 64) for part in (phantom, real)])[:, None]
    is_real = torch.cat([torch.zeros(len(phantom.pixels)), torch.ones(len(real.pixels))])
    patients = np.concatenate(
        [np.char.add("phantom ", phantom.patients), np.char.add("real ", real.patients)]
    )
    folds = list(GroupKFold(3, shuffle=True, random_state=seed).split(images, groups=patients))
    rows = []
    for name, view in track(VIEWS.items(), "telling phantom and radiograph apart", len(VIEWS)):
        seen, scores = view(images), torch.zeros(len(images))
        for train, test in folds:
            scores[test] = _classify(seen, is_real, train, test, epochs, seed)
        auroc = binary_auroc(scores.numpy(), is_real.numpy(), patients, seed=seed)
        rows.append({"view": name, **auroc.to_json(), "seed": seed})
    return pd.DataFrame(rows)


def _classify(
    images: Tensor, target: Tensor, train: np.ndarray, test: np.ndarray, epochs: int, seed: int
) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = [1, 16, 32, 64]
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(channels)
        ]
        network = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 1)
        )
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(epochs):
            for batch in torch.from_numpy(train)[torch.randperm(len(train))].split(32):
                logits = network(images[batch])[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(logits, target[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.eval()
    with torch.no_grad():
        return torch.cat(
            [network(part)[:, 0] for part in images[torch.from_numpy(test)].split(256)]
        )
