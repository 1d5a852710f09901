"""Studies: what several arms score over several seeds, and whether two of them differ.

A seed draws the images, the weights and the order of training, so arms are compared within a seed.
Intervals are Student's, over seeds: they tell how much another seed would have moved the number,
while the intervals of a single run are over its patients.

``python -m cxrlib.studies runs/study/ham results/ham_history.csv`` writes what was logged after
every epoch of the runs below a folder.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cxrlib import runs
from cxrlib.files import write_csv

Row = tuple[str, Sequence[str], str]
"""Metric, findings of which the mean is taken, and part: what :func:`by_seed` looks up."""


def by_seed(
    runs: pd.DataFrame,
    arm: str,
    metric: str,
    findings: Sequence[str] = ("macro",),
    part: str = "localization",
) -> pd.DataFrame:
    """One number of each run: arms as columns, seeds as rows.

    Args:
        runs: tidy rows of :func:`cxrlib.runs.collect`.
        arm: the parameter that tells arms apart, a column.
        metric: a protocol, or a metric of classification.
        findings: rows of the metric, ``"macro"`` or ``"mean"`` or findings, of which the mean is
            taken.
        part: ``"localization"``, ``"classification"`` or a control.

    Raises:
        ValueError: an arm lacks a seed that another has, or has it twice, or no row is left.

    >>> rows = [("cam", 0, "pointing", "Mass", "localization", 0.2)]
    >>> columns = ["variant", "seed", "metric", "finding", "part", "value"]
    >>> runs = pd.DataFrame(rows, columns=columns)
    >>> float(by_seed(runs, "variant", "pointing", ["Mass"]).loc[0, "cam"])
    0.2
    """
    wanted = (runs["metric"] == metric) & (runs["part"] == part) & runs["finding"].isin(findings)
    rows = runs[wanted]
    if rows.duplicated([arm, "seed", "finding"]).any():
        raise ValueError(f"an arm has a seed twice: {metric}, told apart by {arm!r}")
    table = rows.pivot(index="seed", columns=[arm, "finding"], values="value")
    if table.empty or table.isna().any(axis=None):
        raise ValueError(f"some {arm!r} lack a seed or a value of {metric} of {list(findings)}")
    return table.T.groupby(level=0, sort=False).mean().T


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval of each arm.

    Args:
        values: of :func:`by_seed`, at least two seeds.

    Returns:
        a row for each arm: value, low, high, n (the number of seeds).

    Raises:
        ValueError: there are fewer than two seeds.

    >>> over_seeds(pd.DataFrame({"cam": [0.2, 0.3, 0.4]})).round(3).loc["cam"].tolist()
    [0.3, 0.052, 0.548, 3.0]
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} seed; an interval over seeds needs at least 2")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    mean = values.mean()
    return pd.DataFrame({"value": mean, "low": mean - half, "high": mean + half, "n": len(values)})


def differences(values: pd.DataFrame, against: str | float) -> pd.DataFrame:
    """How much more each arm scores than one of them, seed by seed.

    Args:
        values: of :func:`by_seed`.
        against: the arm to subtract.

    Returns:
        as :func:`over_seeds`, without that arm.

    >>> values = pd.DataFrame({"cam": [0.2, 0.3], "pylon": [0.4, 0.5]})
    >>> differences(values, "cam").round(3).loc["pylon"].tolist()
    [0.2, 0.2, 0.2, 2.0]
    """
    return over_seeds(values.drop(columns=against).sub(values[against], axis=0))


def compared(
    runs: pd.DataFrame, arm: str, rows: Mapping[str, Row], claims: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """Differences between arms, for people.

    Args:
        runs, arm: of :func:`by_seed`.
        rows: title -> metric, findings and part, of :func:`by_seed`; a column each.
        claims: what is claimed -> the arm said to score more, and the other one; a row each.

    >>> columns = ["variant", "seed", "metric", "finding", "part", "value"]
    >>> numbers = [("cam", 0, 0.2), ("cam", 1, 0.3), ("pylon", 0, 0.4), ("pylon", 1, 0.5)]
    >>> rows = [(a, s, "pointing", "macro", "localization", v) for a, s, v in numbers]
    >>> runs = pd.DataFrame(rows, columns=columns)
    >>> asked = {"pointing": ("pointing", ["macro"], "localization")}
    >>> compared(runs, "variant", asked, {"it points": ("pylon", "cam")}).loc["it points"].tolist()
    ['+0.20 [+0.20, +0.20]']
    """
    table = {}
    for title, row in rows.items():
        values = by_seed(runs, arm, *row)
        table[title] = {
            claim: show(differences(values[[more, less]], less).iloc[0])
            for claim, (more, less) in claims.items()
        }
    return pd.DataFrame(table)


def show(number: pd.Series) -> str:
    """A row of :func:`over_seeds` for people.

    >>> show(over_seeds(pd.DataFrame({"cam": [0.2, 0.3, 0.4]})).loc["cam"])
    '+0.30 [+0.05, +0.55]'
    """
    return "{value:+.2f} [{low:+.2f}, {high:+.2f}]".format(**number)


def histories(root: Path, parameters: Sequence[str]) -> pd.DataFrame:
    """What the finished runs below a folder logged, epoch by epoch.

    Args:
        root: searched for run folders at any depth.
        parameters: of the runs, to tell them apart: columns.

    Returns:
        a row for each run and epoch: run, these parameters, commit, and what was logged.

    Raises:
        ValueError: there is no finished run.
    """
    tables = []
    for path in runs.in_runs(root, "history.json"):
        if not (path.parent / "metrics.json").exists():
            continue  # interrupted
        params = json.loads((path.parent / "params.json").read_text())
        environment = json.loads((path.parent / "environment.json").read_text())
        origin = {name: params[name] for name in parameters}
        table = pd.DataFrame(json.loads(path.read_text()))
        first = {"run": path.parent.name, **origin, "commit": environment["git_commit"]}
        tables.append(pd.DataFrame(first, index=table.index).join(table))
    if not tables:
        raise ValueError(f"no finished run below {root}")
    return pd.concat(tables, ignore_index=True)


def finished(root: Path) -> dict[Path, dict[str, Any]]:
    """Folder -> parameters of every finished run below a folder, and ``"notebook"``, its name.

    Args:
        root: searched at any depth.

    >>> finished(Path("no such folder"))
    {}
    """
    return {
        path.parent: json.loads((path.parent / "params.json").read_text())
        | {"notebook": next((of.stem for of in path.parent.glob("*.ipynb")), None)}
        for path in runs.in_runs(root, "metrics.json")
    }


def main(arguments: list[str] | None = None) -> None:
    """Gather histories into a table."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.studies")
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("table", type=Path, help="CSV file to write")
    parser.add_argument("--by", nargs="+", default=["seed"], help="parameters that tell runs apart")
    chosen = parser.parse_args(arguments)
    write_csv(chosen.table, histories(chosen.root, chosen.by))


if __name__ == "__main__":
    main()
