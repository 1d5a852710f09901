"""What a training step of HAM costs at its published size: ``python benchmarks/ham_step.py``.

The published network, 512 px and 14 findings, one image on one thread of a CPU: forward pass, all
losses without boxes, backward pass and Adam, in seconds of the processor, and the highest memory of
the process. Apart from it what the two ordinal constraints add, on features of the same shape:
class activation maps of both levels, both losses, and their backward pass to the features. The
median counts, after a step that does not.

Writes ``ham_step.csv`` beside itself. The share of one run means something; the numbers themselves
are of one machine on one day.
"""

import platform
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from loading import machine

from cxrlib.datasets.base import Batch
from cxrlib.files import write_csv
from cxrlib.memory import freed_memory_kept
from cxrlib.models.ham import HAM, ORDINAL, STRIDE, activation
from cxrlib.models.ham_losses import bounded_loss, union_loss

SIZE, BATCH, FINDINGS, ROUNDS, THREADS = 512, 1, 14, 3, 1
PACKAGES = ("torch", "timm")


class Quiet(HAM):
    """The published network outside a trainer, which would keep what is logged."""

    def log_dict(self, *values: object, **how: object) -> None:
        """Keep nothing."""


def step_of(model: HAM) -> Callable[[], None]:
    """A training step on an image and labels that were drawn once."""
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), model.learning_rate, fused=True)
    labels = (torch.arange(FINDINGS) < 3).float().expand(BATCH, -1)
    batch = Batch(torch.rand(BATCH, 1, SIZE, SIZE), labels)

    def step() -> None:
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()

    return step


def constraints_of(model: HAM) -> Callable[[], None]:
    """What both constraints add to a step: their maps, their losses, their gradient."""
    channels, side = model.classes.in_features, SIZE // STRIDE
    features = torch.rand(BATCH, channels, side, side, requires_grad=True)
    positive = (torch.arange(FINDINGS) < 3).expand(BATCH, -1)

    def work() -> None:
        features.grad = None
        A, A_abnormal = (
            activation(features, layer.weight) for layer in (model.classes, model.abnormal)
        )
        losses = bounded_loss(A, A_abnormal, positive) + union_loss(A, A_abnormal, positive)
        (ORDINAL * losses).backward()

    return work


def seconds(work: Callable[[], object]) -> float:
    """Of the processor, in one call: other programs at work do not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure the step, then the constraints apart."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = Quiet()
    with freed_memory_kept():
        spent = [
            pd.Series([seconds(work) for _ in range(1 + ROUNDS)])[1:].median()
            for work in (step_of(model), constraints_of(model))
        ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
    rows = [
        ("training step", spent[0], "s of the processor"),
        ("ordinal constraints", spent[1], "s of the processor"),
        ("ordinal constraints / training step", spent[1] / spent[0], "ratio"),
        ("highest memory of the process", peak, "GB"),
    ]
    versions = [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)]
    table = pd.DataFrame(rows, columns=["quantity", "value", "unit"]).assign(
        n=BATCH,
        size=SIZE,
        rounds=ROUNDS,
        threads=THREADS,
        machine=machine(),
        versions="; ".join(versions),
    )
    print(table.iloc[:, :3].to_string(index=False, float_format="%.4g"))
    write_csv(Path(__file__).with_suffix(".csv"), table)


if __name__ == "__main__":
    main()
