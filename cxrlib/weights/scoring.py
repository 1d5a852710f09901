"""The shipped models on images they have not seen, side by side and beside the controls.

``python -m cxrlib.weights.scoring --data-dir <ChestX-ray14 folder> --csv <table>`` asks them about
real radiographs: they were trained on drawings alone, so this says how far drawings carry.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from cxrlib import datasets
from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.files import write_csv
from cxrlib.inference import predict
from cxrlib.metrics import Estimate, estimate, measure, score_classification
from cxrlib.metrics.controls import controls
from cxrlib.metrics.experiments import tidy
from cxrlib.metrics.scorer import MODEL, of_predictions
from cxrlib.predictions import Predictions
from cxrlib.weights import SHIPPED, open_pretrained

PROTOCOLS = ("pointing", "continuous_dice")
REAL_FRAME = 256
PRESETS: dict[str, dict[str, int]] = {
    "smoke": {"n_train": 14, "n_val": 14, "n_test": 40, "replicates": 50},
    "quick": {"n_train": 14, "n_val": 14, "n_test": 160, "replicates": 1000},
}
"""Of the page: images to draw, of which only the test part is looked at, and of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class PretrainedParameters:
    """Parameters of ``notebooks/pretrained.ipynb``."""

    preset: Literal["smoke", "quick"]
    seed: int

    def __post_init__(self) -> None:
        """Refuse the patients of training."""
        if self.seed < 1:
            raise ValueError(f"seed = {self.seed}; at least 1: the models were trained on seed 0")


def ask(load: Callable[[int], CXRDataset]) -> dict[str, Predictions]:
    """What every shipped model says of a dataset.

    Args:
        load: image size -> the same images in that size.
    """
    opened = {name: open_pretrained(name) for name in SHIPPED}
    return {
        name: predict(model, load(about["image_size"]), batch_size=32)
        for name, (model, about) in opened.items()
    }


def score(
    answers: dict[str, Predictions],
    dataset: CXRDataset,
    frame: int,
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """AUROC, pointing and continuous Dice of every model and of its controls.

    Args:
        answers: of :func:`ask`.
        dataset: the images, in any size.
        frame: side in pixels of the frame in which maps and truth are compared, for all alike.
        replicates, seed: of the bootstrap over patients; the seed also of the random control.

    Returns:
        one row per model, source (``"model"`` or a control), protocol and finding or mean over
        findings (``macro``): ``model``, ``source``, ``protocol``, ``finding``, ``value``, ``low``,
        ``high``, ``n``.
    """
    truth = Truth(dataset)
    return pd.concat(
        [
            _score(predictions.aligned(dataset), truth, frame, replicates, seed).assign(model=name)
            for name, predictions in answers.items()
        ],
        ignore_index=True,
    )


def _score(
    predictions: Predictions, truth: Truth, frame: int, replicates: int, seed: int
) -> pd.DataFrame:
    dataset = truth.dataset
    sources = {MODEL: of_predictions(predictions, dataset, frame)}
    sources |= controls(truth, predictions.maps.shape[-1], frame, seed)
    measured = measure(sources, truth, frame, ["maps"])
    located = {name: estimate(of, PROTOCOLS, replicates, seed) for name, of in measured.items()}
    labels = score_classification(
        predictions.scores, dataset.labels, dataset.patient_ids, replicates, seed
    )["auroc"]
    numbers: dict[str, Estimate] = {"macro": labels["mean"], **labels["per_finding"]}
    rows = [
        {"source": MODEL, "protocol": "auroc", "finding": finding, **number.to_json()}
        for finding, number in numbers.items()
    ]
    findings = ("macro", "micro", *labels["per_finding"])
    return pd.concat([pd.DataFrame(rows), tidy(located, findings)]).dropna(subset=["value"])


def main(arguments: list[str] | None = None) -> None:
    """Score the shipped models on the test part of ChestX-ray14 and write one table."""
    parser = argparse.ArgumentParser("python -m cxrlib.weights.scoring", description=__doc__)
    parser.add_argument("--data-dir", required=True, help="of ChestX-ray14, or of a part of it")
    parser.add_argument("--csv", required=True, type=Path, metavar="CSV")
    chosen = parser.parse_args(arguments)
    split = datasets.load("nih", chosen.data_dir, REAL_FRAME)
    answers = ask(lambda size: datasets.load("nih", chosen.data_dir, size).test)
    table = score(answers, split.test, REAL_FRAME)
    runs = {name: open_pretrained(name).about["run"] for name in answers}
    write_csv(
        chosen.csv,
        table.assign(
            run=table["model"].map(runs),
            frame=REAL_FRAME,
            data_hash=split.data_hash,
            split_hash=split.split_hash,
        ),
    )


if __name__ == "__main__":
    main()
