"""The picture of a reading: the radiograph, and beside it under the maps of some findings."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cxrlib.findings import FINDINGS
from cxrlib.metrics.cases import coloured
from cxrlib.metrics.listing import spoken
from cxrlib.readings import SIDE, Reading

_GAP, _HEAD, _LINE, _SIZE = 8, 24, 19, 14  # pixels: between panels, above them, of text
_LETTER = 7.0  # pixels, of the mean letter at that size
_INK, _SOFT = "white", "#b8c2cc"  # on black


def picture(reading: Reading, findings: Sequence[int], notice: str) -> Image.Image:
    """The radiograph, and once more for each finding, coloured where the finding's map is high.

    Colours are of magma, which colour-blind readers can tell apart, and go from each map's minimum
    to its maximum; the caption gives score and maximum. A white cross marks the maximum.

    Args:
        reading: of one image.
        findings: indices; one panel each.
        notice: is written below the panels.
    """
    panels = [_panel(reading, None), *(_panel(reading, finding) for finding in findings)]
    step, height = panels[0].width + _GAP, panels[0].height
    width = step * len(panels) - _GAP
    lines = textwrap.wrap(notice, max(24, int(width / _LETTER)))
    size = (width, _HEAD + height + len(lines) * _LINE + _GAP)
    sheet = Image.new("RGB", size, "black")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_SIZE)
    for place, (panel, text) in enumerate(zip(panels, _captions(reading, findings), strict=True)):
        sheet.paste(panel, (place * step, _HEAD))
        draw.text((place * step + 4, 3), text, _INK, font)
    for row, line in enumerate(lines):
        draw.text((4, _HEAD + height + 4 + row * _LINE), line, _SOFT, font)
    return sheet


def _captions(reading: Reading, findings: Sequence[int]) -> list[str]:
    """A heading for each panel."""
    of = [
        f"{spoken(FINDINGS[c])}: score {reading.scores[c]:.2f}, map max {reading.maps[c].max():.2f}"
        for c in findings
    ]
    return ["radiograph", *of]


def _panel(reading: Reading, finding: int | None) -> Image.Image:
    """The image without its padding, under the map of a finding if one is given."""
    if finding is None:
        panel = Image.fromarray(reading.picture).convert("RGB")
    else:
        blue_first = coloured(reading.picture, reading.maps[finding])
        panel = Image.fromarray(np.ascontiguousarray(blue_first[..., ::-1]))
        _cross(panel, reading, finding)
    share = np.array([reading.width, reading.height]) / max(reading.width, reading.height)
    width, height = np.maximum(np.rint(SIDE * share).astype(int), 1).tolist()
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    return panel.crop((left, top, left + width, top + height))


def _cross(panel: Image.Image, reading: Reading, finding: int) -> None:
    """Mark the map's maximum."""
    if (peak := reading.peak(finding)) is None:
        return
    long = max(reading.width, reading.height)
    x, y = (
        (at + (long - side) // 2) * SIDE / long
        for at, side in zip(peak, (reading.width, reading.height), strict=True)
    )
    draw = ImageDraw.Draw(panel)
    for colour, width in (("black", 4), ("white", 2)):
        draw.line((x - 7, y, x + 7, y), colour, width)
        draw.line((x, y - 7, x, y + 7), colour, width)
