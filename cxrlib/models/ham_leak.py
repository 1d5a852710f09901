"""What it is worth to test HAM on patients it has seen: same test images, as much to learn from.

Two models are trained, each on other images of half of the test patients
(:func:`cxrlib.datasets.boxed.swap_siblings`). Every test image is then scored twice: by the model
that has seen its patient, and by the one that has not. The difference is what a division of boxed
images without regard to patients, as in HAM's released folds, adds to a score.

``python -m cxrlib.models.ham_leak runs/leak results/ham_leak.csv --seeds 0 1 2`` does it on the
phantom, ``--dataset nih --data-dir <folder>`` on real radiographs.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cxrlib import datasets, metrics, provenance, runs, training
from cxrlib.datasets.base import CXRDataset, Split
from cxrlib.datasets.boxed import swap_siblings
from cxrlib.files import write_csv
from cxrlib.inference import predict
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.comparison import compare
from cxrlib.metrics.scorer import MODEL
from cxrlib.models import create_model
from cxrlib.models.ham_presets import PRESETS, HAMParameters
from cxrlib.parameters import settings_of
from cxrlib.predictions import Predictions

PROTOCOLS = ("pointing", "ham_tiou@0.1", "ham_tiou@0.3", "ham_tior@0.25")
CONTROLS = ("random", "location_prior", "grid_ceiling")


def swap(seen: np.ndarray, one: Predictions, other: Predictions, frame: int) -> Predictions:
    """Predictions of the first model where ``seen``, of the second elsewhere.

    Args:
        seen: bool (N,).
        one, other: of the same N images, all with maps.
        frame: side of the images, pixels.

    >>> one, other = (Predictions.from_arrays(["a", "b"], np.full((2, 14), p),
    ...     map_ids=["a", "b"], maps=np.full((2, 14, 1, 1), p), frame=8) for p in (0.25, 0.75))
    >>> swap(np.array([True, False]), one, other, 8).scores[:, 0].tolist()
    [0.25, 0.75]
    """
    scores = np.where(seen[:, None], one.scores, other.scores)
    maps = np.where(seen[:, None, None, None], one.maps, other.maps)
    return Predictions.from_arrays(
        one.image_ids, scores, map_ids=one.image_ids, maps=maps, frame=frame
    )


def trained(parameters: HAMParameters, split: Split) -> Predictions:
    """Train on one half's siblings, or find the run; predictions of the test images."""
    settings = settings_of(parameters, PRESETS[parameters.preset])
    run = runs.start("ham_leak", parameters, settings, split)
    torch.manual_seed(parameters.seed)
    model = create_model(
        "ham",
        ordinal=parameters.ordinal,
        learning_rate=settings["learning_rate"],
        **settings["network"],
    )
    history = training.fit(
        model,
        split,
        run.workspace,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        seed=parameters.seed,
        accelerator=parameters.accelerator,
    )
    start = time.monotonic()
    predictions = predict(
        model, split.test, batch_size=settings["batch_size"], accelerator=parameters.accelerator
    )
    results = metrics.evaluate(predictions, split.test, seed=parameters.seed)
    seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - start}
    run.finish(results, seconds, predictions)
    return predictions


def measure(parameters: HAMParameters, root: Path) -> pd.DataFrame:
    """Train both models of one seed and score every test image with both.

    Args:
        parameters: of the notebook on HAM; without ``box_share``: the boxes of all siblings teach.
        root: folder of the two runs.

    Returns:
        a row for each arm ("leaky", "disjoint", "difference" and controls) and metric: dataset,
        seed, commit, siblings (images that leak to each model), arm, metric, value, low, high, n.
    """
    settings = settings_of(parameters, PRESETS[parameters.preset])
    options = settings.get(parameters.dataset, {})
    split = datasets.load(
        parameters.dataset,
        parameters.data_dir,
        settings["image_size"],
        seed=parameters.seed,
        **options,
    )
    halves = swap_siblings(split, parameters.seed)
    one, other = (
        trained(
            dataclasses.replace(
                parameters, run_dir=str(root / f"{parameters.dataset}-{parameters.seed}-{half}")
            ),
            part,
        )
        for half, part in enumerate(halves)
    )
    first, second = (np.isin(half.test.patient_ids, half.train.patient_ids) for half in halves)
    test, frame = halves[0].test, settings["image_size"]
    arms = {"leaky": swap(first, one, other, frame), "disjoint": swap(second, one, other, frame)}
    kept = test.subset(np.flatnonzero(first | second))
    arms = {arm: of.aligned(kept) for arm, of in arms.items()}
    table = pd.DataFrame(score(kept, arms, parameters.seed))
    table.insert(0, "dataset", parameters.dataset)
    table.insert(1, "seed", parameters.seed)
    table.insert(2, "commit", provenance.git_commit())
    table.insert(3, "siblings", len(halves[0].train) - len(split.train))
    return table


def score(dataset: CXRDataset, arms: Mapping[str, Predictions], seed: int) -> list[dict[str, Any]]:
    """Rows of both arms, of their difference (patients drawn alike) and of the controls."""
    scored = {arm: metrics.score(of, dataset, seed=seed) for arm, of in arms.items()}
    difference = compare(scored["leaky"], arms["leaky"], arms["disjoint"], dataset, seed=seed)
    labels = {arm: of.classification["auroc"]["mean"] for arm, of in scored.items()}
    labels["difference"] = difference.classification["auroc"]["mean"]
    sources = {arm: of.scores[MODEL] for arm, of in scored.items()}
    sources |= {"difference": difference.scores}
    sources |= {control: scored["leaky"].scores[control] for control in CONTROLS}
    rows = [_row(arm, "auroc", number) for arm, number in labels.items()]
    return rows + [
        _row(arm, protocol, of.summary(protocol)["micro"])
        for arm, of in sources.items()
        for protocol in PROTOCOLS
    ]


def _row(arm: str, metric: str, number: Estimate) -> dict[str, Any]:
    return {"arm": arm, "metric": metric, **number.to_json()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all seeds and write the table."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.models.ham_leak")
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("table", type=Path, help="CSV file to write")
    parser.add_argument("--preset", default="quick", choices=[*PRESETS])
    parser.add_argument("--dataset", default="phantom", choices=["phantom", "nih"])
    parser.add_argument("--data-dir", help="folder of the dataset, unless it is the phantom")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--accelerator", default="auto", choices=["auto", "cpu", "gpu", "mps"])
    chosen = parser.parse_args(arguments)
    unset = dict.fromkeys(("image_size", "epochs", "batch_size", "learning_rate", "run_dir"))
    tables = [
        measure(
            HAMParameters(
                preset=chosen.preset,
                dataset=chosen.dataset,
                data_dir=chosen.data_dir,
                seed=seed,
                accelerator=chosen.accelerator,
                num_workers=0,
                pretrained=False,
                ordinal=0.001,
                box_share=None,
                **unset,
            ),
            chosen.root,
        )
        for seed in chosen.seeds
    ]
    write_csv(chosen.table, pd.concat(tables))


if __name__ == "__main__":
    main()
