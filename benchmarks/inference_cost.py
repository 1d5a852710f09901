"""What it costs to ask each published network: ``python benchmarks/inference_cost.py``.

Weights, multiply-adds for one image, and images per second (scores and maps together) on one core
of a CPU and, where there is one, on a GPU. All networks see images of 512 px; those whose papers
train at another size have that row too. Beside them a ResNet-50 with its class activation map.
Multiply-adds are half of what PyTorch counts as floating-point operations, in convolutions, matrix
products and attention. Networks take turns; the median of the rounds counts. On the CPU the
seconds are those of the process, so that other work on the machine hardly matters.

Writes ``inference_cost.csv`` beside itself. Ratios of one run mean something; the numbers
themselves are of one machine on one day.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from loading import machine
from torch.utils.flop_counter import FlopCounterMode

from cxrlib.files import write_csv
from cxrlib.models import CXRModule, create_model
from cxrlib.progress import track

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

BATCH, ROUNDS, THREADS = 2, 3, 1
PACKAGES = ("torch", "timm")


def multiply_adds(model: CXRModule, images: torch.Tensor) -> float:
    """Of one image."""
    with FlopCounterMode(display=False) as counter:
        model(images[:1])
    return counter.get_total_flops() / 2


def seconds(model: CXRModule, images: torch.Tensor) -> float:
    """Of one batch."""
    clock = time.perf_counter if images.is_cuda else time.process_time
    start = clock()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def measure(device: str) -> pd.DataFrame:
    """A row for each network."""
    torch.manual_seed(0)
    models, images = {}, {}
    for name, (kind, arguments, side) in NETWORKS.items():
        model = create_model(kind, **arguments).eval()
        models[name] = model.to(device, memory_format=torch.channels_last)
        images[name] = torch.rand(BATCH, 1, side, side, device=device)
    rounds = [
        {name: seconds(model, images[name]) for name, model in models.items()}
        for _ in track(range(1 + ROUNDS), f"networks on the {device}", 1 + ROUNDS)
    ]
    spent = pd.DataFrame(rounds[1:]).median()  # the first round warms up
    return pd.DataFrame(
        {
            "network": name,
            "image_size": images[name].shape[-1],
            "weights": sum(weights.numel() for weights in model.parameters()),
            "multiply_adds": multiply_adds(model, images[name]),
            "images_per_second": BATCH / spent[name],
            "of_resnet": spent["ResNet-50, CAM"] / spent[name],  # the same, as a ratio
        }
        for name, model in models.items()
    )


@torch.inference_mode()
def main() -> None:
    """Measure on the CPU and, where there is one, on a GPU."""
    torch.set_num_threads(THREADS)
    devices = {"cpu": machine()}
    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda.get_device_name()
    versions = [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)]
    table = pd.concat(
        measure(device).assign(device=device, machine=where) for device, where in devices.items()
    ).assign(batch=BATCH, rounds=ROUNDS, threads=THREADS, versions="; ".join(versions))
    print(table.iloc[:, :7].to_string(index=False, float_format="%.4g"))
    write_csv(Path(__file__).with_suffix(".csv"), table)


if __name__ == "__main__":
    main()
