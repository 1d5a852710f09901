"""The ``cxrlib`` command: run notebooks, collect runs, show data, score models, mine boxes."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrlib import __version__, datasets, execution, runs
from cxrlib.datasets import download as nih
from cxrlib.datasets import summary
from cxrlib.datasets.nih import FRAME
from cxrlib.files import write_atomic, write_csv, write_json
from cxrlib.options import read_value, refuse_output, refuse_suffix
from cxrlib.parameters import nearest

if TYPE_CHECKING:
    from cxrlib.predictions import Predictions


_OUTPUTS = {
    "csv": "write every number as a tidy table",
    "json": "write every number as a document",
    "html": "write a page with tables and the best, median and worst maps",
}


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
    about = "put aside a run with other parameters, code or data that the folder holds"
    run.add_argument("--renew", action="store_true", help=about)
    run.set_defaults(do=_run)
    collect = commands.add_parser("collect", help="one tidy CSV of all runs below a folder")
    collect.add_argument("folder", type=Path)
    collect.add_argument("csv", type=Path)
    collect.add_argument("--metrics", nargs="+", metavar="NAME", help="only these; default: all")
    collect.add_argument("--findings", nargs="+", metavar="NAME", help="only these; default: all")
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
    _add_score(commands)
    _add_harvest(commands)
    return parser


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="show what a dataset holds")
    data.add_argument("dataset", help=", ".join(datasets.LOADERS))
    data.add_argument("--image-size", type=int, default=256, metavar="PIXELS", help="default: 256")
    data.add_argument("--seed", type=int, default=0, help="of the split; default: 0")
    data.add_argument("--sheet", type=Path, metavar="PNG", help="draw a contact sheet")
    data.add_argument("--csv", type=Path, metavar="CSV", help="write all counts")
    _add_place(data)
    data.set_defaults(do=_data)


def _add_place(parser: Any) -> None:
    parser.add_argument("--data-dir", metavar="FOLDER", help="of the dataset; the phantom has none")
    about = "an option of the dataset, e.g. -p n_test 60 for the phantom"
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=about
    )


def _add_score(commands: Any) -> None:
    about = "put a model's predictions through every protocol of the field"
    score = commands.add_parser("score", help=about)
    score.add_argument("predictions", type=Path, help="an .npz, see the book's page on it")
    score.add_argument("--dataset", required=True, help=", ".join(datasets.LOADERS))
    _add_place(score)
    score.add_argument(
        "--part", choices=["train", "val", "test"], default="test", help="default: test"
    )
    score.add_argument(
        "--frame",
        type=int,
        metavar="PIXELS",
        help="side in which maps and truth are compared; default: 1024 for nih, else that of the "
        "predictions",
    )
    score.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="of the dataset's images; default: the frame of the predictions, or 256",
    )
    score.add_argument("--replicates", type=int, default=1000, help="of the bootstrap")
    score.add_argument(
        "--seed", type=int, default=0, help="of the split, the bootstrap and the noise; default: 0"
    )
    score.add_argument("--against", type=Path, metavar="NPZ", help="a second model to subtract")
    for suffix, what in _OUTPUTS.items():
        score.add_argument(f"--{suffix}", type=Path, metavar=suffix.upper(), help=what)
    score.set_defaults(do=_score)


def _add_harvest(commands: Any) -> None:
    about = "write boxes that a run's model mines where the labels say that a finding is there"
    mine = commands.add_parser("harvest", help=about)
    mine.add_argument("run", type=Path, help="folder of a finished run of a notebook with training")
    mine.add_argument("--dataset", required=True, help=", ".join(datasets.LOADERS))
    _add_place(mine)
    mine.add_argument("--part", choices=["train", "val", "test", "all"], default="all")
    help_of_share = "of a map's range from which on a pixel is in a region; default: 0.5"
    mine.add_argument("--share", type=float, default=0.5, help=help_of_share)
    mine.add_argument("--seed", type=int, help="of the split; default: the run's")
    mine.add_argument("--csv", type=Path, metavar="CSV", help="write one row per box")
    mine.add_argument("--coco", type=Path, metavar="JSON", help="write them in COCO's format")
    mine.set_defaults(do=_harvest)


def _run(options: argparse.Namespace) -> None:
    parameters = {name: read_value(value) for name, value in options.p}
    print(execution.execute(options.notebook, options.run_dir, parameters, renew=options.renew))


def _collect(options: argparse.Namespace) -> None:
    table = runs.collect(options.folder)
    for column, names in (("metric", options.metrics), ("finding", options.findings)):
        if names is not None:
            known = table[column].unique().tolist() if len(table) else []
            for name in set(names) - set(known):
                raise ValueError(f"no {column} {name!r} in these runs; {nearest(name, known)}")
            table = table[table[column].isin(names)]
    write_csv(options.csv, table)


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
        refuse_suffix(path, suffix)
    given = {name: read_value(value) for name, value in options.p}
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


def _score(options: argparse.Namespace) -> None:
    if options.replicates < 0:
        raise ValueError(f"replicates is {options.replicates}; give 0 or more")
    for suffix in _OUTPUTS:
        refuse_output(getattr(options, suffix), suffix)
    from cxrlib.metrics import comparison, listing, page, report  # slow; others do without

    paths = [path for path in (options.predictions, options.against) if path is not None]
    first, *others = [report.PredictionsFile.read(path) for path in paths]
    for other in others:
        comparison.refuse_incomparable(first.predictions, other.predictions)
    frame, image_size = _sizes(options, [file.predictions for file in (first, *others)])
    split = datasets.load(
        options.dataset, options.data_dir, image_size, seed=options.seed, **_given(options)
    )
    made = report.make_report(
        first,
        split,
        part=options.part,
        frame=frame,
        against=others[0] if others else None,
        replicates=options.replicates,
        seed=options.seed,
    )
    # The numbers first: a closed pipe or a damaged image must not lose them.
    if options.csv is not None:
        write_csv(options.csv, report.rows(made))
    if options.json is not None:
        write_json(options.json, report.to_json(made))
    print(listing.text(made))
    if options.html is not None:
        drawn = page.html(made, split.parts[options.part], first.predictions)
        write_atomic(options.html, lambda file: file.write(drawn.encode()))


def _harvest(options: argparse.Namespace) -> None:
    if options.csv is None and options.coco is None:
        raise ValueError("nothing to write; give --csv boxes.csv, --coco boxes.json or both")
    refuse_output(options.csv, "csv")
    refuse_output(options.coco, "json", "coco")
    from cxrlib import checkpoints, harvest, harvest_files  # slow; others do without

    harvest.refuse_share(options.share)
    run = checkpoints.load_model(options.run)
    given = {name: read_value(value) for name, value in options.p}
    split = run.load_data(options.dataset, options.data_dir, options.seed, given)
    folder = Path(options.data_dir or "").expanduser()
    made = harvest_files.Harvest.of_run(run, split, options.part, options.share, folder=folder)
    if options.csv is not None:
        write_csv(options.csv, made.to_csv())
    if options.coco is not None:
        write_json(options.coco, made.to_coco())
    print(made)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The dataset's options; images are read for a few pictures only, so none is kept."""
    keeps = {} if options.dataset == "phantom" else {"cache": False}
    return keeps | {name: read_value(value) for name, value in options.p}


def _sizes(options: argparse.Namespace, models: "list[Predictions]") -> tuple[int | None, int]:
    """The frame, None for that of the images, and the size of the images."""
    own = models[0].frame
    frame = options.frame
    if frame is None:
        frame = FRAME if options.dataset == "nih" else own or None
    grid = max(2, *(model.maps.shape[-1] for model in models))
    if frame is not None and frame < grid:
        raise ValueError(
            f"a frame of {frame} px is smaller than maps of {grid} x {grid} cells; give the side "
            f"of the images that the maps cover, --frame {max(own, grid)}"
        )
    usual = min(max(own or 256, 64), 1024)  # within what every dataset has
    return frame, usual if options.image_size is None else options.image_size
