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
from cxrlib.metrics.estimates import Scores, estimate
from cxrlib.metrics.localization import measure
from cxrlib.metrics.protocols import PROTOCOLS
from cxrlib.metrics.scorer import Scored, score
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
    "score",
    "score_classification",
    "table",
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
    shown = {
        name: [_show(_number(column, row)) for row in rows] for name, column in columns.items()
    }
    counts = {"images": labels["auroc"], "pairs": metrics["localization"][metric]}
    shown |= {
        name: [_number(column, row).get("n", "–") for row in rows]
        for name, column in counts.items()
    }
    return pd.DataFrame(shown, index=rows)


def _number(summary: Mapping[str, Any], row: str) -> Mapping[str, Any]:
    """One number of a column; classification says ``mean`` for macro and has no ``micro``."""
    numbers = {"macro": summary.get("mean"), **summary, **summary["per_finding"]}
    return numbers.get(row, {"value": None})


def _show(number: Mapping[str, Any]) -> str:
    if number["value"] is None:
        return "–"
    ends = "" if number["low"] is None else f" [{number['low']:.2f}, {number['high']:.2f}]"
    return f"{number['value']:.2f}{ends}"
