"""``cxrlib predict``: a trained model's maps on radiographs of one's own."""

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import Any

DEFAULT = "clarity"
"""Of the shipped models the one that points best on real radiographs."""

SEVERAL = 5
"""Failures that are told one by one."""


def add(commands: Any) -> None:
    """Add the command."""
    about = "show a trained model your own radiographs; not a medical device"
    predict = commands.add_parser("predict", help=about, description=about)
    predict.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="PNG, JPEG or DICOM, or a folder"
    )
    predict.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    add_model(predict)
    about = "to show maps of; default: the three with the highest scores"
    predict.add_argument("--findings", nargs="+", metavar="NAME", help=about)
    predict.set_defaults(do=_predict)


def add_model(parser: Any) -> None:
    """Add which model is asked: one of the library's, or that of a run."""
    model = parser.add_mutually_exclusive_group()
    names = "lse_lba, attention_mining, ham, pylon or clarity, as trained on the phantom"
    about = f"{names}; default: {DEFAULT}"
    model.add_argument("--model", default=DEFAULT, metavar="NAME", help=about)
    model.add_argument("--run", type=Path, metavar="FOLDER", help="of a finished run, instead")


def open_model(options: argparse.Namespace) -> Any:
    """The model that the options name, and what is known of it."""
    from cxrlib import weights

    if options.run is not None:
        return weights.of_run(options.run)
    return weights.open_pretrained(options.model)


def _predict(options: argparse.Namespace) -> None:
    from cxrlib import readings
    from cxrlib.findings import finding_index
    from cxrlib.readings import folder

    shown = None
    if options.findings is not None:
        shown = [*dict.fromkeys(finding_index(name) for name in options.findings)]
    folder.refuse_folder(options.out)
    flaws = readings.sound(readings.find_files(options.files))
    bad = {path: flaw for path, flaw in flaws.items() if flaw}
    for path, flaw in bad.items():
        print(f"cxrlib: {path} {flaw}; left out", file=sys.stderr)
    if len(bad) == len(flaws):
        raise ValueError(f"none of {len(bad)} files can be read; give PNG, JPEG or DICOM")
    described = open_model(options)
    good = [path for path in flaws if path not in bad]
    answers = chain(bad.items(), readings.read(described, good))
    made = folder.write(options.out, described, answers, shown)
    report = options.out / "report.html"
    print(f"{folder.notice(described)}\nimages read: {len(made['images'])}; see {report}")
    if failed := [f"{entry['file']} {entry['reason']}" for entry in made["failed"]]:
        more = f"; and {len(failed) - SEVERAL} more" if len(failed) > SEVERAL else ""
        raise RuntimeError(
            f"{len(failed)} of {len(flaws)} files could not be read, the others were: "
            f"{'; '.join(failed[:SEVERAL])}{more}"
        )
