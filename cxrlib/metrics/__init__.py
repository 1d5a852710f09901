"""How good are scores and maps: every number with its n and its interval over patients.

One scorer for every protocol of the field; each is named by its origin and says its threshold
policy and its box convention.

>>> PROTOCOLS["maxboxacc_v2"].boxes
'+1, corners truncated'
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cxrlib.datasets.base import CXRDataset
from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.classification import score_classification
from cxrlib.metrics.delong import Comparison, delong
from cxrlib.metrics.estimates import ROWS, Scores, estimate
from cxrlib.metrics.localization import measure, of_pairs
from cxrlib.metrics.protocols import PROTOCOLS
from cxrlib.metrics.scorer import MODEL, Scored, score
from cxrlib.predictions import Predictions

__all__ = [
    "PROTOCOLS",
    "Comparison",
    "Estimate",
    "Scored",
    "Scores",
    "delong",
    "estimate",
    "evaluate",
    "measure",
    "of_pairs",
    "score",
    "score_classification",
    "show",
    "table",
    "table_of_two",
]


def evaluate(
    predictions: Predictions,
    dataset: CXRDataset,
    size: int | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict]:
    """Score predictions: the parts of ``metrics.json`` that do not depend on how they were made.

    Args:
        predictions, dataset, size, replicates, seed: of :func:`~cxrlib.metrics.scorer.score`.

    Returns:
        as JSON can hold it, each number ``{"value", "low", "high", "n"}``, None where not defined:
        ``"classification"``: metric -> mean and per finding; ``"localization"``: protocol ->
        macro, micro and per finding; ``"controls"``: the same of each control; ``"strata"``: kind
        -> stratum -> protocol -> micro; ``"protocols"``: origin, threshold policy, box convention
        and frame of each protocol.

    Raises:
        ValueError: as :func:`~cxrlib.metrics.scorer.score`.
    """
    return score(predictions, dataset, size, replicates=replicates, seed=seed).to_json()


def table(metrics: Mapping[str, Any], metric: str = "pointing") -> pd.DataFrame:
    """A run's numbers for people: "0.81 [0.78, 0.84]", a dash where a number is not defined.

    Args:
        metrics: what :func:`evaluate` returns, or a ``metrics.json``.
        metric: the localization metric to show beside its controls.

    Returns:
        One row per finding, then ``macro`` (mean over findings) and ``micro`` (over pairs).
    """
    labels, controls = metrics["classification"], metrics["controls"]
    columns = {
        "AUROC": labels["auroc"],
        "AP": labels["average_precision"],
        metric: metrics["localization"][metric],
        "location prior": controls["location_prior"][metric],
        "centre prior": controls["centre_prior"][metric],
        "random map": controls["random"][metric],
        "grid ceiling": controls["grid_ceiling"][metric],
    }
    rows = [*FINDINGS, "macro", "micro"]
    shown = {name: [show(_number(column, row)) for row in rows] for name, column in columns.items()}
    counts = {"images": labels["auroc"], "pairs": metrics["localization"][metric]}
    shown |= {
        name: [_number(column, row).get("n", "–") for row in rows]
        for name, column in counts.items()
    }
    return pd.DataFrame(shown, index=rows)


def table_of_two(first: Scored, second: Scored, metric: str = "pointing") -> pd.DataFrame:
    """Two models on the same images, and the first minus the second with its paired interval.

    Args:
        first, second: what :func:`score` found, with the same replicates and seed.
        metric: a key of :data:`PROTOCOLS`.

    Returns:
        One row per finding, then ``macro`` and ``micro``; a dash where a number is not defined.

    Raises:
        ValueError: they were not scored on the same pairs in the same way.
    """
    columns = {
        "first": first.scores[MODEL],
        "second": second.scores[MODEL],
        "difference": first.scores[MODEL].minus(second.scores[MODEL]),
    }
    numbers = {
        name: [
            Estimate.of(*row).to_json()
            for row in zip(of.replicates[metric], of.n[metric], strict=True)
        ]
        for name, of in columns.items()
    }
    shown = {name: [show(number) for number in of] for name, of in numbers.items()}
    return pd.DataFrame(shown | {"pairs": [of["n"] for of in numbers["difference"]]}, index=[*ROWS])


def _number(summary: Mapping[str, Any], row: str) -> Mapping[str, Any]:
    """One number of a column; classification says ``mean`` for macro and has no ``micro``."""
    numbers = {"macro": summary.get("mean"), **summary, **summary["per_finding"]}
    return numbers.get(row, {"value": None})


def show(number: Mapping[str, Any] | Estimate) -> str:
    """A number for people: "0.81 [0.78, 0.84]", a dash where it is not defined.

    >>> show(Estimate(0.81, 0.78, 0.84, 100))
    '0.81 [0.78, 0.84]'
    """
    number = number.to_json() if isinstance(number, Estimate) else number
    if number["value"] is None:
        return "–"
    ends = "" if number["low"] is None else f" [{number['low']:.2f}, {number['high']:.2f}]"
    return f"{number['value']:.2f}{ends}"
