"""A report as one HTML page: tables, a line for each number, and maps to look at.

The page holds its style and its pictures, runs no script and loads nothing, so that it can be read
offline and sent around. The same report gives the same bytes.
"""

from collections.abc import Sequence
from html import escape

from cxrlib.datasets.base import CXRDataset
from cxrlib.findings import FINDINGS
from cxrlib.metrics import listing
from cxrlib.metrics.bootstrap import Estimate
from cxrlib.metrics.cases import Case, cases
from cxrlib.metrics.listing import CONTROLS, digits, groups, shown, spoken
from cxrlib.metrics.markup import SCALE, Html, document, key, plot, table
from cxrlib.metrics.protocols import PROTOCOLS
from cxrlib.metrics.report import PRIOR, SHARE, Report, flat
from cxrlib.metrics.scorer import MODEL
from cxrlib.predictions import Predictions

PER_FINDING = ("pointing", "continuous_dice")

_MARKS = {
    MODEL: "model with its 95 % interval",
    PRIOR: "location prior",
    "centre_prior": "centre prior",
    "random": "random map",
    "grid_ceiling": "grid ceiling",
}
_LOOK = """\
Of each finding the cases with the highest, the median and the lowest continuous Dice. Cyan: true
boxes. Colour: the map, from its minimum to its maximum, so that weak maps look as bright as strong
ones; the caption gives the maximum. White cross: the maximum. These are extremes, not a sample."""


def html(report: Report, dataset: CXRDataset, predictions: Predictions) -> str:
    """The page.

    Args:
        report: of these predictions and this dataset.
        dataset: the images that were scored.
        predictions: of the dataset's images, in any order.

    Raises:
        OSError: an image cannot be read.
    """
    sections = {"Classification": _classification(report)}
    if report.localized:
        sections |= {
            "Localization": _localization(report),
            "By finding": _by_finding(report),
            "By stratum": [_table(listing.strata(report, kind)) for kind in report.scored.strata],
            "Tuned thresholds": [_thresholds(report)],
        }
    else:
        sections["Localization"] = [f"<p>{escape(listing.NOTHING_LOCATED)}</p>"]
    if report.difference:
        sections["Difference"] = _difference(report)
    if report.localized:
        sections["Cases"] = _cases(cases(report.scored, dataset, predictions))
    body = [*_head(report), _contents([*sections])]
    for title, parts in sections.items():
        body += [f'<h2 id="{_anchor(title)}">{title}</h2>', *parts]
    of = report.provenance
    return document(f"{of['predictions']} on {of['dataset']}", body)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _contents(titles: Sequence[str]) -> str:
    links = " ".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in titles)
    return f"<nav>{links}</nav>"


def _head(report: Report) -> list[str]:
    of = report.provenance
    against = f"{of['against']} ({of['against_sha256']})" if of["against"] else "no other model"
    facts = {
        "predictions": f"{of['predictions']} ({of['predictions_sha256']})",
        "compared with": against,
        "dataset": f"{of['dataset']}, part {of['part']}",
        "data, split": f"{of['data_hash']}, {of['split_hash']}",
        "frame": f"{of['frame']} × {of['frame']} px",
        "bootstrap": f"{of['replicates']:,} replicates over patients, seed {of['seed']}",
        "cxrlib": of["version"],
        "notes": "; ".join(of["notes"]) or "–",
    }
    entries = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    return [
        f"<h1>{escape(of['predictions'])} on {escape(of['dataset'])}</h1>",
        f'<p class="lead">{of["images"]:,} images of {of["patients"]:,} patients; '
        f"{of['pairs']:,} pairs of image and finding with a box.</p>",
        f"<dl>{entries}</dl>",
    ]


def _classification(report: Report) -> list[str]:
    numbers = flat(report.scored.classification["auroc"])
    plots = [plot(number, {}) for number in numbers.values()]
    return [_note(listing.LABELS_LEGEND), _plotted(listing.classification(report), plots)]


def _localization(report: Report) -> list[str]:
    plots = []
    for name in (name for names in groups().values() for name in names):
        macro = {source: of[name]["macro"] for source, of in report.summaries.items()}
        controls = {control: macro[control] for control in CONTROLS}
        plots.append(plot(macro[MODEL], controls) if PROTOCOLS[name].unit == SHARE else Html())
    return [
        _note(listing.MAPS_LEGEND),
        key(_MARKS),
        _plotted(listing.protocols(report), plots),
        _conventions(),
    ]


def _note(text: str) -> str:
    """A legend; each of its signs begins a line of its own."""
    return f"<p>{escape(text).replace(chr(10) + '~', '<br>~')}</p>"


def _plotted(of_terminal: listing.Table, plots: Sequence[str]) -> str:
    """A table of the terminal with a line for each number after its name."""
    following = iter(plots)
    rows: list[listing.Row] = [
        row if isinstance(row, str) else (row[0], next(following), *row[1:])
        for row in of_terminal.rows
    ]
    name, *names = of_terminal.head
    return _table(listing.Table((name, SCALE, *names), rows))


def _table(of_terminal: listing.Table) -> str:
    rows = [row if isinstance(row, str) else [*map(_marked, row)] for row in of_terminal.rows]
    return table([*map(_marked, of_terminal.head)], rows)


def _marked(cell: str) -> str:
    """A mark or a blank after the number gets a width of its own, for the numbers to stand level.

    In a terminal all characters have the same.
    """
    number, mark = cell[:-2], cell[-2:]
    if mark not in ("  ", " ~", " *"):
        return cell
    return Html(f'{escape(number)}<span class="mark">{mark.strip()}</span>')


def _conventions() -> str:
    rows: list[Sequence[str] | str] = []
    for origin, names in groups().items():
        rows += [origin, *([n, PROTOCOLS[n].threshold, PROTOCOLS[n].boxes] for n in names)]
    inner = table(["protocol", "threshold", "boxes"], rows, "words")
    return f"<details><summary>Threshold and box convention of each</summary>{inner}</details>"


def _by_finding(report: Report) -> list[str]:
    parts = []
    for protocol in PER_FINDING:
        of = {source: flat(report.summaries[source][protocol]) for source in (MODEL, *CONTROLS)}
        boxed = [name for name in FINDINGS if of[MODEL][name].n]
        rows = [_finding({s: numbers[name] for s, numbers in of.items()}, name) for name in boxed]
        head = ["finding", SCALE, "model", "n", *CONTROLS.values()]
        parts += [f"<h3>{protocol}</h3>", table(head, rows)]
    return parts


def _finding(numbers: dict[str, Estimate], name: str) -> list[str]:
    model = numbers.pop(MODEL)
    values = [digits(number.value) for number in numbers.values()]
    return [spoken(name), plot(model, numbers), shown(model), str(model.n), *values]


def _thresholds(report: Report) -> str:
    """A column for each origin, as its protocols share their thresholds."""
    chosen = report.scored.scores[MODEL].thresholds
    tuned = {PROTOCOLS[name].origin: thresholds for name, thresholds in chosen.items()}
    known = report.summaries[MODEL]["pointing"]["per_finding"]
    boxed = [finding for finding in FINDINGS if known[finding].n]
    rows = [[spoken(f), *(f"{of_origin[f]:g}" for of_origin in tuned.values())] for f in boxed]
    return table(["finding", *tuned], rows)


def _difference(report: Report) -> list[str]:
    parts = [_note(listing.minus(report)), _table(listing.label_differences(report))]
    if not report.localized:
        return parts
    return [*parts, "<h3>protocols</h3>", _table(listing.protocol_differences(report))]


def _cases(chosen: Sequence[Case]) -> list[str]:
    parts = [f"<p>{_LOOK}</p>"]
    for name in FINDINGS:
        figures = [_figure(case) for case in chosen if case.finding == name]
        if figures:
            parts += [f"<h3>{spoken(name)}</h3>", f'<div class="cases">{"".join(figures)}</div>']
    return parts


def _figure(case: Case) -> str:
    words = f"{spoken(case.finding)}, {case.rank} map: radiograph {case.image_id} with true boxes"
    boxes = "".join(
        f"M{100 * x0:.2f} {100 * y0:.2f}H{100 * x1:.2f}V{100 * y1:.2f}H{100 * x0:.2f}z"
        for x0, y0, x1, y1 in case.boxes
    )
    drawn = f'<path class="under" d="{boxes}"/><path class="box" d="{boxes}"/>'
    if case.peak is not None:
        x, y = (100 * part for part in case.peak)
        cross = f"M{x - 3:.2f} {y:.2f}h6M{x:.2f} {y - 3:.2f}v6"
        drawn += f'<path class="under" d="{cross}"/><path class="cross" d="{cross}"/>'
    caption = (
        f"<b>{case.rank}</b> {escape(case.image_id)}<br>Dice {digits(case.dice)}, "
        f"max S {digits(case.highest)}, p {digits(case.probability)}"
    )
    return (
        f'<figure><div class="view"><img alt="{escape(words)}" '
        f'src="data:image/png;base64,{case.png}">'
        f'<svg viewBox="0 0 100 100" aria-hidden="true">{drawn}</svg></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
