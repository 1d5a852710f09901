"""Two experiments on the phantom: what wrong labels do to a score, and what a leaked patient does.

Both use a model that is fitted in a fraction of a second, ridge regression on images of 32 x 32
pixels, so that they can be repeated; they compare ways of measuring, and the model is beside the
point.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from cxrlib.datasets.base import Split
from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import Estimate, mean_over_findings
from cxrlib.metrics.classification import replicate_classification
from cxrlib.parameters import PageParameters
from cxrlib.phantom.population import CHRONIC
from cxrlib.phantom.realism import read_all, shrunk

SIDE, PENALTY = 32, 1000.0

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "population": {"n_train": 240, "n_val": 10, "n_test": 120},
        "sizes": (64, 128, 256),
        "halvings": 2,
        "replicates": 50,
    },
    "quick": {
        "population": {"n_train": 1000, "n_val": 10, "n_test": 500},
        "sizes": (64, 128, 256, 512, 1024),
        "halvings": 8,
        "replicates": 500,
    },
}
"""Sizes of ``notebooks/data.ipynb``: the population, the pictures in pixels, the repetitions."""


class DataParameters(PageParameters):
    """Parameters of ``notebooks/data.ipynb``."""


@dataclass(frozen=True)
class Images:
    """Images in a few numbers each, in the order in which the phantom has drawn them.

    Attributes:
        features: float32 (N, 1024), pixels of the shrunk image, its mean and contrast taken out.
        labels: float32 (N, 14), 0/1.
        patients: (N,) strings.
    """

    features: np.ndarray
    labels: np.ndarray
    patients: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.features)


def flatten(split: Split) -> Images:
    """All images of a split, whatever their part."""
    parts = (split.train, split.val, split.test)
    order = np.argsort(np.concatenate([part.image_ids for part in parts]))
    pixels = np.concatenate([shrunk(read_all(part), SIDE).flatten(1).numpy() for part in parts])
    pixels -= pixels.mean(axis=1, keepdims=True)
    features = pixels / pixels.std(axis=1, keepdims=True)
    labels = np.concatenate([part.labels for part in parts])
    patients = np.concatenate([part.patient_ids for part in parts])
    return Images(features[order], labels[order], patients[order])


def ridge_scores(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Ridge regression of labels on pixels.

    Args:
        known: float (n, d), features of the training images.
        labels: float (n, 14), 0/1.
        asked: float (m, d).

    Returns:
        float (m, 14), higher means more likely.
    """
    return np.asarray(Ridge(alpha=PENALTY).fit(known, labels).predict(asked))


def flip(labels: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Labels of which each is wrong with some probability, independently of everything.

    >>> flip(np.array([[0.0, 1.0]]), 1.0, np.random.default_rng(0)).tolist()
    [[1.0, 0.0]]
    """
    return np.where(rng.random(labels.shape) < probability, 1 - labels, labels)


def diluted(auroc: np.ndarray, ppv: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """AUROC against wrong labels, of a score whose AUROC against the truth is known.

    If errors of the labels have nothing to do with the score, a labelled image is a true positive
    with probability ``ppv`` and an unlabelled one with probability ``missed``, and

        AUROC' = 1/2 + (ppv - missed) (AUROC - 1/2).

    Args:
        auroc: against the truth.
        ppv: of the images with the label, the share that has the finding.
        missed: of the images without the label, the same.

    >>> float(diluted(np.array(0.9), np.array(1.0), np.array(0.0)))
    0.9
    >>> float(diluted(np.array(1.0), np.array(0.5), np.array(0.5)))
    0.5
    """
    return 0.5 + (ppv - missed) * (auroc - 0.5)


def label_noise(
    images: Images,
    is_test: np.ndarray,
    noises: tuple[float, ...],
    *,
    replicates: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean AUROC when labels are flipped for training, for the test, or for both.

    Args:
        images: of both parts.
        is_test: bool (N,), disjoint by patient.
        noises: probabilities of a flip, 0 to 0.5.
        replicates, seed: of the bootstrap over patients; the seed also of the flips.

    Returns:
        one row for each ``noise`` and ``flipped`` (training labels, test labels, both, formula):
        ``value``, ``low``, ``high`` and ``n`` images. *formula* is :func:`diluted` of what the
        noisily trained model reaches on clean labels.
    """
    known, asked = images.features[~is_test], images.features[is_test]
    labels, truth = images.labels[~is_test], images.labels[is_test]
    patients, rows = images.patients[is_test], []

    def measure(noise: float, flipped: str, scores: np.ndarray, against: np.ndarray) -> np.ndarray:
        auroc = replicate_classification(scores, against, patients, replicates, seed)[0]
        estimate = Estimate.of(mean_over_findings(auroc), len(against))
        rows.append({"noise": noise, "flipped": flipped, **estimate.to_json()})
        return auroc[:, 0]

    clean = ridge_scores(known, labels, asked)
    for noise in noises:
        rng = np.random.default_rng([seed, round(1000 * noise)])
        noisy, wrong = (
            ridge_scores(known, flip(labels, noise, rng), asked),
            flip(truth, noise, rng),
        )
        reached = measure(noise, "training labels", noisy, truth)
        measure(noise, "test labels", clean, wrong)
        measure(noise, "both", noisy, wrong)
        expected = diluted(reached, *_flipped_shares(truth.mean(axis=0), noise))
        rows.append(
            {"noise": noise, "flipped": "formula", "value": expected.mean(), "n": len(truth)}
        )
    return pd.DataFrame(rows)


def _flipped_shares(prevalence: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """``ppv`` and ``missed`` of labels that are flipped with one probability."""
    right, wrong = prevalence * (1 - noise), (1 - prevalence) * noise
    lost, kept = prevalence * noise, (1 - prevalence) * (1 - noise)
    return right / (right + wrong), lost / (lost + kept)


def leak_worth(
    images: Images, *, halvings: int, replicates: int, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """AUROC on the same images, by training sets that do or do not hold the same patients.

    The patients with several images are halved, and the last image of each is for the test. For the
    test images of one half, the *clean* training set holds the other images of the other half, the
    *leaky* one those of the same half; both hold the patients with one image. So both are of one
    size and kind, and differ only in whose images they hold. Then the halves change places.

    Args:
        images: with several images of some patients.
        halvings: random halvings, whose results are averaged.
        replicates, seed: of the bootstrap over patients; the seed also of the halvings.

    Returns:
        two tables. AUROC: one row for each ``finding``, and for the means "chronic", "acute" and
        "all", with ``clean``, ``leaky``, ``value`` (their difference), ``low``, ``high`` and ``n``
        positives among the test images (of a mean: test images). And the nearest neighbour: of
        ``n`` test images ``k`` are, among *all* other images, most like one of the same patient.

    Raises:
        ValueError: fewer than two patients have several images.
    """
    patients, which, count = np.unique(images.patients, return_inverse=True, return_counts=True)
    several = np.flatnonzero(count > 1)
    if len(several) < 2:
        raise ValueError(f"{len(several)} patients have several images; draw a larger population")
    last = np.zeros(len(images), bool)
    last[len(images) - 1 - np.unique(which[::-1], return_index=True)[1][several]] = True
    labels, owners = images.labels[last], images.patients[last]
    auroc = np.zeros((2, len(FINDINGS), 1 + replicates))
    rng = np.random.default_rng(seed)
    for _ in range(halvings):
        half = np.zeros(len(patients), int)
        half[several] = 1 + rng.permutation(len(several)) % 2  # 0: one image only
        for leaky in (0, 1):
            scores = _scores_of_halves(images, half[which], last, bool(leaky))
            replicated = replicate_classification(scores, labels, owners, replicates, seed)
            auroc[leaky] += replicated[0] / halvings
    return _worth(auroc, labels), _nearest(images, last)


def _scores_of_halves(
    images: Images, half: np.ndarray, last: np.ndarray, leaky: bool
) -> np.ndarray:
    """Scores (n, 14) of all test images; ``half`` is 0 for images of patients with only one."""
    scores = np.zeros((len(images), len(FINDINGS)))
    for asked in (1, 2):
        test = last & (half == asked)
        train = ~last & ((half == 0) | ((half == asked) == leaky))
        scores[test] = ridge_scores(
            images.features[train], images.labels[train], images.features[test]
        )
    return scores[last]


def _worth(auroc: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Rows of :func:`leak_worth` from float (2, 14, 1 + R): clean, leaky."""
    chronic = np.isin(FINDINGS, CHRONIC)
    groups = {name: np.array(FINDINGS) == name for name in FINDINGS}
    groups |= {"chronic": chronic, "acute": ~chronic, "all": np.ones(len(FINDINGS), bool)}
    rows = []
    for name, members in groups.items():
        # A finding counts only where both have a number, so that both means are over the same.
        defined = np.where(np.isnan(auroc).any(axis=0), np.nan, auroc)
        clean, leaky = (mean_over_findings(part[members]) for part in defined)
        n = len(labels) if members.sum() > 1 else int(labels[:, members].sum())
        estimate = Estimate.of(leaky - clean, n)
        rows.append({"finding": name, "clean": clean[0], "leaky": leaky[0], **estimate.to_json()})
    return pd.DataFrame(rows)


def _nearest(images: Images, last: np.ndarray) -> pd.DataFrame:
    unit = images.features - images.features.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    alike = unit[last] @ unit.T  # (n, N)
    alike[np.arange(last.sum()), np.flatnonzero(last)] = -np.inf
    same = images.patients[alike.argmax(axis=1)] == images.patients[last]
    chance = (
        pd.Series(images.patients[last]).map(pd.Series(images.patients).value_counts()) - 1
    ) / (len(images) - 1)
    return pd.DataFrame(
        {
            "k": [int(same.sum())],
            "n": [len(same)],
            "value": [same.mean()],
            "chance": [chance.mean()],
        }
    )
