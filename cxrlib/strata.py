"""What the runs of a study score on small, medium and large findings, beside the controls there.

``python -m cxrlib.strata runs/study/r0_sensitivity results/r0_sensitivity_sizes.csv --by r0 seed``
reads the finished runs below a folder. A run keeps what its model scores in every stratum; what the
location prior and the other maps without a model score there is computed once for each population.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlib import datasets
from cxrlib.datasets.base import Truth
from cxrlib.files import write_csv
from cxrlib.metrics.controls import controls
from cxrlib.metrics.estimates import estimate
from cxrlib.metrics.localization import measure
from cxrlib.metrics.scorer import strata
from cxrlib.predictions import Predictions
from cxrlib.progress import track
from cxrlib.studies import finished

METRICS = ("pointing", "continuous_dice", "iou@0.5")
"""Protocols that a frame's map is enough for."""

_COLUMNS = ["stratum", "part", "metric", "finding", "value", "low", "high", "n"]


def by_stratum(root: Path, parameters: Sequence[str], kind: str = "size") -> pd.DataFrame:
    """Scores of every run in every stratum.

    Args:
        root: searched for finished runs at any depth.
        parameters: of the runs, to tell them apart: columns.
        kind: of strata, a key of :func:`cxrlib.metrics.scorer.strata`.

    Returns:
        tidy rows: run, the parameters, source, data_hash, commit; stratum, part
        (``"localization"`` or a control), metric, finding (``"micro"``: pairs of all findings),
        value, low, high (95 % over patients), n.

    Raises:
        ValueError: there is no finished run.
    """
    tables: list[pd.DataFrame] = []
    known: dict[tuple[str, int], list[dict[str, Any]]] = {}
    found = finished(root)
    for folder, params in track(found.items(), "scoring strata", len(found)):
        environment = json.loads((folder / "environment.json").read_text())
        decides = environment["decides"]
        grid = Predictions.read(folder / "predictions.npz").maps.shape[-1]
        population = (decides["data_hash"], grid)
        if population not in known:
            known[population] = _controls(params, grid, kind)
        origin = {"run": folder.name} | {name: params[name] for name in parameters}
        origin |= {name: decides[name] for name in ("source", "data_hash")}
        origin |= {"commit": environment["git_commit"]}
        rows = [*_model(folder, kind), *known[population]]
        tables.append(pd.DataFrame(rows, columns=_COLUMNS).assign(**origin))
    if not tables:
        raise ValueError(f"no finished run below {root}")
    table = pd.concat(tables, ignore_index=True)
    return table[[*origin, *_COLUMNS]]


def _model(folder: Path, kind: str) -> list[dict[str, Any]]:
    kept = json.loads((folder / "metrics.json").read_text())["strata"][kind]
    return [
        _row(stratum, "localization", metric, of_stratum[metric])
        for stratum, of_stratum in kept.items()
        for metric in METRICS
    ]


def _controls(params: dict[str, Any], grid: int, kind: str) -> list[dict[str, Any]]:
    """What maps without a model score on the test images of a run."""
    name, size, seed = params["dataset"], params["image_size"], params["seed"]
    options = params.get(name, {})
    split = datasets.load(name, params.get("data_dir"), size, seed=seed, **options)
    truth = Truth(split.test)
    measured = measure(controls(truth, grid, size, seed), truth, size, ["maps"])
    rows = []
    for stratum, among in strata(truth)[kind].items():
        for control, of_control in measured.items():
            scores = estimate(of_control, METRICS, seed=seed, among=among)
            for metric in METRICS:
                number = asdict(scores.summary(metric)["micro"])
                rows.append(_row(stratum, control, metric, number))
    return rows


def _row(stratum: str, part: str, metric: str, number: dict[str, Any]) -> dict[str, Any]:
    place = {"stratum": stratum, "part": part, "metric": metric, "finding": "micro"}
    return place | number


def main(arguments: list[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.strata")
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("table", type=Path, help="CSV file to write")
    parser.add_argument("--by", nargs="+", default=["seed"], help="parameters that tell runs apart")
    parser.add_argument("--kind", default="size", choices=["size", "view"], help="of strata")
    chosen = parser.parse_args(arguments)
    write_csv(chosen.table, by_stratum(chosen.root, chosen.by, chosen.kind))


if __name__ == "__main__":
    main()
