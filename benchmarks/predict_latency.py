"""How long a radiograph waits for its maps: ``python benchmarks/predict_latency.py``.

For each model that comes with the library, on one thread of a CPU, after the imports: the weights
are opened, a PNG of 2,500 x 2,048 px is read, the model is asked, and picture, document and page
are written, as ``cxrlib predict`` does it with one file. Seconds are those of the process, so that
other work on the machine hardly matters; the median of the rounds counts. Apart from it, each in a
process of its own: what ``import cxrlib`` takes, what that of torch takes, and ``cxrlib --help``.

Writes ``predict_latency.csv`` beside itself. The numbers are of one machine on one day.
"""

import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from loading import machine
from PIL import Image

from cxrlib import readings
from cxrlib.files import write_csv
from cxrlib.phantom.controls import Controls
from cxrlib.phantom.population import render_some
from cxrlib.readings import folder
from cxrlib.weights import SHIPPED, open_pretrained

SHAPE, ROUNDS, THREADS = (2500, 2048), 5, 1
PACKAGES = ("torch", "pillow", "numpy")
PROGRAMS = {
    "import cxrlib": "import cxrlib",
    "import torch": "import torch",
    "cxrlib --help": "from cxrlib import cli; cli.main(['--help'])",
}


def draw(path: Path) -> None:
    """A chest with the noise and the size of a file from a detector."""
    (chest,) = render_some(range(1), 512, 0, Controls())
    image = Image.fromarray(chest.pixels).resize(SHAPE[::-1], Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(scale=3, size=SHAPE)
    Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(path)


def reading(name: str, file: Path, out: Path) -> float:
    """Seconds of the processor from the name of a model to the written page."""
    start = time.process_time()
    described = open_pretrained(name)
    folder.write(out, described, readings.read(described, [file]))
    return time.process_time() - start


def program(code: str) -> float:
    """Seconds of the processor that a program takes in all, less those of an empty one."""

    def spent(code: str) -> float:
        timed = f"import contextlib, time\nwith contextlib.suppress(SystemExit): exec({code!r})\n"
        timed += "import sys; print(time.process_time(), file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True)
        return float(done.stderr.splitlines()[-1])

    return max(0.0, spent(code) - spent("pass"))


def main() -> None:
    """Measure every model and every program; the first round does not count."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "scan.png"
        draw(file)
        rounds = [
            {name: reading(name, file, Path(place) / f"{k}-{name}") for name in SHIPPED}
            for k in range(1 + ROUNDS)
        ]
    spent = pd.DataFrame(rounds[1:]).median()
    rows = [(f"one image, {SHIPPED[name]}", spent[name]) for name in SHIPPED]
    rows.append(("the first image of all, LSE-LBA", rounds[0]["lse_lba"]))
    measured = pd.DataFrame([{n: program(c) for n, c in PROGRAMS.items()} for _ in range(ROUNDS)])
    rows += [*measured.median().items()]
    versions = [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)]
    table = pd.DataFrame(rows, columns=["quantity", "value"]).assign(
        unit="s of the processor", rounds=ROUNDS, threads=THREADS, machine=machine()
    )
    table["versions"] = "; ".join(versions)
    print(table[["quantity", "value", "unit"]].to_string(index=False))
    write_csv(Path(__file__).with_suffix(".csv"), table)


if __name__ == "__main__":
    main()
