"""Shortcuts: what a network learns where a device gives the finding away.

``python -m cxrlib.phantom.shortcuts run --strength 0.9 --seed 0 --run-dir <folder>`` trains LSE-LBA
on a phantom in which, on a share of the images, a chest tube is there exactly if there is a
pneumothorax, a pacemaker if a cardiomegaly, a portable marker if an edema and electrode wires if an
infiltration. It is scored on two tests of the same patients with the same findings: with devices as
in training, and with devices that tell nothing. ``python -m cxrlib.phantom.shortcuts collect <runs>
<table> <maps>`` gathers many runs: their scores, and where their maps look on average.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cxrlib import datasets, metrics, runs, training
from cxrlib.datasets.base import CXRDataset, Split
from cxrlib.files import write_atomic, write_csv
from cxrlib.findings import FINDINGS
from cxrlib.inference import predict
from cxrlib.models.lse_lba import LSELBA, PRESETS, LSELBAParameters
from cxrlib.parameters import settings_of
from cxrlib.phantom.controls import controls_of
from cxrlib.phantom.devices import CONFOUNDERS
from cxrlib.phantom.population import labels_of
from cxrlib.predictions import Predictions
from cxrlib.studies import by_seed, differences, show

CONFOUNDED = tuple(CONFOUNDERS.values())
"""Findings that a device gives away; the other ten have none."""

TESTS = {"tied": "devices as in training", "free": "devices that tell nothing"}
"""Test -> what it is."""

METRICS = ("auroc", "pointing", "continuous_dice")


@dataclass(frozen=True, kw_only=True)
class ShortcutParameters(LSELBAParameters):
    """Parameters of a run; ``strength`` is the share of images, 0 to 1, on which devices tell."""

    strength: float

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        super().__post_init__()
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength = {self.strength}; a share from 0 to 1 was expected")


def load(parameters: ShortcutParameters, settings: dict[str, Any]) -> tuple[Split, CXRDataset]:
    """The phantom with its devices tied to findings, and the same test patients without the tie.

    Args:
        parameters: strength and seed.
        settings: image_size, and ``phantom``, the other dials.
    """

    def drawn(strength: float) -> Split:
        dials = settings["phantom"] | dict.fromkeys(CONFOUNDERS, strength)
        return datasets.load("phantom", None, settings["image_size"], seed=parameters.seed, **dials)

    return drawn(parameters.strength), drawn(0.0).test


def run(parameters: ShortcutParameters) -> Path:
    """Train once and score on both tests; the run folder is like a notebook's, and resumes as one.

    Raises:
        OSError: the cache or the run folder cannot be written.
    """
    settings = settings_of(parameters, PRESETS[parameters.preset])
    split, free = load(parameters, settings)
    opened = runs.start("shortcuts", parameters, settings, split)
    torch.manual_seed(parameters.seed)
    model = LSELBA(parameters.r0, learning_rate=settings["learning_rate"], **settings["network"])
    history = training.fit(
        model,
        split,
        opened.workspace,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        seed=parameters.seed,
        accelerator=parameters.accelerator,
    )
    begin = time.monotonic()
    tests = dict(zip(TESTS, (split.test, free), strict=True))
    answers = {
        name: predict(model, test, batch_size=64, accelerator=parameters.accelerator)
        for name, test in tests.items()
    }
    scored = {
        name: metrics.evaluate(answers[name], test, seed=parameters.seed)
        for name, test in tests.items()
    }
    if not opened.finished:
        write_atomic(opened.workspace / "predictions_free.npz", answers["free"].write)
    seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - begin}
    return opened.finish(scored["tied"] | {"free": scored["free"]}, seconds, answers["tied"])


def collect(root: Path) -> pd.DataFrame:
    """Both tests of all finished runs below a folder.

    Args:
        root: searched at any depth.

    Returns:
        tidy rows: strength, seed, test (of :data:`TESTS`), source, data_hash, split_hash, commit;
        part, metric, finding, value, low, high (95 % over patients), n.

    Raises:
        ValueError: there is no finished run.
    """
    tables: list[pd.DataFrame] = []
    for path in runs.in_runs(root, "metrics.json"):
        params, environment, document = (
            json.loads((path.parent / f"{name}.json").read_text())
            for name in ("params", "environment", "metrics")
        )
        origin = {name: params[name] for name in ("strength", "seed")}
        decides = environment["decides"]
        names = ("source", "data_hash", "split_hash")
        also = {name: decides[name] for name in names} | {"commit": environment["git_commit"]}
        for test, scored in (("tied", document), ("free", document["free"])):
            table = pd.DataFrame(_rows(scored))
            tables.append(table.assign(**origin, test=test, **also))
    if not tables:
        raise ValueError(f"no finished run below {root}")
    together = pd.concat(tables, ignore_index=True)
    first = ["strength", "seed", "test", *also]
    return together[[*first, *together.columns.difference(first, sort=False)]]


def _rows(scored: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of the study, model and controls, of every finding and their mean."""
    controls = {name: scored["controls"][name] for name in ("random", "location_prior")}
    controls |= {"grid_ceiling": scored["controls"]["grid_ceiling"]}
    parts = {name: scored[name] for name in ("classification", "localization")} | controls
    return [
        {"part": part, "metric": metric, "finding": finding, **number}
        for part, tables in parts.items()
        for metric in METRICS
        if metric in tables
        for finding, number in _numbers(tables[metric]).items()
        if number["n"]
    ]


def _numbers(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    mean = "mean" if "mean" in table else "macro"
    return {mean: table[mean]} | {name: table["per_finding"][name] for name in FINDINGS}


def mean_maps(root: Path) -> pd.DataFrame:
    """Where networks look: the mean map of a finding over the test images that have it.

    The chests of the phantom lie alike, so a mean map shows a heart, or the place of a device.

    Args:
        root: searched at any depth.

    Returns:
        tidy rows, for the findings with a device and the test with devices as in training, the mean
        over seeds: strength, finding, row, column, value (0 to 1).

    Raises:
        ValueError: there is no finished run.
    """
    tables: list[pd.DataFrame] = []
    for path in runs.in_runs(root, "metrics.json"):
        params = json.loads((path.parent / "params.json").read_text())
        dials = {n: value for n, value in params["phantom"].items() if not n.startswith("n_")}
        controls = controls_of(**dials)
        told = Predictions.read(path.parent / "predictions.npz")
        labels = np.array([labels_of(int(i), params["seed"], controls)[0] for i in told.map_ids])
        for finding in CONFOUNDED:
            of_finding = FINDINGS.index(finding)
            maps = told.maps[labels[:, of_finding] == 1, of_finding]  # (K, h, w)
            mean = maps.astype(np.float32).mean(0)
            row, column = np.indices(mean.shape)
            cells = {"row": row.ravel(), "column": column.ravel(), "value": mean.ravel()}
            tables.append(pd.DataFrame(cells).assign(strength=params["strength"], finding=finding))
    if not tables:
        raise ValueError(f"no finished run below {root}")
    place = ["strength", "finding", "row", "column"]
    every = pd.concat(tables, ignore_index=True)
    return every.groupby(place)["value"].mean().round(4).reset_index()


def answers(study: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """How scores change with the share of telling devices, from none, within seeds.

    Args:
        study: of :func:`collect`, with a strength of 0.
        groups: name -> findings, of which the mean counts.

    Returns:
        a row for each group of findings, score, test and share: change, for people, and sign: 1 or
        -1 where the 95 % interval over seeds leaves out zero, else 0.
    """
    scores = {
        "AUROC": ("auroc", "classification"),
        "pointing": ("pointing", "localization"),
        "continuous Dice": ("continuous_dice", "localization"),
    }
    rows = []
    for group, findings in groups.items():
        for score, (metric, part) in scores.items():
            for test in TESTS:
                of_test = study[study["test"] == test]
                values = by_seed(of_test, "strength", metric, findings, part)
                for share, change in differences(values, 0).sort_index().iterrows():
                    place = {"findings": group, "score": score, "test": test, "share": share}
                    sign = int(change["low"] > 0) - int(change["high"] < 0)
                    rows.append(place | {"change": show(change), "sign": sign})
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Train and score, or gather what was scored."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.phantom.shortcuts")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="train once and score twice")
    one.add_argument("--strength", type=float, required=True, help="share of telling devices")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--run-dir", help="folder of the results")
    one.add_argument("--preset", default="quick", choices=list(PRESETS))
    one.add_argument("--accelerator", default="auto", choices=["auto", "cpu", "gpu", "mps"])
    one.set_defaults(do=_run)
    every = commands.add_parser("collect", help="one tidy CSV of all runs below a folder")
    every.add_argument("root", type=Path)
    every.add_argument("table", type=Path)
    every.add_argument("maps", type=Path)
    every.set_defaults(do=_gather)
    chosen = parser.parse_args(arguments)
    chosen.do(chosen)


def _gather(chosen: argparse.Namespace) -> None:
    write_csv(chosen.table, collect(chosen.root))
    write_csv(chosen.maps, mean_maps(chosen.root))


def _run(chosen: argparse.Namespace) -> None:
    parameters = ShortcutParameters(
        preset=chosen.preset,
        dataset="phantom",
        data_dir=None,
        run_dir=chosen.run_dir,
        seed=chosen.seed,
        image_size=None,
        epochs=None,
        batch_size=None,
        learning_rate=None,
        accelerator=chosen.accelerator,
        num_workers=0,
        r0=5.0,
        strength=chosen.strength,
    )
    print(run(parameters))


if __name__ == "__main__":
    main()
