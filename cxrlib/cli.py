"""The ``cxrlib`` command: run a notebook into a run folder, collect runs into a table."""

import argparse
import sys
from pathlib import Path

import yaml

from cxrlib import __version__, runs
from cxrlib.files import write_atomic


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.do(options)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"cxrlib: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cxrlib", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="execute a notebook into a run folder")
    run.add_argument("notebook", type=Path)
    run.add_argument("run_dir", type=Path)
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    run.set_defaults(do=_run)
    collect = commands.add_parser("collect", help="one tidy CSV of all runs below a folder")
    collect.add_argument("folder", type=Path)
    collect.add_argument("csv", type=Path)
    collect.set_defaults(do=_collect)
    return parser


def _run(options: argparse.Namespace) -> None:
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    print(runs.execute(options.notebook, options.run_dir, parameters))


def _collect(options: argparse.Namespace) -> None:
    text = runs.collect(options.folder).to_csv(index=False, float_format="%.6g")
    write_atomic(options.csv, lambda file: file.write(text.encode()))
