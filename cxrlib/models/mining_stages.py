"""Attention mining in stages: the base network, then every mining step, each resumable by itself.

Also what the notebook on attention mining runs: sizes and schedules, and the method's ablations.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlib.checkpoints import Trained, load_model
from cxrlib.datasets.base import Split
from cxrlib.models import lse_lba
from cxrlib.models.attention_mining import AttentionMining, refuse_numbers
from cxrlib.parameters import Parameters, nearest
from cxrlib.training import fit

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "image_size": 64,
        "epochs": 1,
        "mining_epochs": 1,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "steps": 2,
        "network": {"encoder": "resnet18", "width": 16},
        "phantom": {"n_train": 192, "n_val": 48, "n_test": 96},
        "nih": {"limit_train": 256},
    },
    "quick": {
        "image_size": 96,
        "epochs": 10,
        "mining_epochs": 1,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "steps": 2,
        # Two minutes from scratch: few halvings, a small stem, and a pooling that teaches the cells
        # which answer for a finding. Under the mean, all cells learn alike and point nowhere.
        "network": {
            "encoder": "resnet18",
            "width": 16,
            "stem": 16,
            "strides": [4, 8, 16],
            "pooling": "lse_lba",
            "mining_rate": 1.0,
        },
        # Images and population of LSE-LBA's quick preset, which are rendered only once.
        "phantom": lse_lba.PRESETS["quick"]["phantom"],
        "nih": {},
    },
    "gpu": {
        "image_size": 256,
        "epochs": 20,
        "mining_epochs": 4,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "steps": 3,
        "network": {"encoder": "resnet18"},
        "phantom": {"n_train": 12000, "n_val": 1200, "n_test": 2400},
        "nih": {},
    },
    "paper": {
        "image_size": 512,
        "epochs": 20,
        "mining_epochs": 5,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "steps": 3,
        "network": {},
        "phantom": {"n_train": 78484, "n_val": 8040, "n_test": 25600},
        "nih": {},
    },
}
"""Sizes and schedules; ``"paper"`` is our reading, for the paper's own are not known to us.

An empty ``network`` is the default one. ``steps`` is T; ``epochs`` train the base network and
``mining_epochs`` every step.
"""

VARIANTS: dict[str, dict[str, Any]] = {
    "cam": {"msa": False, "steps": 0},
    "msa": {"steps": 0},
    "am": {"kp_weight": 0.0},
    "am_kp": {},
}
"""The method (last) and what is left when its parts are taken away one by one: arguments."""


@dataclass(frozen=True, kw_only=True)
class AttentionMiningParameters(Parameters):
    """Parameters of ``notebooks/attention_mining.ipynb``."""

    variant: str
    pretrained: bool
    steps: int | None
    mining_epochs: int | None
    tau: float
    kp_weight: float
    base: str | None

    def __post_init__(self) -> None:
        """Refuse a variant that does not exist and numbers out of range."""
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise ValueError(f"variant = {self.variant!r}; {nearest(self.variant, list(VARIANTS))}")
        refuse_numbers(self.steps or 0, self.tau, self.kp_weight)
        if self.mining_epochs is not None and self.mining_epochs < 1:
            raise ValueError(f"mining_epochs = {self.mining_epochs}; at least 1 was expected")
        if self.base is not None and "steps" in VARIANTS[self.variant]:
            raise ValueError(
                f"base = {self.base!r} with variant = {self.variant!r}, which has no mining steps "
                "to start from it; leave base out"
            )


def create_variant(variant: str, **network: Any) -> AttentionMining:
    """Make the method or an ablation of it.

    Args:
        variant: a key of :data:`VARIANTS`; what it fixes goes before ``network``.
        network: arguments of :class:`cxrlib.models.attention_mining.AttentionMining`.

    Raises:
        ValueError: there is no such variant, or an argument is out of its range.

    >>> create_variant("msa", steps=3, encoder="resnet18", width=16).hparams.steps
    0
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant = {variant!r}; {nearest(variant, list(VARIANTS))}")
    return AttentionMining(**{**network, **VARIANTS[variant]})


def load_base(folder: str, split: Split) -> Trained:
    """The base network of a finished run, to mine from without training it again.

    Args:
        folder: of a run of the notebook, of any variant with the same network.
        split: the run must have been trained on the same, so that nobody who is scored was seen.

    Raises:
        FileNotFoundError, ValueError: as :func:`cxrlib.checkpoints.load_model`; the run is of
            another method, or was trained on other images.
    """
    trained = load_model(folder)
    if not isinstance(trained.model, AttentionMining):
        raise ValueError(f"{folder} is a run of {type(trained.model).__name__}, not of this method")
    decides = json.loads((Path(folder).expanduser() / "environment.json").read_text())["decides"]
    for name in ("data_hash", "split_hash"):
        if decides[name] != getattr(split, name):
            raise ValueError(
                f"{folder} was trained on other images ({name} {decides[name]}, here "
                f"{getattr(split, name)}); give it the same dataset, image_size and seed"
            )
    return trained


def fit_stages(
    model: AttentionMining,
    split: Split,
    folder: Path,
    *,
    epochs: int,
    mining_epochs: int,
    batch_size: int,
    seed: int = 0,
    accelerator: str = "auto",
    num_workers: int = 0,
    base: AttentionMining | None = None,
) -> pd.DataFrame:
    """Train f_0, then f_1 to f_T, each from the best epoch of the one before.

    Stage t has its checkpoints in ``folder / f"step_{t}"``. Called again with the same arguments
    after a kill, finished stages are read and the interrupted one goes on where it was.

    Args:
        model: is trained in place and left with the best weights of each stage, in evaluation mode.
        folder: must exist.
        epochs: of the base network.
        mining_epochs: of each mining step.
        split, batch_size, seed, accelerator, num_workers: of :func:`cxrlib.training.fit`.
        base: f_0 is taken from it and not trained; for a model with mining steps.

    Returns:
        one row per epoch of the stages that were trained: stage (t), epoch, loss, val_loss,
        seconds; of mining steps also the loss's terms whole, hidden and kp.

    Raises:
        ValueError, OSError: as :func:`cxrlib.training.fit`.
    """
    histories = []
    if base is not None:
        model.networks[0].load_state_dict(base.networks[0].state_dict())
    for t in range(0 if base is None else 1, len(model.networks)):
        model.begin(t)
        place = folder / f"step_{t}"
        place.mkdir(exist_ok=True)
        history = fit(
            model,
            split,
            place,
            epochs=mining_epochs if t else epochs,
            batch_size=batch_size,
            seed=seed,
            accelerator=accelerator,
            num_workers=num_workers,
        )
        history.insert(0, "stage", t)
        histories.append(history)
    return pd.concat(histories, ignore_index=True)
