"""What a training step of each method costs: ``python benchmarks/training_step.py``.

Forward pass, all losses, backward pass and Adam, of every published network at the input size of
its paper, and in turn the same of its bare backbone: the encoder alone, the mean over its cells, a
linear classifier and cross-entropy. On one thread of a CPU the batch is one image (of PYLON two,
which its attention needs), the layout of memory is channels-last, and freed memory is kept, as
training has it; the augmentation is left out. Seconds are of the process, so that other work on the
machine hardly matters, and on a GPU by the clock; the shortest of a few rounds counts.

Each also as a share of the roofline: floating-point operations of the step in convolutions, matrix
products and attention, by PyTorch's counter, each second, over what a large matrix product of the
same type of numbers reaches in the same process.

Where there is a GPU, batches of 16 are measured there as well, with every switch of :data:`MODES`.
On the CPU they are turned for the first method alone, and without the compiler.

Writes ``training_step.csv`` and its rows of ``ratios.csv``.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import timm
import torch
from measure import machine, processor, ratio, rounds, wall, write
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cxrlib.datasets.base import Batch
from cxrlib.findings import FINDINGS
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.memory import freed_memory_kept
from cxrlib.models import CXRModule, create_model
from cxrlib.progress import track

THREADS, GPU_BATCH = 1, 16
PACKAGES = ("torch", "timm", "lightning")


class Method(NamedTuple):
    """A network, what it is trained on, and its bare backbone."""

    model: str
    arguments: dict[str, Any]
    size: int  # pixels per side
    batch: int  # images of a step on a CPU
    rounds: int
    backbone: Callable[[Any], nn.Module]  # of the model


class Mode(NamedTuple):
    """How a step is computed."""

    dtype: torch.dtype = torch.float32  # bfloat16: by autocast
    channels_last: bool = True
    compiler: str | None = None

    def __str__(self) -> str:
        """In words."""
        layout = "channels last" if self.channels_last else "channels first"
        compiled = ", compiled" if self.compiler else ""
        return f"{str(self.dtype).removeprefix('torch.')}, {layout}{compiled}"


class Encoder(nn.Module):
    """LSE-LBA's way down, with a linear classifier of the means."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(network.stem, *network.encoder)
        self.classify = nn.Linear(network.encoder[-1][-1].channels, len(FINDINGS))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) -> log-odds (B, 14)."""
        return self.classify(self.layers(images).mean((-2, -1)))


def of_timm(name: str, **arguments: Any) -> Callable[[Any], nn.Module]:
    """A network of timm with a linear classifier."""
    common = {"in_chans": 1, "num_classes": len(FINDINGS)}
    return lambda model: timm.create_model(name, **common, **arguments)


METHODS = {
    "LSE-LBA": Method(
        "lse_lba", {}, 512, 1, 8, lambda model: Encoder(copy.deepcopy(model.network))
    ),
    "MSA": Method("attention_mining", {"steps": 0}, 512, 1, 2, of_timm("resnet50")),
    "AM and KP, third step": Method("attention_mining", {}, 512, 1, 2, of_timm("resnet50")),
    "HAM": Method("ham", {}, 512, 1, 2, of_timm("resnet50", output_stride=8)),
    "PYLON": Method("pylon", {}, 256, 2, 4, of_timm("resnet50")),
    "CLARiTy": Method("clarity", {}, 512, 1, 2, of_timm("vit_small_patch16_224", img_size=512)),
}

MODES = [
    Mode(),
    Mode(channels_last=False),
    Mode(torch.bfloat16),
    Mode(torch.bfloat16, channels_last=False),
    Mode(compiler="inductor"),
    Mode(torch.bfloat16, compiler="inductor"),
]
"""The first is that of training on a CPU."""

Loss = Callable[[Batch], Tensor]


class Alone:
    """All of a trainer that a training step asks for."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizers = [optimizer]


def draw(method: Method, batch: int, device: torch.device) -> Batch:
    """Images and labels, and what CLARiTy learns from besides."""
    images = torch.rand(batch, 1, method.size, method.size, device=device)
    labels = (torch.arange(len(FINDINGS), device=device) < 3).float().expand(batch, -1)
    teacher = torch.randn(batch, len(FINDINGS), device=device)
    return Batch(images, labels, teacher=teacher, prior=torch.ones_like(images))


def step_of(network: nn.Module, batch: Batch, mode: Mode) -> Callable[[], None]:
    """A training step of a method, or of a backbone, until it is done."""
    device = batch.images.device
    layout = torch.channels_last if mode.channels_last else torch.contiguous_format
    network.to(device, memory_format=layout)
    learned = [weights for weights in network.parameters() if weights.requires_grad]
    optimizer = torch.optim.Adam(learned, 1e-4, fused=True)
    trainer = Alone(optimizer)
    loss_of: Loss
    if isinstance(network, CXRModule):
        network.trainer = trainer
        network.log = network.log_dict = lambda *values, **how: None  # there is nobody to tell
        loss_of = partial(network.training_step, batch_index=0)
    else:
        loss_of = partial(bare_loss, network)
    if mode.compiler:
        loss_of = torch.compile(loss_of, backend=mode.compiler)

    def step(trainer: Alone = trainer) -> None:  # which the model itself holds only weakly
        optimizer.zero_grad()
        with torch.autocast(device.type, mode.dtype, enabled=mode.dtype != torch.float32):
            loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def bare_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy, in float32 as the methods have it."""
    return multilabel_cross_entropy(network(batch.images).float(), batch.labels)


def roofline(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations a second in a large matrix product."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.rand(n, n, device=device).to(dtype)

    def product() -> None:
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * n**3 / rounds({"product": product}, 5, clock=clock_of(device))["product"].min()


def clock_of(device: torch.device) -> Callable[[Callable[[], object]], float]:
    """The processor's, or where a GPU does the work, that on the wall."""
    return wall if device.type == "cuda" else processor


def flops(step: Callable[[], None]) -> float:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


class Measured(NamedTuple):
    """Of one method: a row for each network and mode, and ratios."""

    table: pd.DataFrame
    ratios: list[dict[str, object]]


def measure(
    name: str,
    method: Method,
    modes: Sequence[Mode],
    device: torch.device,
    batch_size: int,
    roofs: Mapping[torch.dtype, float],
) -> Measured:
    """Time a method and its backbone in every mode; the operations are those of the first."""
    batch = draw(method, batch_size, device)
    steps, rows = {}, []
    for mode in modes:
        model = create_model(method.model, **method.arguments)
        for network in (method.backbone(model), model):
            of_method = network is model
            label = spoken(name if of_method else f"backbone of {name}", mode, device)
            steps[label] = step_of(network, batch, mode)
            rows.append({"network": label, "method": name, "is_method": of_method, "mode": mode})
    # The first step does not count: some of them are compiled in it.
    operations = [flops(steps[row["network"]]) for row in rows[:2]]
    for row in rows[2:]:
        steps[row["network"]]()
    spent = rounds(steps, method.rounds, warm=0, clock=clock_of(device))
    best = spent.min()
    for row in rows:
        mode = row.pop("mode")
        seconds, needed = best[row["network"]], operations[row["is_method"]]
        row |= {"device": device.type, "dtype": str(mode.dtype), "size": method.size}
        row |= {
            "batch": batch_size,
            "rounds": method.rounds,
            "seconds": seconds,
            "images_per_second": batch_size / seconds,
        }
        row |= {"operations": needed, "share_of_roofline": needed / seconds / roofs[mode.dtype]}
    bare, usual, *others = (row["network"] for row in rows)
    ratios = [ratio(spent, usual, bare), *(ratio(spent, mode, usual) for mode in others[1::2])]
    return Measured(pd.DataFrame(rows), ratios)


def spoken(name: str, mode: Mode, device: torch.device) -> str:
    """A network in a mode, of which the usual one on a CPU goes without saying."""
    usual = mode == MODES[0] and device.type == "cpu"
    return name if usual else f"{name} ({device.type}, {mode})"


def measure_all(device: torch.device) -> list[Measured]:
    """Every method on a device."""
    torch.set_float32_matmul_precision("high")  # as convolutions have it, so that roofs are theirs
    roofs = {mode.dtype: roofline(mode.dtype, device) for mode in MODES}
    measured = []
    for name, method in track(METHODS.items(), f"methods on the {device}", len(METHODS)):
        modes, size = MODES, GPU_BATCH
        if device.type == "cpu":
            first = name == next(iter(METHODS))
            modes = [mode for mode in MODES if not mode.compiler] if first else MODES[:1]
            size = method.batch
        measured.append(measure(name, method, modes, device, size, roofs))
    return measured


def main() -> None:
    """Measure on the CPU and, where there is one, on a GPU."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    with freed_memory_kept():
        measured = measure_all(torch.device("cpu"))
    if torch.cuda.is_available():
        measured += measure_all(torch.device("cuda"))
    table = pd.concat(of.table for of in measured)
    shown = ["network", "seconds", "images_per_second", "share_of_roofline"]
    print(table[shown].to_string(index=False, float_format="%.3g"))
    where = {"cpu": machine()}
    if torch.cuda.is_available():
        where["cuda"] = torch.cuda.get_device_name()
    table = table.assign(machine=table["device"].map(where))
    ratios = [row for of in measured for row in of.ratios]
    write(__file__, table, ratios, threads=THREADS, packages=PACKAGES)


if __name__ == "__main__":
    main()
