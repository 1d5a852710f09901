"""How long a radiograph waits for its maps: ``python benchmarks/predict_latency.py``.

For each model that comes with the library, on one thread of a CPU, after the imports: the weights
are opened, a PNG of 2,500 x 2,048 px is read, the model is asked, and picture, document and page
are written, as ``cxrlib predict`` does it with one file. Beside it the network alone, on an image
that is in memory and has its size. Seconds are those of the process, so that other work on the
machine hardly matters; the shortest of the rounds counts. (What comes before, the imports, is
measured by ``start.py``.)

Writes ``predict_latency.csv`` and its rows of ``ratios.csv``.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import processor, ratio, rounds, write
from PIL import Image

from cxrlib import readings
from cxrlib.phantom.controls import Controls
from cxrlib.phantom.population import render_some
from cxrlib.readings import folder
from cxrlib.weights import SHIPPED, open_pretrained

SHAPE, ROUNDS, THREADS = (2500, 2048), 5, 1
PACKAGES = ("torch", "pillow", "numpy")


def draw(path: Path) -> None:
    """A chest with the noise and the size of a file from a detector."""
    (chest,) = render_some(range(1), 512, 0, Controls())
    image = Image.fromarray(chest.pixels).resize(SHAPE[::-1], Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(scale=3, size=SHAPE)
    Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(path)


def read(name: str, file: Path, place: Path, numbers: Iterator[int]) -> None:
    """From the name of a model to the written page, in a folder with a number of its own."""
    described = open_pretrained(name)
    folder.write(place / str(next(numbers)), described, readings.read(described, [file]))


def network(name: str) -> Callable[[], object]:
    """The network alone."""
    described = open_pretrained(name)
    size = described.about["image_size"]
    return partial(torch.inference_mode()(described.model), torch.rand(1, 1, size, size))


def main() -> None:
    """Measure every model."""
    torch.set_num_threads(THREADS)
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        draw(file := place / "scan.png")
        works: dict[str, Callable[[], object]] = {
            "the first image of all, LSE-LBA": partial(read, "lse_lba", file, place, numbers)
        }
        first = rounds(works, 1, warm=0, clock=processor)
        works = {
            f"one image, {SHIPPED[m]}": partial(read, m, file, place, numbers) for m in SHIPPED
        }
        works |= {f"its network, {SHIPPED[m]}": network(m) for m in SHIPPED}
        spent = rounds(works, ROUNDS, clock=processor)
    rows = [*spent.min().items(), *first.min().items()]
    table = pd.DataFrame(rows, columns=["quantity", "value"])
    print(table.to_string(index=False, float_format="%.3g"))
    ratios = [
        ratio(spent, f"one image, {title}", f"its network, {title}") for title in SHIPPED.values()
    ]
    table = table.assign(unit="s of the processor", rounds=ROUNDS)
    write(__file__, table, ratios, threads=THREADS, packages=PACKAGES)


if __name__ == "__main__":
    main()
