"""What PYLON costs beside its encoder: ``python benchmarks/pylon_step.py``.

A training step at the paper's configuration, ResNet-50 at 256 px for 14 findings, on 8 images and
two threads of a CPU: forward pass, cross-entropy, backward pass and Adam. Beside it the same for a
plain ResNet-50 of timm, whose linear classifier stands on a global average. Both have the
memory layout and the memory that training gives them. Steps alternate; the median counts.

Writes ``pylon_step.csv`` beside itself. Ratios of one run mean something; the numbers themselves
are of one machine on one day.
"""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import timm
import torch
from loading import machine
from torch import Tensor, nn

from cxrlib.files import write_csv
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.memory import freed_memory_kept
from cxrlib.models import create_model

SIZE, BATCH, FINDINGS, ROUNDS, THREADS = 256, 8, 14, 7, 2
PACKAGES = ("torch", "timm")


def pylon() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The published network, and images -> logits."""
    model = create_model("pylon")
    return model, lambda images: model(images).logits


def plain() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Its encoder with a linear classifier, and images -> logits."""
    model = timm.create_model("resnet50", in_chans=1, num_classes=FINDINGS)
    return model, model


def step_of(model: nn.Module, logits: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """A training step on images and labels that were drawn once."""
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    images = torch.rand(BATCH, 1, SIZE, SIZE)
    labels = (torch.rand(BATCH, FINDINGS) < 0.2).float()

    def step() -> None:
        optimizer.zero_grad()
        multilabel_cross_entropy(logits(images), labels).backward()
        optimizer.step()

    return step


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure both, after two steps each that do not count."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    steps = {"PYLON": step_of(*pylon()), "plain ResNet-50": step_of(*plain())}
    with freed_memory_kept():
        rounds = [{name: seconds(step) for name, step in steps.items()} for _ in range(2 + ROUNDS)]
    spent = pd.DataFrame(rounds[2:]).median()
    rows = [(f"training step, {name}", value, "s") for name, value in spent.items()]
    rows.append(("PYLON / plain ResNet-50", spent["PYLON"] / spent["plain ResNet-50"], "ratio"))
    versions = [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)]
    table = pd.DataFrame(rows, columns=["quantity", "value", "unit"]).assign(
        n=BATCH, rounds=ROUNDS, threads=THREADS, machine=machine(), versions="; ".join(versions)
    )
    print(table.iloc[:, :3].to_string(index=False, float_format="%.4g"))
    write_csv(Path(__file__).with_suffix(".csv"), table)


if __name__ == "__main__":
    main()
