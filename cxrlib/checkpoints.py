"""A finished run's model, opened without running code from its files."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cxrlib import datasets
from cxrlib.checks import told
from cxrlib.datasets.base import Split
from cxrlib.models import MODELS
from cxrlib.models.base import CXRModule


class Trained(NamedTuple):
    """A run's model and what the run says of itself."""

    model: CXRModule  # on the CPU, in evaluation mode
    params: dict[str, Any]  # what params.json holds
    key: str  # of the run

    def load_data(
        self, name: str, data_dir: str | None, seed: int | None, options: dict[str, Any]
    ) -> Split:
        """A dataset in images of the run's size.

        Args:
            name, data_dir: of :func:`cxrlib.datasets.load`, which also says what is raised.
            seed: of the split; None: the run's.
            options: of the dataset; what they leave open is as in the run, if it is its dataset.
        """
        own = self.params.get(name, {}) if self.params["dataset"] == name else {}
        seed = self.params["seed"] if seed is None else seed
        return datasets.load(
            name, data_dir, self.params["image_size"], seed=seed, **(own | options)
        )


def load_model(folder: Path | str) -> Trained:
    """Open the model of a finished run; of attention mining, that of the last step.

    Args:
        folder: of the run, ``runs/<notebook>/<key>`` unless the notebook was given a ``run_dir``.

    Raises:
        FileNotFoundError: the folder holds no finished run, or one without a checkpoint.
        ValueError: the checkpoint is damaged, or fits no model of this version of the library, or
            what the run says of itself is damaged.
    """
    folder = Path(folder).expanduser()
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished run, which has a metrics.json; give the folder that a "
            "notebook with training has written, such as runs/attention_mining/<key>"
        )
    path = best_checkpoint(folder)
    try:
        model = read_checkpoint(path)
    except Exception as error:  # what damaged archives and pickles raise is of any kind
        raise ValueError(
            f"{path} is damaged or was written by another version of cxrlib "
            f"({told(error)}); run the notebook again"
        ) from error
    params, environment = (_document(folder / f"{name}.json") for name in ("params", "environment"))
    if not isinstance(environment.get("key"), str):
        raise ValueError(f"{folder / 'environment.json'} has no key; run the notebook again")
    return Trained(model, params, environment["key"])


def _document(path: Path) -> dict[str, Any]:
    """What a run says of itself, a JSON object."""
    try:
        held = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({told(error)}); run the notebook again") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds no JSON object; run the notebook again")
    return held


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run: ``best.ckpt``, or that of its last ``step_<t>``.

    Raises:
        FileNotFoundError: there is neither.
    """
    steps = sorted(folder.glob("step_*/best.ckpt"), key=lambda path: int(path.parent.name[5:]))
    for path in (folder / "best.ckpt", *reversed(steps)):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder} has neither best.ckpt nor step_<t>/best.ckpt; restore it, or run the notebook "
        "again into another folder"
    )


def read_checkpoint(path: Path) -> CXRModule:
    """Make the model that a checkpoint names, with its arguments and weights.

    Nothing is downloaded: pretrained weights would be replaced at once.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    classes = {kind.__name__: kind for kind in MODELS.values()}
    arguments = stored["hyper_parameters"]
    if "pretrained" in arguments:
        arguments = {**arguments, "pretrained": False}
    model = classes[stored["model_class"]](**arguments)
    model.load_state_dict(stored["state_dict"])
    return model.eval()
