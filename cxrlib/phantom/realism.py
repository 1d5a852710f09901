"""How close the phantom comes to radiographs, and how hard it is: measurements, not impressions.

Everything is computed from populations of images: the histogram of grey values, the power spectrum,
the sizes and places of findings, what a small network tells phantom and radiograph apart by, and
how far trivial methods get.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from cxrlib.datasets import nih
from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.files import digest
from cxrlib.findings import FINDINGS
from cxrlib.parameters import PageParameters
from cxrlib.phantom.targets import LEVELS, official_boxes
from cxrlib.predictions import Predictions
from cxrlib.progress import track

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "picture": 128,
        "sheet": 96,
        "population": {"n_train": 300, "n_val": 10, "n_test": 300},
        "epochs": 1,
    },
    "quick": {
        "picture": 512,
        "sheet": 256,
        "population": {"n_train": 1400, "n_val": 10, "n_test": 2000},
        "epochs": 6,
    },
}
"""Sizes of ``notebooks/phantom.ipynb``: pixels of the pictures, the population that is measured."""


@dataclass(frozen=True, kw_only=True)
class PhantomParameters(PageParameters):
    """Parameters of ``notebooks/phantom.ipynb``."""

    run_dir: str | None

    def __post_init__(self) -> None:
        """Refuse a seed out of range, and a place for tables that nothing would fill."""
        super().__post_init__()
        if self.run_dir is not None and self.data_dir is None:
            raise ValueError(
                f"run_dir = {self.run_dir!r} keeps the comparison with real radiographs, and none "
                "were given: -p data_dir /data/nih"
            )


def intensity_histogram(pixels: np.ndarray) -> np.ndarray:
    """Share of each grey value in a population of images.

    Args:
        pixels: uint8 (n, H, W).

    Returns:
        float64 (256,), adds up to 1.
    """
    return np.bincount(pixels.ravel(), minlength=256) / pixels.size


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Overlap of two histograms, 0 (disjoint) to 1 (equal): the sum of the smaller shares.

    >>> overlap(np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5]))
    0.5
    """
    return float(np.minimum(one, other).sum())


def power_spectrum(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power spectrum of a population, under a Hann window.

    Args:
        pixels: (n, H, H).

    Returns:
        frequencies in cycles per pixel, from 0, in steps of 1 / H, and mean powers.
    """
    side = pixels.shape[-1]
    window = np.hanning(side).astype(np.float32)
    power = np.zeros((side, side // 2 + 1))
    for image in pixels:
        flat = (image - image.mean(dtype=np.float32)) * window * window[:, None]
        power += np.abs(np.fft.rfft2(flat)) ** 2
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    ring = np.rint(radius * side).astype(int).ravel()
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring) / len(pixels)
    return np.arange(len(mean)) / side, mean


def spectral_slope(
    frequency: np.ndarray, power: np.ndarray, low: float = 0.03, high: float = 0.4
) -> float:
    """Slope of log power against log frequency between two frequencies, cycles per pixel.

    >>> f = np.linspace(0, 0.5, 65)
    >>> round(spectral_slope(f, np.append(0, f[1:] ** -3.0)), 6)
    -3.0
    """
    band = (frequency >= low) & (frequency <= high)
    return float(np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0])


def statistics(pixels: np.ndarray) -> pd.DataFrame:
    """Histogram and power spectrum of a population as one tidy table.

    Args:
        pixels: uint8 (n, H, H).

    Returns:
        columns ``kind`` (histogram, spectrum), ``at`` (grey value, cycles per pixel), ``value``,
        ``n``, ``size`` (H), ``data_hash``.
    """
    frequency, power = power_spectrum(pixels)
    parts = {
        "histogram": (np.arange(256), intensity_histogram(pixels)),
        "spectrum": (frequency, power),
    }
    tables = [
        pd.DataFrame({"kind": kind, "at": at, "value": value})
        for kind, (at, value) in parts.items()
    ]
    return pd.concat(tables, ignore_index=True).assign(
        n=len(pixels), size=pixels.shape[-1], data_hash=digest(pixels.tobytes())
    )


@dataclass(frozen=True)
class Radiographs:
    """Real images to compare with: uint8 (n, H, H), and (n,) patients."""

    pixels: np.ndarray
    patients: np.ndarray


def read_radiographs(data_dir: str, size: int) -> Radiographs:
    """Every image of a folder in the layout of ChestX-ray14.

    Raises:
        OSError: a file is absent or damaged.
        ValueError: the folder's tables are not those of the release.
    """
    split = nih.load(data_dir, size)
    parts = (split.train, split.val, split.test)
    total = sum(map(len, parts))
    names = ((part, str(name)) for part in parts for name in part.image_ids)
    pixels = [part.read_pixels(name) for part, name in track(names, "reading radiographs", total)]
    return Radiographs(np.stack(pixels), np.concatenate([part.patient_ids for part in parts]))


def compare_boxes(truth: Truth) -> pd.DataFrame:
    """Sizes and places of drawn findings beside the official boxes of ChestX-ray14.

    Args:
        truth: boxes of a phantom population.

    Returns:
        one row per finding and quantity (``area`` as a share of the image; ``y``, ``x_right``,
        ``x_left`` as shares of its side; x for the two halves of the image apart): numbers of boxes
        ``n`` and ``n_official``, medians ``median`` and ``official``, and ``spread``, the ratio of
        the interquartile ranges.
    """
    pair, box = np.nonzero(np.isfinite(truth.boxes[..., 0]))
    x0, y0, x1, y1 = truth.boxes[pair, box].T
    x, names = (x0 + x1) / 2, np.array(FINDINGS)[truth.finding[pair]]
    right = x < 0.5
    quantities = {
        "area": ((x1 - x0) * (y1 - y0), slice(None)),
        "y": ((y0 + y1) / 2, slice(None)),
        "x_right": (x, right),
        "x_left": (x, ~right),
    }
    rows = []
    for (finding, quantity), (count, official) in official_boxes().items():
        if quantity not in quantities:
            continue
        values, where = quantities[quantity]
        chosen = names == finding
        # A heart is in the middle: halves of the image do not divide hearts.
        if finding != "Cardiomegaly" and not isinstance(where, slice):
            chosen &= where
        drawn = np.quantile(values[chosen], LEVELS) if chosen.any() else np.full(5, np.nan)
        spread = (drawn[3] - drawn[1]) / (official[3] - official[1])
        rows.append((finding, quantity, chosen.sum(), count, drawn[2], official[2], spread))
    columns = ["finding", "quantity", "n", "n_official", "median", "official", "spread"]
    return pd.DataFrame(rows, columns=columns)


def pixel_baseline(train: CXRDataset, test: CXRDataset, side: int = 32) -> np.ndarray:
    """Scores of logistic regression on small images: what can be told without looking closely.

    Args:
        train, test: patient-disjoint parts of a split.
        side: pixels per side that the images are averaged down to.

    Returns:
        float64 (N, 14), 0 to 1, one row per test image; 0 for a finding that training has never or
        always.
    """
    known, asked = _small(train, side), _small(test, side)
    scores = np.zeros((len(test), len(FINDINGS)))
    for finding, labels in enumerate(train.labels.T):
        if len(set(labels)) == 2:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
            scores[:, finding] = model.fit(known, labels).predict_proba(asked)[:, 1]
    return scores


def _small(part: CXRDataset, side: int) -> np.ndarray:
    return shrunk(read_all(part), side).flatten(1).numpy()


def read_all(part: CXRDataset) -> np.ndarray:
    """The pixels of all images of a dataset, uint8 (n, H, H)."""
    return np.stack([part.read_pixels(str(image_id)) for image_id in part.image_ids])


def shrunk(pixels: np.ndarray, side: int) -> Tensor:
    """uint8 (n, H, H) -> float32 (n, side, side), 0 to 1, averaged."""
    return torch.cat(
        [
            nn.functional.adaptive_avg_pool2d(part.float() / 255, side)
            for part in torch.from_numpy(pixels).split(256)
        ]
    )


def trivial_predictions(train: CXRDataset, test: CXRDataset, grid: int = 32) -> Predictions:
    """What two methods that do not look say of a test part.

    Args:
        train, test: patient-disjoint parts of a split.
        grid: side of the maps.

    Returns:
        the scores of :func:`pixel_baseline`, and for each image with a box the image itself,
        blurred, as the heat map of every finding: it points where the image is brightest.
    """
    boxed = test.subset(np.unique(Truth(test).image))
    small = shrunk(read_all(boxed), grid).numpy()
    blurred = ndimage.gaussian_filter(small, (0, 0.03 * grid, 0.03 * grid)).astype(np.float16)
    return Predictions.from_arrays(
        test.image_ids,
        pixel_baseline(train, test),
        map_ids=boxed.image_ids,
        maps=blurred[:, None].repeat(len(FINDINGS), axis=1),  # (M, 14, grid, grid)
        frame=test.image_size,
    )
