"""``cxrlib run`` and ``cxrlib collect``: execute a notebook, and one table of many runs."""

import argparse
from pathlib import Path
from typing import Any

from cxrlib.cli.options import given
from cxrlib.files import write_csv
from cxrlib.parameters import nearest


def add(commands: Any) -> None:
    """Add both commands."""
    run = commands.add_parser("run", help="execute a notebook into a run folder")
    run.add_argument("notebook", type=Path)
    run.add_argument("run_dir", type=Path)
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    about = "put aside a run with other parameters, code or data that the folder holds"
    run.add_argument("--renew", action="store_true", help=about)
    run.set_defaults(do=_run)
    collect = commands.add_parser("collect", help="one tidy CSV of all runs below a folder")
    collect.add_argument("folder", type=Path)
    collect.add_argument("csv", type=Path)
    collect.add_argument("--metrics", nargs="+", metavar="NAME", help="only these; default: all")
    collect.add_argument("--findings", nargs="+", metavar="NAME", help="only these; default: all")
    collect.set_defaults(do=_collect)


def _run(options: argparse.Namespace) -> None:
    from cxrlib.execution import execute

    print(execute(options.notebook, options.run_dir, given(options), renew=options.renew))


def _collect(options: argparse.Namespace) -> None:
    from cxrlib import runs

    table = runs.collect(options.folder)
    for column, names in (("metric", options.metrics), ("finding", options.findings)):
        if names is not None:
            known = table[column].unique().tolist() if len(table) else []
            for name in set(names) - set(known):
                raise ValueError(f"no {column} {name!r} in these runs; {nearest(name, known)}")
            table = table[table[column].isin(names)]
    write_csv(options.csv, table)
