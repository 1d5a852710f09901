"""A report in a terminal; the words that the HTML page shares with it."""

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import NamedTuple

from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.classification import CLASSIFICATION_METRICS, SPECIFICITY
from cxrlib.metrics.protocols import PROTOCOLS, TUNED
from cxrlib.metrics.report import AGAINST, MAIN, PRIOR, SHARE, Report, flat
from cxrlib.metrics.scorer import MODEL

WIDTH = 100
"""Of a terminal, characters."""

CONTROLS = {
    "random": "random",
    "centre_prior": "centre",
    PRIOR: "prior",
    "grid_ceiling": "ceiling",
}
"""Controls and what heads their columns."""

METRICS = dict(zip(CLASSIFICATION_METRICS, ("AUROC", "AP", "Brier", "ECE", "sens@.9"), strict=True))
"""Metrics of classification and what heads their columns."""

RANKED = ("auroc", "average_precision")
"""Those shown with their intervals."""

LABELS_LEGEND = f"""\
AUROC and AP (average precision) with 95 % intervals over patients. Brier score and ECE, the
calibration error, are better when lower. sens@.9: sensitivity at a specificity of {SPECIFICITY}."""
MAPS_LEGEND = """\
95 % intervals over patients. macro: mean of findings; micro: all pairs of image and finding that
have a box; n: their number. Controls (macro): random map; centre, a spot in the middle; prior,
where the finding usually is in other patients; ceiling, a perfect map on the model's grid.
~  not better than the location prior: the interval of the paired difference does not exclude 0.
oracle: the threshold is chosen on the scored pairs, an upper bound; tuned: on half of the patients
(boxval), scored on the others (boxtest)."""
PAIRED = "Paired: both models are drawn the same patients. *  the interval excludes 0."
NOTHING_LOCATED = (
    "only classification: there are no maps in the predictions, or no boxes in this part"
)

Row = tuple[str, ...] | str
"""Cells, or a heading for the rows after it."""


class Table(NamedTuple):
    """Text of a table."""

    head: tuple[str, ...]
    rows: list[Row]


def text(report: Report) -> str:
    """The numbers of a report, to be read in a terminal 100 characters wide.

    Args:
        report: of any scoring.

    Returns:
        lines: what was scored, classification, every protocol beside the controls, strata, and the
        difference to another model where there is one.
    """
    lines = [part for line in head(report) for part in wrap(line, WIDTH)]
    blocks = ["\n".join(lines), _grid(classification(report)), LABELS_LEGEND]
    if report.localized:
        blocks += [_grid(protocols(report)), MAPS_LEGEND]
        blocks += [_grid(strata(report, kind)) for kind in report.scored.strata]
    else:
        blocks.append(NOTHING_LOCATED)
    if report.difference:
        blocks += [minus(report), _grid(label_differences(report))]
        blocks += [_grid(protocol_differences(report))] if report.localized else []
    return "\n\n".join(blocks)


def head(report: Report) -> Iterator[str]:
    """Lines that say what was scored on what, and how."""
    of = report.provenance
    yield f"{of['predictions']} ({of['predictions_sha256']}) on {of['dataset']}, {of['part']}"
    yield (
        f"{of['images']:,} images of {of['patients']:,} patients; "
        f"{of['pairs']:,} pairs of image and finding with a box"
    )
    yield f"data {of['data_hash']}, split {of['split_hash']}, cxrlib {of['version']}"
    yield f"frame {of['frame']} px, {of['replicates']:,} replicates, seed {of['seed']}"
    yield from of["notes"]


def shown(number: Estimate, sign: str = "") -> str:
    """A number with its interval, short enough for a table; a dash where it is not defined.

    Args:
        number: to show.
        sign: ``"+"`` to show that of positive numbers too.

    >>> shown(Estimate(0.5, 0.4, 0.6, 9)), shown(Estimate(123.0, 99.9, 150.0, 9))
    ('0.50 [0.40, 0.60]', '123 [99.9, 150]')
    """
    value, low, high = (digits(x, sign) for x in (number.value, number.low, number.high))
    return value if math.isnan(number.low) else f"{value} [{low}, {high}]"


def digits(x: float, sign: str = "") -> str:
    """Three digits or so, a dash for NaN.

    >>> digits(0.123), digits(12.34), digits(0.1, "+"), digits(math.nan)
    ('0.12', '12.3', '+0.10', '–')
    """
    if math.isnan(x):
        return "–"
    places = 2 if abs(x) < 9.995 else 1 if abs(x) < 99.95 else 0
    return f"{x:{sign}.{places}f}"


def policy(protocol: str) -> str:
    """A protocol's threshold policy in a word.

    >>> policy("pointing"), policy("maxboxacc"), policy("clarity_iou@0.5")
    ('none', 'oracle', 'tuned')
    """
    threshold = PROTOCOLS[protocol].threshold
    return "tuned" if threshold == TUNED else threshold.split(":")[0].split("'")[0]


def groups() -> dict[str, list[str]]:
    """Protocols by what heads them: origin, and unit where it is not a share."""
    found: dict[str, list[str]] = {}
    for name, protocol in PROTOCOLS.items():
        unit = "" if protocol.unit == SHARE else f": {protocol.unit}, lower is better"
        found.setdefault(protocol.origin + unit, []).append(name)
    return found


def spoken(name: str) -> str:
    """A finding's name as people write it.

    >>> spoken("Pleural_Thickening"), spoken("macro")
    ('Pleural Thickening', 'mean')
    """
    return "mean" if name == "macro" else name.replace("_", " ")


def classification(report: Report) -> Table:
    """A table of the metrics of labels, the mean and each finding."""
    tables = {name: flat(summary) for name, summary in report.scored.classification.items()}
    rows: list[Row] = []
    for finding in ("macro", *FINDINGS):
        numbers = {name: table[finding] for name, table in tables.items()}
        cells = [
            shown(number) if name in RANKED else digits(number.value)
            for name, number in numbers.items()
        ]
        n = "" if finding == "macro" else str(numbers["auroc"].n)
        rows.append((spoken(finding), *cells, n))
    return Table(("finding", *METRICS.values(), "positive"), rows)


def protocols(report: Report) -> Table:
    """A table of every protocol by origin, beside the controls."""
    rows: list[Row] = []
    for origin, names in groups().items():
        rows += [origin, *(_protocol(report, name) for name in names)]
    head = ("protocol", "macro [95 %]  ", "micro", "n", *CONTROLS.values(), "threshold")
    return Table(head, rows)


def _protocol(report: Report, name: str) -> Row:
    summary = report.summaries[MODEL][name]
    mark = "~" if report.beats_prior(name) is False else " "
    return (
        name,
        f"{shown(summary['macro'])} {mark}",
        digits(summary["micro"].value),
        str(summary["micro"].n),
        *(digits(report.summaries[control][name]["macro"].value) for control in CONTROLS),
        policy(name),
    )


def strata(report: Report, kind: str) -> Table:
    """A table of some protocols (micro) in each stratum of a kind."""
    rows: list[Row] = []
    for stratum, scores in report.scored.strata[kind].items():
        numbers = [scores.summary(name)["micro"] for name in MAIN]
        rows.append((stratum, *map(shown, numbers), str(numbers[0].n)))
    return Table((f"by {kind} (micro)", *MAIN, "n"), rows)


def minus(report: Report) -> str:
    """What the differences are of."""
    return f"{report.provenance['predictions']} minus {report.provenance['against']}\n{PAIRED}"


def label_differences(report: Report) -> Table:
    """A table of the differences of some metrics of labels; there is a second model."""
    assert report.difference is not None
    tables = {name: flat(s) for name, s in report.difference.classification.items()}
    rows: list[Row] = []
    for finding in ("macro", *FINDINGS):
        auroc, precision, brier = (starred(tables[name][finding]) for name in (*RANKED, "brier"))
        p = "" if finding == "macro" else probability(report.difference.delong[finding].p)
        rows.append((spoken(finding), auroc, p, precision, brier))
    return Table(("finding", "AUROC  ", "DeLong p", "AP  ", "Brier  "), rows)


def protocol_differences(report: Report) -> Table:
    """A table of every protocol's difference by origin; there is a second model."""
    rows: list[Row] = []
    for origin, names in groups().items():
        rows.append(origin)
        for name in names:
            macro, micro = (report.summaries[AGAINST][name][mean] for mean in ("macro", "micro"))
            rows.append((name, starred(macro), starred(micro), str(micro.n)))
    return Table(("protocol", "macro [95 %]  ", "micro [95 %]  ", "n"), rows)


def starred(difference: Estimate) -> str:
    """A difference with its interval, and a star if that excludes 0.

    >>> starred(Estimate(0.1, 0.05, 0.15, 9)), starred(Estimate(0.1, -0.1, 0.3, 9))
    ('+0.10 [+0.05, +0.15] *', '+0.10 [-0.10, +0.30]  ')
    """
    star = "*" if difference.low > 0 or difference.high < 0 else " "
    return f"{shown(difference, '+')} {star}"


def probability(p: float) -> str:
    """A p-value, a dash for NaN.

    >>> probability(0.0421), probability(1e-9), probability(math.nan)
    ('0.042', '<0.001', '–')
    """
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _grid(table: Table) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    rows = [table.head, *table.rows]
    cells = [row for row in rows if not isinstance(row, str)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(row if isinstance(row, str) else _line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: Sequence[int]) -> str:
    first, *others = row
    padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *padded]).rstrip()
