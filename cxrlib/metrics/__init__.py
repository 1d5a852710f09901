"""How good are scores and maps: every number with its n and its interval over patients.

>>> sorted(METRICS)
['continuous_dice', 'iou@0.5', 'pointing']
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.classification import score_classification
from cxrlib.metrics.controls import score_controls
from cxrlib.metrics.localization import METRICS, score_pairs, summarise

__all__ = [
    "METRICS",
    "Estimate",
    "evaluate",
    "score_classification",
    "score_controls",
    "score_pairs",
    "summarise",
    "table",
]


def evaluate(
    scores: np.ndarray,
    labels: np.ndarray,
    patient_ids: np.ndarray,
    maps: Tensor | np.ndarray,
    truth: Truth,
    size: int,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict]:
    """Score predictions: the parts of ``metrics.json`` that do not depend on how they were made.

    Args:
        scores: float (N, 14), higher means more likely.
        labels: float (N, 14): 1 present, 0 absent, NaN unknown.
        patient_ids: (N,) strings.
        maps: float (P, h, w), 0 to 1, the map of each pair of ``truth``; may be float16.
        truth: the P (image, finding) pairs that have a box, possibly none.
        size: S, side in pixels of the frame in which maps and truth are compared.
        replicates: of the bootstrap over patients.
        seed: of the bootstrap and of the random control.

    Returns:
        ``{"classification": ..., "localization": {metric: ...}, "controls": {control: {metric:
        ...}}}`` as JSON can hold it: each number is ``{"value", "low", "high", "n"}``, None where
        it is not defined.

    Raises:
        ValueError: shapes disagree, a score is not finite, a map value is not in 0 to 1.
    """
    maps = torch.as_tensor(maps)
    values = score_pairs(maps, truth, size)
    controls = score_controls(truth, max(maps.shape[1:]), size, seed)

    def summaries(of_metrics: dict[str, np.ndarray]) -> dict[str, dict]:
        return {name: summarise(v, truth, replicates, seed) for name, v in of_metrics.items()}

    return _to_json(
        {
            "classification": score_classification(scores, labels, patient_ids, replicates, seed),
            "localization": summaries(values),
            "controls": {name: summaries(of_metrics) for name, of_metrics in controls.items()},
        }
    )


def _to_json(tree: Any) -> Any:
    if isinstance(tree, Estimate):
        return tree.to_json()
    return {name: _to_json(branch) for name, branch in tree.items()}


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
