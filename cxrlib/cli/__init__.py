"""The ``cxrlib`` command: notebooks, runs, data, scores, boxes, and your own radiographs.

A module for each group of commands: ``add`` tells the parser about them. What takes long to import
is imported by the command that needs it, so that ``cxrlib --help`` answers at once.
"""

import argparse
import sys

from cxrlib import __version__
from cxrlib.cli import data, export, harvest, notebooks, predict, score


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
    parser = argparse.ArgumentParser("cxrlib", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True)
    for group in (notebooks, data, score, harvest, predict, export):
        group.add(commands)
    return parser
