"""The ``cxrlib`` command: run a notebook, collect runs, download a dataset, show one."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from cxrlib import __version__, datasets, runs
from cxrlib.datasets import download as nih
from cxrlib.datasets import summary
from cxrlib.files import write_atomic, write_csv


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
    download = commands.add_parser("download", help="fetch, check and extract a dataset")
    download.add_argument("dataset", choices=["nih"])
    download.add_argument("--to", type=Path, metavar="FOLDER")
    download.add_argument("--parts", type=int, nargs="+", metavar="PART", help="default: all")
    download.add_argument("--list", action="store_true", help="what each part brings; no download")
    download.add_argument("--verify", action="store_true", help="compare with the checksums again")
    download.add_argument("--delete-archives", action="store_true", help="once they are extracted")
    download.set_defaults(do=_download)
    _add_data(commands)
    return parser


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="show what a dataset holds")
    data.add_argument("dataset", help=", ".join(datasets.LOADERS))
    data.add_argument("--data-dir", metavar="FOLDER", help="of the dataset; the phantom has none")
    data.add_argument("--image-size", type=int, default=256, metavar="PIXELS", help="default: 256")
    data.add_argument("--seed", type=int, default=0, help="of the split; default: 0")
    data.add_argument("--sheet", type=Path, metavar="PNG", help="draw a contact sheet")
    data.add_argument("--csv", type=Path, metavar="CSV", help="write all counts")
    help_of_options = "an option of the dataset, e.g. -p n_test 60 for the phantom"
    data.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=help_of_options
    )
    data.set_defaults(do=_data)


def _run(options: argparse.Namespace) -> None:
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    print(runs.execute(options.notebook, options.run_dir, parameters))


def _collect(options: argparse.Namespace) -> None:
    write_csv(options.csv, runs.collect(options.folder))


def _download(options: argparse.Namespace) -> None:
    if options.list:
        print(nih.show_parts())
        return
    if options.to is None:
        raise ValueError("no folder to download to; give one with --to, or see --list")
    chosen = nih.archives(options.parts)
    try:
        if options.verify:
            nih.verify(options.to, chosen)
        else:
            nih.download(options.to, chosen, delete_archives=options.delete_archives)
    except KeyboardInterrupt:
        raise RuntimeError("interrupted; the same command goes on from what is there") from None


def _data(options: argparse.Namespace) -> None:
    for path, suffix in ((options.sheet, ".png"), (options.csv, ".csv")):
        if path is not None and path.suffix.lower() != suffix:
            raise ValueError(f"{path} does not end in {suffix}; give such a name")
    given = {name: yaml.safe_load(value) for name, value in options.p}
    split = datasets.load(
        options.dataset, options.data_dir, options.image_size, seed=options.seed, **given
    )
    print(summary.text(split))
    if options.csv is not None:
        write_csv(options.csv, summary.counts(split))
    if options.sheet is not None:
        from cxrlib.datasets.sheet import contact_sheet

        figure = contact_sheet(split)
        # Radiographs hardly compress: trying harder takes a second more and saves a sixth.
        quick = {"compress_level": 1}
        write_atomic(
            options.sheet, lambda file: figure.savefig(file, format="png", pil_kwargs=quick)
        )
