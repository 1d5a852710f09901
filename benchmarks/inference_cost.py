"""What it costs to ask each published network: ``python benchmarks/inference_cost.py``.

Weights, multiply-adds for one image, and images per second (scores and maps together) on one core
of a CPU and, where there is one, on a GPU. All networks see images of 512 px; those whose papers
train at another size have that row too. Beside them a ResNet-50 with its class activation map.
Multiply-adds are half of what PyTorch counts as floating-point operations, in convolutions, matrix
products and attention. Networks take turns; the shortest of the rounds counts. On the CPU the
seconds are those of the process, so that other work on the machine hardly matters.

Writes ``inference_cost.csv`` and its rows of ``ratios.csv``.
"""

from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from measure import machine, processor, ratio, rounds, wall, write
from torch.utils.flop_counter import FlopCounterMode

from cxrlib.models import CXRModule, create_model

NETWORKS = {
    "ResNet-50, CAM": ("baseline", {"pooling": "mean"}, 512),
    "LSE-LBA": ("lse_lba", {}, 512),
    "AM, KP, MSA (T = 3)": ("attention_mining", {}, 512),
    "HAM": ("ham", {}, 512),
    "PYLON": ("pylon", {}, 512),
    "PYLON, 256 px": ("pylon", {}, 256),
    "CLARiTy": ("clarity", {}, 512),
    "CLARiTy, 224 px": ("clarity", {}, 224),
}
"""Model, arguments and pixels per side."""

BATCH, ROUNDS, THREADS = 1, 2, 1
REFERENCE = next(iter(NETWORKS))
PACKAGES = ("torch", "timm")


def multiply_adds(model: CXRModule, images: torch.Tensor) -> float:
    """Of one image."""
    with FlopCounterMode(display=False) as counter:
        model(images[:1])
    return counter.get_total_flops() / 2


def ask(model: CXRModule, images: torch.Tensor) -> None:
    """One batch, until it is done."""
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize()


def measure(device: str) -> tuple[pd.DataFrame, list[dict[str, object]]]:
    """A row for each network, and the time of each beside that of the reference."""
    torch.manual_seed(0)
    models, images = {}, {}
    for name, (kind, arguments, side) in NETWORKS.items():
        model = create_model(kind, **arguments).eval()
        models[name] = model.to(device, memory_format=torch.channels_last)
        images[name] = torch.rand(BATCH, 1, side, side, device=device)
    works: dict[str, Callable[[], object]] = {
        name: partial(ask, model, images[name]) for name, model in models.items()
    }
    seconds = rounds(works, ROUNDS, clock=wall if device == "cuda" else processor)
    spent = seconds.min()
    seconds = seconds.rename(columns=lambda name: f"{name} (GPU)" if device == "cuda" else name)
    reference, *others = seconds
    table = pd.DataFrame(
        {
            "network": name,
            "image_size": images[name].shape[-1],
            "weights": sum(weights.numel() for weights in model.parameters()),
            "multiply_adds": multiply_adds(model, images[name]),
            "images_per_second": BATCH / spent[name],
            "of_resnet": spent[REFERENCE] / spent[name],  # the same, as a ratio
            "device": device,
        }
        for name, model in models.items()
    )
    where = torch.cuda.get_device_name() if device == "cuda" else machine()
    table = table.assign(batch=BATCH, rounds=ROUNDS, machine=where)
    return table, [ratio(seconds, name, reference) for name in others]


@torch.inference_mode()
def main() -> None:
    """Measure on the CPU and, where there is one, on a GPU."""
    torch.set_num_threads(THREADS)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    measured = [measure(device) for device in devices]
    table = pd.concat(of_device for of_device, _ in measured)
    print(table.iloc[:, :7].to_string(index=False, float_format="%.4g"))
    ratios = [row for _, of_device in measured for row in of_device]
    write(__file__, table, ratios, threads=THREADS, packages=PACKAGES)


if __name__ == "__main__":
    main()
