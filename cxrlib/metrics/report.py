"""A scoring to keep: what was scored on what, tidy rows for a CSV file, a document for JSON.

:mod:`cxrlib.metrics.listing` shows it in a terminal, :mod:`cxrlib.metrics.page` as an HTML page.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib import __version__
from cxrlib.datasets.base import Split
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.comparison import Difference, compare, refuse_incomparable
from cxrlib.metrics.delong import Comparison
from cxrlib.metrics.estimates import Scores
from cxrlib.metrics.protocols import PROTOCOLS
from cxrlib.metrics.scorer import MODEL, Scored, score
from cxrlib.predictions import Predictions

PRIOR = "location_prior"
ABOVE_PRIOR = f"{MODEL} - {PRIOR}"
AGAINST = f"{MODEL} - other"
MAIN = ("pointing", "continuous_dice", "iou@0.5", "ham_tiou@0.5")
"""Protocols to show where there is no room for all: a point, two regions, a box."""
SHARE = "share"


@dataclass(frozen=True)
class PredictionsFile:
    """Predictions and the file that they are from.

    Attributes:
        name: of the file, without its folder.
        sha256: first 12 hex digits of its checksum.
        predictions: what it holds.
    """

    name: str
    sha256: str
    predictions: Predictions

    @classmethod
    def read(cls, path: Path) -> "PredictionsFile":
        """Read and check a file.

        Raises:
            OSError: it is absent.
            ValueError: as :meth:`Predictions.read`.
        """
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path.name, sha256[:12], Predictions.read(path))


@dataclass(frozen=True)
class Report:
    """What a scoring found, and of what.

    Attributes:
        scored: every number of the model and its controls.
        difference: to another model's numbers, if there is another.
        provenance: what decides the numbers: files with checksums, dataset, part, hashes, counts,
            frame, replicates, seed, version.
    """

    scored: Scored
    difference: Difference | None
    provenance: dict[str, Any]

    @cached_property
    def sources(self) -> dict[str, Scores]:
        """Source -> scores: the model, the controls, and the differences."""
        scores = self.scored.scores
        against = {AGAINST: self.difference.scores} if self.difference else {}
        return scores | {ABOVE_PRIOR: scores[MODEL].minus(scores[PRIOR])} | against

    @cached_property
    def summaries(self) -> dict[str, dict[str, dict]]:
        """Source -> protocol -> ``{"macro", "micro", "per_finding"}``."""
        return {
            source: {name: scores.summary(name) for name in PROTOCOLS}
            for source, scores in self.sources.items()
        }

    @property
    def localized(self) -> bool:
        """Whether there is anything to localize: maps, and images with boxes."""
        return len(self.scored.truth) > 0

    def beats_prior(self, protocol: str) -> bool | None:
        """Whether the model is better than the location prior by more than chance (macro).

        The 95 % interval of their difference on the same draws decides; None where there is none.
        """
        difference = self.summaries[ABOVE_PRIOR][protocol]["macro"]
        if math.isnan(difference.low):
            return None
        return difference.low > 0 if PROTOCOLS[protocol].unit == SHARE else difference.high < 0


def make_report(
    file: PredictionsFile,
    split: Split,
    *,
    part: str = "test",
    frame: int | None = None,
    against: PredictionsFile | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Report:
    """Score a predictions file, and compare it with another.

    Args:
        file: to score.
        split: the dataset.
        part: of the split to score on.
        frame: S, side in pixels of the frame in which maps and truth are compared; by default that
            of the dataset's images.
        against: a second model, whose numbers are subtracted from the first one's.
        replicates: of the bootstrap over patients.
        seed: of the bootstrap and of the random control.

    Raises:
        ValueError: as :func:`~cxrlib.metrics.scorer.score` and
            :func:`~cxrlib.metrics.comparison.compare`; before anything is scored.
    """
    dataset = split.parts[part]
    if against is not None:
        refuse_incomparable(file.predictions, against.predictions)
        against.predictions.aligned(dataset)  # refuses now what else it would after an hour
    scored = score(file.predictions, dataset, frame, replicates=replicates, seed=seed)
    difference = None
    if against is not None:
        pair = file.predictions, against.predictions
        difference = compare(scored, *pair, dataset, replicates=replicates, seed=seed)
    provenance = {
        "predictions": file.name,
        "predictions_sha256": file.sha256,
        "against": against.name if against else None,
        "against_sha256": against.sha256 if against else None,
        "dataset": dataset.name,
        "part": part,
        "data_hash": split.data_hash,
        "split_hash": split.split_hash,
        "notes": list(split.notes),
        "images": len(dataset),
        "patients": len(np.unique(dataset.patient_ids)),
        "pairs": len(scored.truth),
        "frame": scored.size,
        "image_size": dataset.image_size,
        "replicates": replicates,
        "seed": seed,
        "version": __version__,
    }
    return Report(scored, difference, provenance)


_OF_ROWS = ["dataset", "part", "data_hash", "split_hash"]
_OF_ROWS += ["predictions_sha256", "against_sha256", "replicates", "seed", "version"]
_OF_PROTOCOLS = ["origin", "threshold", "tuned_threshold", "boxes", "frame", "unit"]


def rows(report: Report) -> pd.DataFrame:
    """Every number of a report, tidy.

    Args:
        report: of any scoring.

    Returns:
        one row for each source, stratum, protocol and finding. Columns: ``task``
        (``"classification"`` or ``"localization"``); ``source`` (``"model"``, a control,
        ``"model - location_prior"`` or ``"model - other"``); ``stratum_kind`` and ``stratum``
        (empty: all pairs); ``protocol``, ``origin``, ``threshold`` (policy), ``tuned_threshold``,
        ``boxes``, ``frame`` and ``unit``, as :data:`~cxrlib.metrics.protocols.PROTOCOLS` has them;
        ``finding`` (or ``"macro"``, ``"micro"``); ``value``, ``low``, ``high``, ``n``; ``delong_p``
        of a difference of AUROCs; then what was scored. What does not apply is empty.
    """
    table = pd.DataFrame([*_classification_rows(report), *_localization_rows(report)])
    return table.assign(**{name: report.provenance[name] for name in _OF_ROWS})


def flat(summary: dict[str, Any]) -> dict[str, Estimate]:
    """The numbers of a summary by row: ``macro``, ``micro`` where there is one, each finding.

    >>> flat({"mean": 1, "per_finding": {"Mass": 2}})
    {'macro': 1, 'Mass': 2}
    """
    names = {"mean": "macro"}
    means = {names.get(name, name): n for name, n in summary.items() if name != "per_finding"}
    return means | summary["per_finding"]


def _row(task: str, source: str, protocol: str, finding: str, number: Estimate) -> dict[str, Any]:
    """The columns that every row has, in the order of the table; empty ones are filled in."""
    return {
        "task": task,
        "source": source,
        "stratum_kind": None,
        "stratum": None,
        "protocol": protocol,
        **dict.fromkeys(_OF_PROTOCOLS),
        "finding": finding,
        **asdict(number),
        "delong_p": None,
    }


def _classification_rows(report: Report) -> Iterator[dict[str, Any]]:
    difference = report.difference
    sources = {MODEL: report.scored.classification}
    sources |= {AGAINST: difference.classification} if difference else {}
    for source, of_source in sources.items():
        for metric, summary in of_source.items():
            for finding, number in flat(summary).items():
                row = _row("classification", source, metric, finding, number)
                if difference and metric == "auroc" and source == AGAINST and finding != "macro":
                    row["delong_p"] = difference.delong[finding].p
                yield row


def _localization_rows(report: Report) -> Iterator[dict[str, Any]]:
    scored = report.scored
    for source, summaries in report.summaries.items():
        for protocol, summary in summaries.items():
            yield from _protocol_rows(scored, source, protocol, summary)
    for kind, of_kind in scored.strata.items():
        for stratum, scores in of_kind.items():
            place = {"stratum_kind": kind, "stratum": stratum}
            for protocol in scores.n:
                for row in _protocol_rows(scored, MODEL, protocol, scores.summary(protocol)):
                    yield row | place


def _protocol_rows(
    scored: Scored, source: str, protocol: str, summary: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    described = scored.describe(protocol)
    described.pop("thresholds", None)
    # A difference has no threshold of its own: each side was tuned for itself.
    tuned = scored.scores[source].thresholds.get(protocol, {}) if source in scored.scores else {}
    for finding, number in flat(summary).items():
        row = _row("localization", source, protocol, finding, number)
        yield row | described | {"tuned_threshold": tuned.get(finding)}


def to_json(report: Report) -> dict[str, Any]:
    """A report as JSON can hold it.

    Args:
        report: of any scoring.

    Returns:
        what :func:`cxrlib.metrics.evaluate` returns, and ``"provenance"``;
        ``"above_location_prior"``: protocol -> the model minus that control, paired;
        ``"difference"``, None without a second model: the first minus the second, as
        ``"classification"``, ``"delong"`` (finding -> the test) and ``"localization"``.
    """
    difference = report.difference and {
        "classification": report.difference.classification,
        "delong": report.difference.delong,
        "localization": report.summaries[AGAINST],
    }
    more = {"above_location_prior": report.summaries[ABOVE_PRIOR], "difference": difference}
    return {"provenance": report.provenance, **report.scored.to_json(), **_plain(more)}


def _plain(tree: Any) -> Any:
    """Estimates and tests as dictionaries, NaN as None."""
    if isinstance(tree, Estimate):
        return tree.to_json()
    if isinstance(tree, Comparison):
        return _plain(asdict(tree))
    if isinstance(tree, dict):
        return {name: _plain(branch) for name, branch in tree.items()}
    return None if isinstance(tree, float) and math.isnan(tree) else tree
