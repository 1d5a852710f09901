"""``cxrlib harvest``: boxes that a run's model mines."""

import argparse
from pathlib import Path
from typing import Any

from cxrlib import datasets
from cxrlib.cli.options import add_place, given, refuse_output
from cxrlib.files import write_csv, write_json


def add(commands: Any) -> None:
    """Add the command."""
    about = "write boxes that a run's model mines where the labels say that a finding is there"
    mine = commands.add_parser("harvest", help=about)
    mine.add_argument("run", type=Path, help="folder of a finished run of a notebook with training")
    mine.add_argument("--dataset", required=True, help=", ".join(datasets.LOADERS))
    add_place(mine)
    mine.add_argument("--part", choices=["train", "val", "test", "all"], default="all")
    help_of_share = "of a map's range from which on a pixel is in a region; default: 0.5"
    mine.add_argument("--share", type=float, default=0.5, help=help_of_share)
    mine.add_argument("--seed", type=int, help="of the split; default: the run's")
    mine.add_argument("--csv", type=Path, metavar="CSV", help="write one row per box")
    mine.add_argument("--coco", type=Path, metavar="JSON", help="write them in COCO's format")
    mine.set_defaults(do=_harvest)


def _harvest(options: argparse.Namespace) -> None:
    if options.csv is None and options.coco is None:
        raise ValueError("nothing to write; give --csv boxes.csv, --coco boxes.json or both")
    refuse_output(options.csv, "csv")
    refuse_output(options.coco, "json", "coco")
    from cxrlib import checkpoints, harvest, harvest_files

    harvest.refuse_share(options.share)
    run = checkpoints.load_model(options.run)
    split = run.load_data(options.dataset, options.data_dir, options.seed, given(options))
    folder = Path(options.data_dir or "").expanduser()
    made = harvest_files.Harvest.of_run(run, split, options.part, options.share, folder=folder)
    if options.csv is not None:
        write_csv(options.csv, made.to_csv())
    if options.coco is not None:
        write_json(options.coco, made.to_coco())
    print(made)
