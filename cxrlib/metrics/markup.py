"""What the HTML page is made of: its frame and style, tables, and a line for each number."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from cxrlib.metrics.bootstrap import Estimate

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #667482; --line: #dde3e8; --back: #fff;
  --band: #f5f7f9; --model: #1f6fb2; --prior: #c2570c; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ea; --soft: #93a0ac; --line: #333c45;
  --back: #14181c; --band: #1b2126; --model: #6db3f2; --prior: #f0975a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2.5rem 1.5rem 5rem; background: var(--back);
  color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0 .9rem; }
.lead, figcaption, .note { color: var(--soft); }
nav a { color: var(--model); margin-right: 1.1rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: 13px;
  margin: 1.2rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin-bottom: 1.4rem; }
.mark { display: inline-block; width: 1.1em; padding-left: .25em; text-align: left;
  color: var(--prior); }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem; text-align: right; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--line); color: var(--soft); font-weight: 500;
  vertical-align: bottom; }
th:first-child, table.words td { text-align: left; }
th:first-child { padding-left: 0; }
table.words td { white-space: normal; }
.scale { display: flex; justify-content: space-between; width: 190px; }
tbody th { font-weight: 400; }
tbody tr:hover { background: var(--band); }
tr.group th { padding-top: 1rem; font-weight: 600; }
tr.mean > * { font-weight: 600; border-bottom: 1px solid var(--line); }
svg { display: block; overflow: visible; }
.axis { stroke: var(--line); }
.ends { stroke: var(--model); stroke-width: 2; }
.model { fill: var(--model); }
.location_prior { fill: var(--prior); }
.centre_prior { fill: none; stroke: var(--soft); }
.random, .grid_ceiling { stroke: var(--soft); fill: none; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; font-size: 13px; margin: .6rem 0 1rem; }
.key span { display: inline-flex; align-items: center; gap: .4rem; }
.cases { display: grid; grid-template-columns: repeat(3, minmax(0, 256px)); gap: 1rem 1.2rem; }
figure { margin: 0; }
.view { position: relative; aspect-ratio: 1; background: #000; }
.view > * { position: absolute; inset: 0; width: 100%; height: 100%; }
.view svg { fill: none; overflow: hidden; }
.view .under { stroke: #000; stroke-width: 1.4; }
.view .box { stroke: #00e5ff; stroke-width: .7; }
.view .cross { stroke: #fff; stroke-width: .7; }
figcaption { font-size: 12px; line-height: 1.4; margin-top: .35rem; overflow-wrap: anywhere; }
img.strip { max-width: 100%; height: auto; }
.notice { border-left: 4px solid var(--prior); padding-left: .8rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; }
"""

_WIDTH, _MARGIN, _MIDDLE = 190, 6, 8  # of a line for a number, pixels
_SHAPES = {
    "random": '<path class="random" d="M{l} 5l6 6m0 -6l-6 6"/>',
    "centre_prior": '<circle class="centre_prior" cx="{x}" cy="8" r="3"/>',
    "grid_ceiling": '<path class="grid_ceiling" d="M{x} 3v10"/>',
    "location_prior": '<path class="location_prior" d="M{x} 3.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>',
    "model": '<circle class="model" cx="{x}" cy="8" r="4"/>',
}
"""Marks, each drawn over those before it."""


class Html(str):
    """What is HTML already; any other string is text."""


SCALE = Html('<span class="scale"><span>0</span><span>1</span></span>')
"""Heads a column of :func:`plot`."""


def document(title: str, body: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: text.
        body: HTML, part by part.
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style></head>",
            "<body>",
            *body,
            "</body></html>",
            "",
        ]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str] | str], style: str = "numbers") -> str:
    """A table; numbers to the right.

    Args:
        head: each column's heading.
        rows: cells, the first being the row's heading; a string is a heading of its own for the
            rows after it. All text is escaped but :class:`Html`.
        style: ``"numbers"``, or ``"words"`` to the left.

    >>> table(["finding", "n"], [["Mass", "<3"]]).splitlines()[-2]
    '<tr><th scope="row">Mass</th><td>&lt;3</td></tr>'
    """
    headings = "".join(f'<th scope="col">{_escaped(name)}</th>' for name in head)
    lines = []
    for row in rows:
        if isinstance(row, str):
            wide = f'<th scope="colgroup" colspan="{len(head)}">{_escaped(row)}</th>'
            lines.append(f'<tr class="group">{wide}</tr>')
            continue
        opening = '<tr class="mean">' if row[0] == "mean" else "<tr>"
        cells = "".join(f"<td>{_escaped(cell)}</td>" for cell in row[1:])
        lines.append(f'{opening}<th scope="row">{_escaped(row[0])}</th>{cells}</tr>')
    start = f'<div class="wide"><table class="{style}"><thead><tr>{headings}</tr></thead><tbody>'
    return "\n".join([start, *lines, "</tbody></table></div>"])


def _escaped(text: str) -> str:
    return text if isinstance(text, Html) else escape(text)


def plot(model: Estimate, controls: Mapping[str, Estimate]) -> Html:
    """A line from 0 to 1 with the model's number, its interval, and the controls.

    Args:
        model: 0 to 1; nothing is drawn of a number that is not defined.
        controls: name -> number, 0 to 1.

    Returns:
        an SVG element, hidden from screen readers: the numbers stand beside it.
    """
    values = {name: number.value for name, number in controls.items()} | {"model": model.value}
    axis = "".join(f'<path class="axis" d="M{_at(x)} 2v12"/>' for x in (0, 0.5, 1))
    axis += f'<path class="axis" d="M{_at(0)} 8H{_at(1)}"/>'
    ends = ""
    if not math.isnan(model.low):
        ends = f'<path class="ends" d="M{_at(model.low)} 8H{_at(model.high)}"/>'
    marks = [_mark(name, values[name]) for name in _SHAPES if name in values]
    size = f'width="{_WIDTH}" height="{2 * _MIDDLE}"'
    drawn = [axis, *marks[:-1], ends, marks[-1]]
    return Html(f'<svg {size} aria-hidden="true">{"".join(drawn)}</svg>')


def key(names: Mapping[str, str]) -> str:
    """What the marks of :func:`plot` mean.

    Args:
        names: mark -> text.
    """
    entries = []
    for name, meaning in names.items():
        mark = _SHAPES[name].format(x=8, l=5)
        svg = f'<svg width="16" height="16" aria-hidden="true">{mark}</svg>'
        entries.append(f"<span>{svg}{escape(meaning)}</span>")
    return f'<div class="key">{"".join(entries)}</div>'


def _mark(name: str, value: float) -> str:
    if math.isnan(value):
        return ""
    return _SHAPES[name].format(x=_at(value), l=_at(value, -3))


def _at(value: float, shift: float = 0) -> str:
    """Where a value from 0 to 1 is, in pixels."""
    return f"{_MARGIN + value * (_WIDTH - 2 * _MARGIN) + shift:.1f}"
