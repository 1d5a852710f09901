"""One training on several devices, in as many processes; notebooks stay on one device.

``torchrun --nproc-per-node 2 -m cxrlib.training lse_lba --preset smoke --run-dir runs/two`` trains
what ``notebooks/lse_lba.ipynb`` trains, with its parameters as options, and writes the same run
folder. Each process takes an equal share of every batch, and their gradients are averaged
(Lightning's DDP), so that a step is that of one process on the whole batch. Two things differ: each
process draws the augmentation of its share, and on CPUs batch normalization sees the share only.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import papermill
import torch

from cxrlib import datasets, metrics, runs, training
from cxrlib.cli.options import value
from cxrlib.datasets.base import Split
from cxrlib.datasets.boxed import teach_boxes
from cxrlib.inference import predict
from cxrlib.models import create_model, ham_presets, lse_lba, variants
from cxrlib.models.base import CXRModule
from cxrlib.models.ham import HAM
from cxrlib.models.ham_nesting import nesting, summarise_nesting
from cxrlib.parameters import Parameters, read_parameters, settings_of
from cxrlib.team import ALONE, Team

ONLY_NOTEBOOKS = {
    "attention_mining": "it trains one network after the other, each on the maps of those before",
    "clarity": "it makes its masks of lungs and heart, and what its teacher says, beforehand",
}
"""Methods that train in their notebooks alone, and why."""


class Method(NamedTuple):
    """How a notebook's model is made.

    Attributes:
        parameters: of the notebook.
        presets: that complete them.
        make: (parameters, settings) -> the model.
    """

    parameters: type[Parameters]
    presets: dict[str, dict[str, Any]]
    make: Callable[[Any, dict[str, Any]], CXRModule]


def _lse_lba(params: Any, settings: dict[str, Any]) -> CXRModule:
    rate = settings["learning_rate"]
    return create_model("lse_lba", r0=params.r0, learning_rate=rate, **settings["network"])


def _pylon(params: Any, settings: dict[str, Any]) -> CXRModule:
    return variants.create_variant(
        params.variant,
        pa_depth=settings["pa_depth"],
        pretrained=params.pretrained,
        learning_rate=settings["learning_rate"],
        **settings["network"],
    )


def _ham(params: Any, settings: dict[str, Any]) -> CXRModule:
    return create_model(
        "ham",
        ordinal=params.ordinal,
        pretrained=params.pretrained,
        learning_rate=settings["learning_rate"],
        **settings["network"],
    )


METHODS = {
    "lse_lba": Method(lse_lba.LSELBAParameters, lse_lba.PRESETS, _lse_lba),
    "pylon": Method(variants.PYLONParameters, variants.PRESETS, _pylon),
    "ham": Method(ham_presets.HAMParameters, ham_presets.PRESETS, _ham),
}
"""What the command trains, by the name of its notebook."""


def main(arguments: list[str] | None = None) -> int:
    """The command ``python -m cxrlib.training``, with or without torchrun before it."""
    team = Team.from_torchrun()
    try:
        name, params = read_options(sys.argv[1:] if arguments is None else arguments)
        team.join()
        folder = train(name, params, team)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"cxrlib.training: {error}", file=sys.stderr)
        return 1
    team.part()
    if team.rank == 0:
        print(folder)
    return 0


def read_options(arguments: list[str]) -> tuple[str, Parameters]:
    """The method and its checked parameters; defaults and explanations are the notebook's.

    Raises:
        ValueError: the method trains in its notebook only, or a parameter is out of range.
        TypeError: a parameter has the wrong type.

    >>> read_options(["lse_lba", "--preset", "smoke", "--r0", "2"])[1].r0
    2.0
    """
    if (name := next(iter(arguments), None)) in ONLY_NOTEBOOKS:
        raise ValueError(
            f"{name} trains in notebooks/{name}.ipynb only, on one device: {ONLY_NOTEBOOKS[name]}; "
            f"here: {', '.join(METHODS)}"
        )
    about = "Train one model on several devices: torchrun --nproc-per-node 2 -m cxrlib.training ..."
    parser = argparse.ArgumentParser("python -m cxrlib.training", description=about)
    methods = parser.add_subparsers(dest="method", required=True)
    for name in METHODS:
        method = methods.add_parser(name, help=f"what notebooks/{name}.ipynb trains")
        for option in papermill.inspect_notebook(str(_notebook(name))).values():
            flag, default = option["name"].replace("_", "-"), value(option["default"])
            method.add_argument(f"--{flag}", type=value, default=default, help=option["help"])
    given = vars(parser.parse_args(arguments))
    name = given.pop("method")
    return name, read_parameters(METHODS[name].parameters, given)


def _notebook(name: str) -> Path:
    """A notebook of the clone that this library is in."""
    path = Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; the notebooks come with a clone: pip install -e . there"
        )
    return path


def train(name: str, params: Any, team: Team = ALONE) -> Path:
    """Train as a notebook does, in one or more processes, and write the run folder.

    Args:
        name: a key of :data:`METHODS`.
        params: of its notebook.
        team: each process calls this with its own.

    Returns:
        the run folder, which the first process has written when its call returns.
    """
    method = METHODS[name]
    settings = settings_of(params, method.presets[params.preset]) | {"processes": team.size}
    split = _load(params, settings, team)
    run = runs.start(name, params, settings, split) if team.rank == 0 else None
    folder, workspace, finished = team.tell(run and (run.folder, run.workspace, run.finished))
    if finished:
        return folder
    torch.manual_seed(params.seed)
    model = method.make(params, settings)
    reading = {
        "batch_size": settings["batch_size"],
        "accelerator": params.accelerator,
        "num_workers": params.num_workers,
    }
    epochs, seed = settings["epochs"], params.seed
    history = training.fit(model, split, workspace, epochs=epochs, seed=seed, team=team, **reading)
    if run is None:
        return folder
    start = time.monotonic()
    predictions = predict(model, split.test, **reading)
    results = metrics.evaluate(predictions, split.test, seed=seed)
    if isinstance(model, HAM):
        results["attention"] = summarise_nesting(nesting(model, split.test, **reading), seed=seed)
    seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - start}
    return run.finish(results, seconds, predictions)


def _load(params: Any, settings: dict[str, Any], team: Team) -> Split:
    """The data; the first process draws or resizes them, the others then find them in the cache."""
    if team.rank > 0:
        team.wait()
    options = settings.get(params.dataset, {})
    size, seed = settings["image_size"], params.seed
    split = datasets.load(params.dataset, params.data_dir, size, seed=seed, **options)
    if getattr(params, "box_share", None) is not None:
        split = teach_boxes(split, share=params.box_share, seed=seed)
    if team.rank == 0:
        team.wait()
    return split
