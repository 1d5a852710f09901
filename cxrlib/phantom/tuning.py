"""From the phantom to patients, with some patients to learn from.

``python -m cxrlib.phantom.tuning run --phantom 4000 --data-dir <ChestX-ray14 folder> --run-dir
<folder>`` trains the network of :mod:`cxrlib.phantom.transfer` on that many phantom images, then on
the folder's own training images, and scores its maps on the boxes before and after. With
``--phantom 0`` it learns from the real images alone. ``python -m cxrlib.phantom.tuning collect
<runs> <table> --data-dir <folder>`` compares many runs, patient by patient.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cxrlib import datasets, metrics, runs, training
from cxrlib.datasets.base import CXRDataset, Split, Truth
from cxrlib.figures import CONTROLS
from cxrlib.files import digest, write_atomic, write_csv
from cxrlib.inference import predict
from cxrlib.metrics.bootstrap import interval
from cxrlib.metrics.controls import controls
from cxrlib.metrics.localization import measure
from cxrlib.phantom import transfer
from cxrlib.predictions import Predictions
from cxrlib.ranks import drawn_maps, drawn_scores
from cxrlib.studies import finished

TUNING: dict[str, Any] = {"epochs": 15, "learning_rate": 1e-3}
"""Of the training on real images, with and without a phantom before it."""

STAGES = {"tuned": "predictions.npz", "phantom only": "predictions_untuned.npz"}
"""Stage -> file of its predictions in a run folder; the second only where there was a phantom."""

Drawn = dict[tuple[str, str], np.ndarray]

_SHOWN = {name: CONTROLS[name] for name in ("location_prior", "random", "grid_ceiling")}


@dataclass(frozen=True, kw_only=True)
class TuningParameters(transfer.TransferParameters):
    """Parameters of a run; ``phantom_images`` are trained on before the real ones."""

    phantom_images: int

    def __post_init__(self) -> None:
        """Refuse a negative number."""
        super().__post_init__()
        if self.phantom_images < 0:
            raise ValueError(f"phantom_images = {self.phantom_images}; 0 or more were expected")


def load(parameters: TuningParameters, settings: dict[str, Any]) -> tuple[Split | None, Split]:
    """The phantom to train on first, if any, and the real images with their official test part."""
    size, seed = settings["image_size"], parameters.seed
    real = datasets.load("nih", parameters.data_dir, size, seed=seed)
    if not parameters.phantom_images:
        return None, real
    options = settings["phantom"] | {"n_train": parameters.phantom_images}
    drawn = datasets.load("phantom", None, size, seed=seed, **options)
    both = digest(drawn.data_hash, real.data_hash)
    return drawn, dataclasses.replace(real, data_hash=both)


def run(parameters: TuningParameters) -> Path:
    """Train, tune and score; the run folder is like a notebook's, and resumes as one does.

    Raises:
        OSError: the real images are absent or damaged, or the run folder cannot be written.
    """
    settings = {**transfer.SETTINGS, **dataclasses.asdict(parameters), "tuning": TUNING}
    drawn, real = load(parameters, settings)
    opened = runs.start("tuning", parameters, settings, real)
    torch.manual_seed(parameters.seed)
    model = transfer.PatchNet(parameters.width, parameters.r0, settings["learning_rate"])
    common = {"batch_size": settings["batch_size"], "seed": parameters.seed}
    common |= {"accelerator": parameters.accelerator}
    histories = []
    if drawn is not None:
        first = opened.workspace / "phantom"
        first.mkdir(exist_ok=True)
        histories.append(training.fit(model, drawn, first, epochs=settings["epochs"], **common))
        if not opened.finished:
            untuned = predict(model, real.test, batch_size=64, accelerator=parameters.accelerator)
            write_atomic(opened.workspace / STAGES["phantom only"], untuned.write)
    model.learning_rate = TUNING["learning_rate"]
    epochs = TUNING["epochs"]
    histories.append(training.fit(model, real, opened.workspace, epochs=epochs, **common))
    begin = time.monotonic()
    predictions = predict(model, real.test, batch_size=64, accelerator=parameters.accelerator)
    results = metrics.evaluate(predictions, real.test, seed=parameters.seed)
    trained = float(sum(history["seconds"].sum() for history in histories))
    seconds = {"train": trained, "evaluate": time.monotonic() - begin}
    return opened.finish(results, seconds, predictions)


def compared(root: Path, test: CXRDataset, count: int = 1000) -> pd.DataFrame:
    """Every size of phantom against none and against the location prior, on the same patients.

    Args:
        root: searched for finished runs at any depth.
        test: the real test images, all with the same draws of their patients.
        count: of draws.

    Returns:
        a row for each phantom_images, stage (of :data:`STAGES`, or a control), against (empty: the
        score itself; ``"scratch"``; ``"location prior"``), metric and mean: value, low and high
        (95 % over patients, of the mean over seeds), seeds. Differences are drawn with the same
        patients and are of common seeds.

    Raises:
        ValueError: there is no run without a phantom to compare with.
    """
    scored: dict[tuple[int, str], dict[int, Drawn]] = {}
    for folder, params in finished(root).items():
        for stage, name in STAGES.items():
            if (folder / name).exists():
                of_stage = scored.setdefault((params["phantom_images"], stage), {})
                predictions = Predictions.read(folder / name)
                grid = predictions.maps.shape[-1]
                of_stage[params["seed"]] = drawn_scores(predictions, test, count)
    scratch = scored.get((0, "tuned"))
    if scratch is None:
        raise ValueError(f"no finished run with phantom_images = 0 below {root}")
    without_model = _controls(test, grid, count)
    prior = without_model["location prior"]
    rows = []
    for (phantom_images, stage), of_seed in sorted(scored.items()):
        place = {"phantom_images": phantom_images, "stage": stage}
        both = sorted(set(of_seed) & set(scratch))
        rows += _rows(place | {"against": ""}, of_seed.values())
        rows += _rows(
            place | {"against": "location prior"}, (_less(s, prior) for s in of_seed.values())
        )
        if phantom_images:
            gains = [_less(of_seed[seed], scratch[seed]) for seed in both]
            rows += _rows(place | {"against": "scratch"}, gains)
    for name, drawn in without_model.items():
        rows += _rows({"phantom_images": 0, "stage": name, "against": ""}, [drawn])
    return pd.DataFrame(rows)


def _controls(test: CXRDataset, grid: int, count: int) -> dict[str, Drawn]:
    """What maps without a model score, by name."""
    truth, size = Truth(test), test.image_size
    sources = {name: of for name, of in controls(truth, grid, size).items() if name in _SHOWN}
    measured = measure(sources, truth, size, ["maps"])
    return {_SHOWN[name]: drawn_maps(of, count) for name, of in measured.items()}


def _less(first: Drawn, second: Drawn) -> Drawn:
    """Differences of what both have."""
    return {key: first[key] - second[key] for key in first.keys() & second.keys()}


def _rows(place: dict[str, Any], seeds: Iterable[Drawn]) -> list[dict[str, Any]]:
    """Means over seeds with intervals over the draws."""
    given = list(seeds)
    rows = []
    for metric, mean in sorted(given[0]) if given else ():
        values = np.mean([of_seed[metric, mean] for of_seed in given], axis=0)
        low, high = interval(values[1:])
        number = {"value": values[0], "low": low, "high": high, "seeds": len(given)}
        rows.append(place | {"metric": metric, "mean": mean} | number)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Train, tune and score, or compare what was scored."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.phantom.tuning")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="train, tune and score")
    one.add_argument("--phantom", type=int, required=True, help="phantom images to train on first")
    one.add_argument("--data-dir", required=True, help="real radiographs, as ChestX-ray14")
    one.add_argument("--run-dir", help="folder of the results")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--accelerator", default="auto", choices=["auto", "cpu", "gpu", "mps"])
    one.set_defaults(do=_run)
    every = commands.add_parser("collect", help="one tidy CSV that compares all runs of a folder")
    every.add_argument("root", type=Path)
    every.add_argument("table", type=Path)
    every.add_argument("--data-dir", required=True, help="real radiographs, as ChestX-ray14")
    every.set_defaults(do=_collect)
    chosen = parser.parse_args(arguments)
    chosen.do(chosen)


def _run(chosen: argparse.Namespace) -> None:
    words = ["--data-dir", chosen.data_dir, "--seed", str(chosen.seed)]
    words += ["--accelerator", chosen.accelerator]
    words += ["--run-dir", chosen.run_dir] if chosen.run_dir else []
    usual = dataclasses.asdict(transfer.parameters_of(words))
    print(run(TuningParameters(**usual, phantom_images=chosen.phantom)))


def _collect(chosen: argparse.Namespace) -> None:
    size = transfer.SETTINGS["image_size"]
    test = datasets.load("nih", chosen.data_dir, size).test
    write_csv(chosen.table, compared(chosen.root, test))


if __name__ == "__main__":
    main()
