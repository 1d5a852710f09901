"""``cxrlib score``: a model's predictions through every protocol of the field."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrlib import datasets
from cxrlib.cli.options import add_place, given, refuse_output
from cxrlib.files import write_atomic, write_csv, write_json

if TYPE_CHECKING:
    from cxrlib.predictions import Predictions

_OUTPUTS = {
    "csv": "write every number as a tidy table",
    "json": "write every number as a document",
    "html": "write a page with tables and the best, median and worst maps",
}


def add(commands: Any) -> None:
    """Add the command."""
    about = "put a model's predictions through every protocol of the field"
    score = commands.add_parser("score", help=about)
    score.add_argument("predictions", type=Path, help="an .npz, see the book's page on it")
    score.add_argument("--dataset", required=True, help=", ".join(datasets.LOADERS))
    add_place(score)
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


def _score(options: argparse.Namespace) -> None:
    if options.replicates < 0:
        raise ValueError(f"replicates is {options.replicates}; give 0 or more")
    for suffix in _OUTPUTS:
        refuse_output(getattr(options, suffix), suffix)
    from cxrlib.metrics import comparison, listing, page, report

    paths = [path for path in (options.predictions, options.against) if path is not None]
    first, *others = [report.PredictionsFile.read(path) for path in paths]
    for other in others:
        comparison.refuse_incomparable(first.predictions, other.predictions)
    frame, image_size = _sizes(options, [file.predictions for file in (first, *others)])
    split = datasets.load(
        options.dataset, options.data_dir, image_size, seed=options.seed, **_quickly(options)
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


def _quickly(options: argparse.Namespace) -> dict[str, Any]:
    """The dataset's options; images are read for a few pictures only, so none is kept."""
    keeps = {} if options.dataset == "phantom" else {"cache": False}
    return keeps | given(options)


def _sizes(options: argparse.Namespace, models: "list[Predictions]") -> tuple[int | None, int]:
    """The frame, None for that of the images, and the size of the images."""
    from cxrlib.datasets.nih import FRAME

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
