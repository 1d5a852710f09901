"""Training: seeded, resumable after a kill with the same final numbers; on one device or several.

Several train one model together under ``torchrun -m cxrlib.training``, see :mod:`cxrlib.devices`.
"""

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, Sampler

from cxrlib.datasets.base import Split
from cxrlib.files import write_atomic, write_json
from cxrlib.inference import device_type, loader
from cxrlib.memory import freed_memory_kept
from cxrlib.models.base import CXRModule
from cxrlib.progress import NotebookLine
from cxrlib.team import ALONE, Team


def fit(
    model: CXRModule,
    split: Split,
    folder: Path,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    accelerator: str = "auto",
    num_workers: int = 0,
    team: Team = ALONE,
) -> pd.DataFrame:
    """Train on ``split.train``, keep the epoch with the lowest loss on ``split.val``.

    After every epoch ``folder`` holds a whole ``last.ckpt``; called again with the same arguments
    after a kill, training goes on from there and ends with the numbers of an uninterrupted run.

    Args:
        model: is trained in place and left with the weights of the best epoch, in evaluation mode.
        split: its leak check runs first.
        folder: of the checkpoints; must exist.
        epochs: passes over the training images.
        batch_size: images per step, of all processes together.
        seed: of shuffling and augmentation. Seed the model's own weights where it is made.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"`` or ``"mps"``; one device, mixed precision on a
            GPU.
        num_workers: processes that read images, for each process that trains.
        team: the processes that train together; each calls this with its own.

    Returns:
        one row per epoch: epoch, loss, val_loss, seconds and what else the model logs.

    Raises:
        ValueError: a patient is in two parts, a part is empty, or a batch cannot be shared out.
        OSError: a checkpoint cannot be written.
    """
    split.refuse_leaks()
    if empty := split.empty_part():
        raise ValueError(
            f"the {empty!r} part of {split.train.name!r} has no images; nothing to train on"
        )
    done = folder / "history.json"
    if not done.exists():
        share = team.share(batch_size)
        train = loader(
            split.train,
            share,
            num_workers,
            sampler=EpochSampler(len(split.train), seed, team, batch_size),
            drop_last=len(split.train) > batch_size,  # batch normalization needs a full batch
        )
        # Each process validates on all, so that they agree on the best epoch to the last digit.
        val = loader(split.val, share, num_workers)
        rows = _train(model, train, val, folder, epochs, seed, accelerator, team)
        if team.rank == 0:
            write_json(done, rows)
        team.wait()
    best = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)
    model.load_state_dict(best["state_dict"])
    model.eval()
    return pd.DataFrame(json.loads(done.read_text()))


def _train(
    model: CXRModule,
    train: DataLoader,
    val: DataLoader,
    folder: Path,
    epochs: int,
    seed: int,
    accelerator: str,
    team: Team,
) -> list[dict[str, float]]:
    """Train from the start or from ``last.ckpt``; returns the rows of the history."""
    history = History(epochs)
    checkpoint = ModelCheckpoint(
        folder,
        filename="best",
        monitor="val_loss",
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    model.to(memory_format=torch.channels_last)  # convolutions are faster, on CPU and GPU
    last = folder / "last.ckpt"
    with quiet_lightning(), freed_memory_kept():
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            devices=team.size // team.nodes,
            num_nodes=team.nodes,
            strategy=DDPStrategy() if team.size > 1 else "auto",
            use_distributed_sampler=False,  # ours shares out each batch
            sync_batchnorm=team.size > 1 and device_type(accelerator) == "cuda",
            precision=precision(accelerator),
            deterministic="warn",
            callbacks=[EpochSeed(seed), history, checkpoint, *progress_bar()],
            plugins=[WholeCheckpoints()],
            logger=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )
        resume = last if last.exists() else None
        trainer.fit(model, train, val, ckpt_path=resume, weights_only=True)
    return history.rows


def precision(accelerator: str) -> Any:
    """Mixed precision on a CUDA device, full precision elsewhere."""
    if device_type(accelerator) != "cuda":
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


class EpochSampler(Sampler[int]):
    """A shuffle that follows from (seed, epoch) alone, so that a resumed epoch sees the same order.

    Args:
        length: of the dataset.
        seed: of the order.
        team: of the processes that train together, whose batches make up the batches of one.
        batch_size: of all of them together.

    >>> sampler = EpochSampler(4, seed=0)
    >>> list(sampler) == list(sampler)
    True
    """

    def __init__(self, length: int, seed: int, team: Team = ALONE, batch_size: int = 1) -> None:
        self.length, self.seed, self.epoch, self.team = length, seed, 0, team
        # Of an incomplete last batch the processes would not have equally many steps.
        self.used = length if team.size == 1 else length - length % batch_size
        if self.used == 0:
            raise ValueError(
                f"{length} images to train on are fewer than batch_size = {batch_size}, and "
                "several processes need a whole batch; give a smaller one, or train in one process"
            )

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The indices in this epoch's order; of several processes, this one's share."""
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.length)[: self.used]
        return iter(order[self.team.rank :: self.team.size].tolist())

    def __len__(self) -> int:
        """Number of indices."""
        return len(range(self.team.rank, self.used, self.team.size))


class EpochSeed(pl.Callback):
    """Makes augmentation follow from (seed, epoch), as :class:`EpochSampler` does the order."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed torch, on every device; each further process has numbers of its own."""
        origin = [self.seed, trainer.current_epoch, trainer.global_rank]
        entropy = origin if trainer.global_rank else origin[:2]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


class History(pl.Callback):
    """A row of logged numbers per epoch, kept in the checkpoint for a resumed run to go on with."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.rows: list[dict[str, float]] = []
        self.line = NotebookLine()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row and show it in a notebook."""
        row = {
            name: float(trainer.strategy.reduce(value, reduce_op="mean"))
            for name, value in trainer.callback_metrics.items()
        }
        seconds = time.monotonic() - self.start
        self.rows.append({"epoch": trainer.current_epoch + 1, **row, "seconds": seconds})
        losses = ", ".join(f"{name} {row[name]:.4f}" for name in ("loss", "val_loss"))
        self.line.show(f"epoch {len(self.rows)} of {self.epochs}: {losses}, {seconds:.1f} s")

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows of an interrupted run."""
        self.rows = list(state_dict["rows"])


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and that are read without executing code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write to a temporary name, then rename."""
        write_atomic(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = True
    ) -> dict[str, Any]:
        """Read tensors and plain values only."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def progress_bar() -> list[pl.Callback]:
    """A bar in a terminal; in a notebook :class:`History` shows a line per epoch instead."""
    return [TQDMProgressBar(leave=False)] if sys.stderr.isatty() else []


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice to people who write trainers; errors still come through."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            yield
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    from cxrlib.devices import main  # here, since it imports this module

    raise SystemExit(main())
