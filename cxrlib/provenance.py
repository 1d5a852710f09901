"""What a result depends on beyond its parameters: code, data, versions, device."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from cxrlib.datasets.base import Split
from cxrlib.files import digest
from cxrlib.parameters import Parameters

PACKAGES = (
    "cxrlib",
    "torch",
    "torchvision",
    "lightning",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
)
"""Packages whose versions a run records."""


def describe_environment(parameters: Parameters, split: Split) -> dict[str, Any]:
    """What a result depends on beyond its parameters, and where it was computed."""
    import torch

    from cxrlib.inference import device_type

    device = device_type(parameters.accelerator)
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "decides": {
            "source": source_hash(),
            "torch": versions["torch"],
            "device": device,
            "data_hash": split.data_hash,
            "split_hash": split.split_hash,
        },
        "images": {name: len(getattr(split, name)) for name in ("train", "val", "test")},
        "notes": list(split.notes),
        "seed": parameters.seed,
        "device_name": torch.cuda.get_device_name()
        if device == "cuda"
        else platform.processor() or device,
        "threads": torch.get_num_threads(),
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": git_commit(),
    }


def source_hash() -> str:
    """Names the library's code: a run is not taken for one that other code has made."""
    package = Path(__file__).parent
    return digest(*(path.read_bytes() for path in sorted(package.rglob("*.py"))))


def git_commit() -> str | None:
    """The checkout's commit, with ``+`` if files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
