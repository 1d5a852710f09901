"""What a training step of HAM costs at its published size: ``python benchmarks/ham_step.py``.

The published network, 512 px and 14 findings, one image on one thread of a CPU: forward pass, all
losses without boxes, backward pass and Adam, in seconds of the processor, and the highest memory of
the process. Apart from it what the two ordinal constraints add, on features of the same shape:
class activation maps of both levels, both losses, and their backward pass to the features. The
shorter of two steps counts. (What the step takes beside that of a bare network is measured by
``training_step.py``.)

Writes ``ham_step.csv`` and its rows of ``ratios.csv``.
"""

import resource
from collections.abc import Callable

import pandas as pd
import torch
from measure import processor, ratio, rounds, write

from cxrlib.datasets.base import Batch
from cxrlib.memory import freed_memory_kept
from cxrlib.models.ham import HAM, ORDINAL, STRIDE, activation
from cxrlib.models.ham_losses import bounded_loss, union_loss

SIZE, BATCH, FINDINGS, ROUNDS, THREADS = 512, 1, 14, 2, 1
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


def main() -> None:
    """Measure the step, then the constraints apart."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = Quiet()
    works = {"training step": step_of(model), "ordinal constraints": constraints_of(model)}
    with freed_memory_kept():
        spent = rounds(works, ROUNDS, warm=0, clock=processor)
    share = ratio(spent, "ordinal constraints", "training step")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
    rows = [
        *((str(name), value, "s of the processor") for name, value in spent.min().items()),
        ("ordinal constraints / training step", share["value"], "ratio"),
        ("highest memory of the process", peak, "GB"),
    ]
    table = pd.DataFrame(rows, columns=["quantity", "value", "unit"])
    print(table.to_string(index=False, float_format="%.4g"))
    table = table.assign(n=BATCH, size=SIZE, rounds=ROUNDS)
    share = {**share, "ours": "both ordinal constraints", "other": "HAM's whole training step"}
    write(__file__, table, [share], threads=THREADS, packages=PACKAGES)


if __name__ == "__main__":
    main()
