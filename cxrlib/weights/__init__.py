"""Trained models that come with the library: small, half precision, one for each paper.

Each is a safetensors file, read without running code, whose header says what the model is and where
it comes from, and a model card beside it. They were trained on the chest phantom: they show at once
what a method's maps look like, and they say nothing about patients.

:mod:`cxrlib.weights.ship` makes them from finished runs: ``python -m cxrlib.weights RUN``.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import load_file

from cxrlib.checkpoints import best_checkpoint, load_model
from cxrlib.checks import told
from cxrlib.files import digest
from cxrlib.findings import FINDINGS
from cxrlib.models import MODELS, create_model
from cxrlib.models.base import CXRModule
from cxrlib.parameters import nearest

SHIPPED = {
    "lse_lba": "LSE-LBA",
    "attention_mining": "AM/KP/MSA",
    "ham": "HAM",
    "pylon": "PYLON",
    "clarity": "CLARiTy",
}
"""The models that come with the library, and how their papers call them."""

NOTICE = (
    "Not a medical device. Scores are not calibrated, and neither a score nor a map says anything "
    "about a patient's health."
)


class Described(NamedTuple):
    """A model and what is known of it."""

    model: CXRModule  # on the CPU, in evaluation mode
    about: dict[str, Any]  # what :func:`describe` tells; of a shipped model also its numbers

    @property
    def origin(self) -> str:
        """What it was trained on, in a sentence."""
        data = self.about["dataset"]
        if data == "phantom":
            return "The model was trained on drawings of chests, not on patients."
        return f"The model was trained on the dataset {data!r}."


def load_pretrained(name: str) -> CXRModule:
    """A trained model that comes with the library; see :func:`cxrlib.load_pretrained`."""
    return open_pretrained(name).model


def open_pretrained(name: str) -> Described:
    """A trained model that comes with the library, and what is known of it.

    Args:
        name: a key of :data:`SHIPPED`.

    Raises:
        ValueError: there is no such model (the valid names are listed), or its file is damaged.
        FileNotFoundError: its file is absent.

    >>> open_pretrained("lse_lba").about["dataset"]
    'phantom'
    """
    if name not in SHIPPED:
        raise ValueError(f"no pretrained model {name!r}; {nearest(name, [*SHIPPED])}")
    return read_weights(weights_file(name))


def weights_file(name: str) -> Path:
    """Where a shipped model's weights are; its card is beside it, with the suffix ``.md``."""
    return Path(str(resources.files("cxrlib.weights") / f"{name}.safetensors"))


def read_weights(path: Path) -> Described:
    """Open a file that :func:`cxrlib.weights.ship.write_weights` has written.

    Raises:
        FileNotFoundError: it is absent.
        ValueError: it is damaged, or fits no model of this version of the library.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is absent; install cxrlib again: pip install -e .")
    try:
        with safe_open(path, "pt") as file:
            about = {name: json.loads(text) for name, text in file.metadata().items()}
        model = create_model(about["method"], **about["arguments"])
        model.load_state_dict(load_file(path))
    except Exception as error:  # what damaged files and headers raise is of any kind
        raise ValueError(
            f"{path} is damaged or was written by another version of cxrlib "
            f"({told(error)}); install cxrlib again: pip install -e ."
        ) from error
    return Described(model.eval(), about)


def of_run(folder: Path | str) -> Described:
    """The model of a finished run, and what is known of it.

    Raises:
        FileNotFoundError, ValueError: as :func:`cxrlib.checkpoints.load_model`.
    """
    model = load_model(folder).model
    return Described(model, describe(Path(folder).expanduser(), model))


def describe(folder: Path, model: CXRModule) -> dict[str, Any]:
    """What a finished run says of its model, as JSON can hold it.

    Args:
        folder: of the run.
        model: of the run.

    Returns:
        ``method`` and ``arguments`` of :func:`cxrlib.models.create_model`, ``image_size`` (pixels),
        ``findings`` (of each column), ``dataset``, its ``options`` and ``notes``, the number of
        ``images`` of each part, ``data_hash``, ``split_hash``, ``preset``, ``epochs``,
        ``batch_size``, ``learning_rate``, ``seed``, the ``run``'s key, ``run_hash`` (of its
        parameters, environment, numbers and checkpoint), ``commit`` and version of ``torch``.
    """
    names = ["params.json", "environment.json", "metrics.json"]
    files = [(folder / name).read_bytes() for name in names]
    params, environment = (json.loads(file) for file in files[:2])
    kinds = {kind: name for name, kind in MODELS.items()}
    arguments = dict(model.hparams)
    if "pretrained" in arguments:
        arguments["pretrained"] = False  # nothing is to be downloaded: these weights replace them
    return {
        "method": kinds[type(model)],
        "arguments": arguments,
        "image_size": params["image_size"],
        "findings": [*FINDINGS],
        "dataset": params["dataset"],
        "options": params.get(params["dataset"], {}),
        "notes": environment["notes"],
        "images": environment["images"],
        **{name: environment["decides"][name] for name in ("data_hash", "split_hash", "torch")},
        **{
            name: params[name]
            for name in ("preset", "epochs", "batch_size", "learning_rate", "seed")
        },
        "run": environment["key"],
        "run_hash": digest(*files, best_checkpoint(folder).read_bytes()),
        "commit": environment["git_commit"],
    }
