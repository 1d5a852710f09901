"""Every published number that we hold, beside ours.

``python -m cxrlib.literature.reproduction runs/nih-mini results/reproduction.csv`` looks for our
runs on real radiographs below a folder and writes the table. Two questions are kept apart: whether
the numbers are of the same experiment at all, and on which side of ours the published one lies.
"""

import argparse
import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlib import literature, runs
from cxrlib.files import write_csv
from cxrlib.studies import finished

METRICS = {
    "AUROC": "auroc",
    "point localization accuracy": "pylon_pointing",
    "T(IoBB) Acc": "wang_iobb@{:g}",
    "T(IoBB) AFP": "wang_afp_iobb@{:g}",
    "T(IoU) Acc": "clarity_iou@{:g}",
}
"""The paper's name of a metric -> ours, with the place of its threshold."""

ROWS = {"Mean": "mean", "Mean(8)": "macro", "Macro": "macro", "Micro": "micro", "Average": "micro"}
"""The paper's name of a mean -> ours. PYLON's abstract says "average": its released heat maps give
that number over pairs (micro), not over findings."""

CONTROLS = ("random", "location_prior", "grid_ceiling")
_LESS_IS_BETTER = "T(IoBB) AFP"
_NEARLY_ALL = 0.85  # of the training images: authors keep other shares of them for validation


def setups() -> pd.DataFrame:
    """How each published network was trained, and which run of ours stands beside it.

    Returns:
        columns paper, method, notebook, arm and value (of our run: the parameter that names it),
        training_images, image_size, start (of the weights), test_images and said_by; what is
        not known is NaN.

    >>> setups().set_index("method").loc["LSE-LBA", "image_size"]
    np.int64(512)
    """
    return literature.table("setups.csv")


def reproduction(root: Path) -> pd.DataFrame:
    """Published numbers beside those of our runs on ChestX-ray14.

    Args:
        root: searched for finished runs at any depth.

    Returns:
        a row for each published number of :func:`cxrlib.literature.published`: paper, method,
        table, metric, threshold, finding, published, source, confidence; ours, low, high (95 %
        over patients), n, and our controls under the same protocol; ours_is and verdict, of
        :func:`side` and :func:`verdict`; differs, what is not the same; run and commit. What we
        have no number for is NaN.

    Raises:
        ValueError: two runs could stand beside the same network.

    >>> reproduction(Path("no such folder"))["verdict"].unique().tolist()
    ['not run']
    """
    tables = []
    found = finished(root)
    for setup in setups().to_dict("records"):
        rows = literature.published(str(setup["paper"]))
        rows = rows[rows["method"] == setup["method"]].drop(columns="split")
        folders = [folder for folder, params in found.items() if _stands_beside(params, setup)]
        if len(folders) > 1:
            raise ValueError(f"{folders[0]} and {folders[1]} could both be our {setup['method']}")
        ours = _ours(folders[0]) if folders else {}
        tables.append(
            pd.DataFrame(
                {
                    "paper": setup["paper"],
                    **row,
                    **_beside(row, ours, setup),
                }
                for row in rows.rename(columns={"value": "published"}).to_dict("records")
            )
        )
    return pd.concat(tables, ignore_index=True)


def _stands_beside(params: dict[str, Any], setup: Mapping[Hashable, Any]) -> bool:
    return (
        params["dataset"] == "nih"
        and params["notebook"] == setup["notebook"]
        and str(params.get(setup["arm"])) == str(setup["value"])
    )


def _ours(folder: Path) -> dict[str, Any]:
    environment = json.loads((folder / "environment.json").read_text())
    table = runs.collect(folder)
    params = json.loads((folder / "params.json").read_text())
    return {
        "numbers": table.set_index(["metric", "finding", "part"])[["value", "low", "high", "n"]],
        "training_images": environment["images"]["train"],
        "test_images": environment["images"]["test"],
        "image_size": params["image_size"],
        "start": _start(params),
        "origin": {"run": folder.name, "commit": environment["git_commit"]},
    }


def _start(params: dict[str, Any]) -> str:
    return "pretrained" if params.get("pretrained") else "random"


def _beside(
    row: Mapping[Hashable, Any], ours: dict[str, Any], setup: Mapping[Hashable, Any]
) -> dict[str, Any]:
    """The columns that stand to the right of a published number."""
    metric = METRICS[row["metric"]].format(row["threshold"])
    finding = ROWS.get(row["finding"], row["finding"])
    part = "classification" if metric == "auroc" else "localization"
    place = (metric, finding, part)
    if not ours or place not in ours["numbers"].index:
        names = ("ours", "low", "high", "n", *CONTROLS, "ours_is", "differs")
        return dict.fromkeys(names, math.nan) | {"verdict": "not run"}
    number = ours["numbers"].loc[place]
    n = int(number["n"])
    differs = differences(ours, setup)
    where = side(row["published"], number["low"], number["high"], row["metric"] != _LESS_IS_BETTER)
    return {
        "ours": number["value"],
        "low": number["low"],
        "high": number["high"],
        "n": n,
        **{
            control: ours["numbers"]["value"].get((metric, finding, control), math.nan)
            for control in CONTROLS
        },
        "ours_is": where,
        "differs": differs,
        "verdict": verdict(where, differs),
        **ours["origin"],
    }


def differences(ours: dict[str, Any], setup: Mapping[Hashable, Any]) -> str:
    """What is not the same in two experiments, in words; empty where nothing is.

    Args:
        ours: training_images, test_images, image_size and start.
        setup: the same of the published network, a row of :func:`setups`.

    >>> theirs = {"training_images": 86524, "test_images": 25596, "image_size": 512}
    >>> theirs |= {"start": "random"}
    >>> differences({**theirs, "image_size": 96, "test_images": 814}, theirs)
    '814 of 25,596 test images; 96 px for 512'
    """
    said = []
    if ours["training_images"] < _NEARLY_ALL * setup["training_images"]:
        said.append(f"{ours['training_images']:,} of {setup['training_images']:,} training images")
    if ours["test_images"] != setup["test_images"]:
        said.append(f"{ours['test_images']:,} of {setup['test_images']:,} test images")
    if ours["image_size"] != setup["image_size"]:
        said.append(f"{ours['image_size']} px for {setup['image_size']}")
    if ours["start"] != setup["start"] and not pd.isna(setup["start"]):
        said.append(f"{ours['start']} weights at the start, not {setup['start']}'s")
    return "; ".join(said)


def side(published: float, low: float, high: float, more_is_better: bool = True) -> str:
    """On which side of a published number our 95 % interval lies.

    Returns:
        ``"better"``, ``"worse"``, or ``"not told apart"`` where the interval holds the number.

    >>> side(0.62, 0.14, 0.20), side(0.62, 0.14, 0.20, more_is_better=False)
    ('worse', 'better')
    """
    if low <= published <= high:
        return "not told apart"
    return "better" if (low > published) == more_is_better else "worse"


def verdict(where: str, differs: str) -> str:
    """Whether a published number is reproduced.

    Args:
        where: of :func:`side`.
        differs: of :func:`differences`.

    Returns:
        ``"not comparable"`` where anything differs; else ``"reproduced"`` unless ours is worse.

    >>> verdict("worse", ""), verdict("better", "96 px for 512")
    ('not reproduced', 'not comparable')
    """
    if differs:
        return "not comparable"
    return "not reproduced" if where == "worse" else "reproduced"


def main(arguments: list[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.literature.reproduction")
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("table", type=Path, help="CSV file to write")
    chosen = parser.parse_args(arguments)
    write_csv(chosen.table, reproduction(chosen.root))


if __name__ == "__main__":
    main()
