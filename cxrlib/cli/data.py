"""``cxrlib download`` and ``cxrlib data``: fetch a dataset, and show what one holds."""

import argparse
from pathlib import Path
from typing import Any

from cxrlib import datasets
from cxrlib.cli.options import add_place, given, refuse_suffix
from cxrlib.files import write_atomic, write_csv


def add(commands: Any) -> None:
    """Add both commands."""
    download = commands.add_parser("download", help="fetch, check and extract a dataset")
    download.add_argument("dataset", choices=["nih"])
    download.add_argument("--to", type=Path, metavar="FOLDER")
    download.add_argument("--parts", type=int, nargs="+", metavar="PART", help="default: all")
    download.add_argument("--list", action="store_true", help="what each part brings; no download")
    download.add_argument("--verify", action="store_true", help="compare with the checksums again")
    download.add_argument("--delete-archives", action="store_true", help="once they are extracted")
    download.set_defaults(do=_download)
    data = commands.add_parser("data", help="show what a dataset holds")
    data.add_argument("dataset", help=", ".join(datasets.LOADERS))
    data.add_argument("--image-size", type=int, default=256, metavar="PIXELS", help="default: 256")
    data.add_argument("--seed", type=int, default=0, help="of the split; default: 0")
    data.add_argument("--sheet", type=Path, metavar="PNG", help="draw a contact sheet")
    data.add_argument("--csv", type=Path, metavar="CSV", help="write all counts")
    add_place(data)
    data.set_defaults(do=_data)


def _download(options: argparse.Namespace) -> None:
    from cxrlib.datasets import download as nih

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
        refuse_suffix(path, suffix)
    from cxrlib.datasets import summary

    split = datasets.load(
        options.dataset, options.data_dir, options.image_size, seed=options.seed, **given(options)
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
