"""``python -m cxrlib.explorers``: make the data and the still picture of a page."""

import argparse
import json
from pathlib import Path

from cxrlib.explorers import __doc__ as description
from cxrlib.explorers import figures, sharpness, thresholds
from cxrlib.files import write_atomic


def main(arguments: list[str] | None = None) -> None:
    """Write ``<page>.js`` and ``<page>.png``."""
    parser = argparse.ArgumentParser("python -m cxrlib.explorers", description=description)
    pages = parser.add_subparsers(dest="page", required=True)
    pages.add_parser("r0").add_argument("runs", type=Path, help="folder of LSE-LBA runs")
    pages.add_parser("conventions")
    for page in pages.choices.values():
        page.add_argument("out", type=Path, help="folder: book/_static/explorers")
    chosen = parser.parse_args(arguments)
    if chosen.page == "r0":
        data = sharpness.data(chosen.runs)
        figure = figures.sharpness(data)
    else:
        data = thresholds.data()
        figure = figures.thresholds(data)
    script = f"(window.cxrlib ||= {{}}).{chosen.page} = {json.dumps(data, allow_nan=False)};\n"
    write_atomic(chosen.out / f"{chosen.page}.js", lambda file: file.write(script.encode()))
    picture = chosen.out / f"{chosen.page}.png"
    write_atomic(picture, lambda file: figure.savefig(file, format="png", dpi=160))


if __name__ == "__main__":
    main()
