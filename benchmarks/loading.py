"""How fast images are loaded, beside torchxrayvision: ``python benchmarks/loading.py``.

Both read the same files at 256 px in one process: ours through the ``DataLoader`` that training
uses, torchxrayvision's ``NIH_Dataset`` image by image, with its centre crop and its OpenCV resizer.
Our loader gives bytes, which become floats on the model's device; a second figure counts that in,
on the CPU. Before the clock starts, every file has been read once. Rounds alternate; the fastest
counts.

The files are drawn here: PNG of 1024 px in the layout of ChestX-ray14. ``--data-dir`` measures a
folder of the release, too. A second part opens a cache with as many rows as the whole release has,
with a hole in place of the pixels, and reads all of it once.

Writes ``loading.csv`` and its rows of ``ratios.csv``. Needs a package that the library does not:
``pip install torchxrayvision``.
"""

import argparse
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import ratio, write
from PIL import Image
from torch.utils.data import Dataset

from cxrlib.datasets import nih
from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, scaled
from cxrlib.datasets.cache import VERSION, Entry, Store, stored
from cxrlib.datasets.images import Files, Reader, find_images
from cxrlib.datasets.rows import npy_header
from cxrlib.inference import loader
from cxrlib.phantom.controls import Controls
from cxrlib.phantom.population import render_some
from cxrlib.progress import track
from cxrlib.training import EpochSampler

SIZE, BATCH, ROUNDS, THREADS = 256, 64, 3, 1
DRAWN = 300
RELEASE = 112_120
PACKAGES = ("torchxrayvision", "opencv-python-headless", "torch", "numpy", "pillow")


def draw_release(folder: Path) -> Path:
    """A small folder in the official layout, drawn at 256 px and enlarged to 1024."""
    names = [f"{index + 1:08}_000.png" for index in range(DRAWN)]
    (folder / "images").mkdir()
    for index, name in enumerate(track(names, "drawing images", DRAWN)):
        (drawn,) = render_some(range(index, index + 1), SIZE, 0, Controls())
        image = Image.fromarray(drawn.pixels).resize((1024, 1024), Image.Resampling.BICUBIC)
        image.save(folder / "images" / name)
    table = {"Image Index": names, "Finding Labels": "Mass", "Patient ID": range(DRAWN)}
    table |= {"Patient Age": 57, "Patient Gender": "M", "View Position": "PA"}
    pd.DataFrame(table).to_csv(folder / "Data_Entry_2017_v2020.csv", index=False)
    (folder / "train_val_list.txt").write_text("\n".join(names[1:]))
    (folder / "test_list.txt").write_text(names[0])
    (folder / "BBox_List_2017.csv").write_text(
        f"Image Index,Finding Label,Bbox x,Bbox y,Bbox w,Bbox h\n{names[0]},Mass,0,0,9,9\n"
    )
    return folder


def torchxrayvision(folder: Path, image_ids: np.ndarray, scratch: Path) -> Dataset:
    """The same images as torchxrayvision reads them."""
    import torchvision
    import torchxrayvision as xrv

    paths = find_images(folder)
    table = pd.read_csv(nih.read_tables(folder).path, index_col=False)
    ids = table["Image Index"].str.removesuffix(".png")
    table["Image Index"] = [os.path.relpath(paths.get(name, ""), folder) for name in ids]
    table[ids.isin(image_ids)].to_csv(scratch / "table.csv", index=False)
    shape = [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(SIZE, engine="cv2")]
    return xrv.datasets.NIH_Dataset(
        str(folder),
        str(scratch / "table.csv"),
        views=["PA", "AP"],
        transform=torchvision.transforms.Compose(shape),
        unique_patients=False,
    )


def speed(read: Callable[[], object], images: int, seconds: float = 1.0) -> float:
    """Images per second, over as many whole passes as the time holds."""
    start, passes = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or not passes:
        read()
        passes += 1
    return passes * images / spent


def compare(folder: Path, scratch: Path) -> tuple[pd.DataFrame, str, int]:
    """Seconds for an image round by round, of both and of our own reading without the cache."""
    train = nih.load(folder, SIZE).train
    direct = nih.load(folder, SIZE, cache=False).train
    theirs = torchxrayvision(folder, train.image_ids, scratch)
    count = len(train)
    if len(theirs) != count:
        raise ValueError(f"torchxrayvision reads {len(theirs)} images, and we {count}")

    def all_of(dataset: CXRDataset) -> Callable[[], object]:
        batches = loader(dataset, BATCH, 0, sampler=EpochSampler(count, 0))
        return lambda: [len(batch.images) for batch in batches]

    def one_by_one() -> None:
        for index in EpochSampler(count, 0):
            theirs[index]

    def floats() -> None:
        for batch in loader(train, BATCH, 0, sampler=EpochSampler(count, 0)):
            scaled(batch.images)

    readers = {
        "torchxrayvision": one_by_one,
        "direct": all_of(direct),
        "cached": all_of(train),
        "cached, made floats": floats,
    }
    spent = pd.DataFrame(
        [{name: 1 / speed(read, count) for name, read in readers.items()} for _ in range(ROUNDS)]
    )
    first = Path(find_images(folder)[str(train.image_ids[0])])
    with Image.open(first) as image:
        return spent, f"{image.format} {image.width} px", count


def rows_of(spent: pd.DataFrame, files: str, count: int) -> list[dict[str, object]]:
    """Images per second of each reader, and how many times as many as torchxrayvision's."""
    speeds = 1 / spent.min()
    ratios = (speeds / speeds["torchxrayvision"]).add_suffix(" / torchxrayvision").iloc[1:]
    return [
        {"quantity": name, "value": value, "unit": unit, "files": files, "n": count}
        for column, unit in ((speeds, "images/s"), (ratios, "ratio"))
        for name, value in column.items()
    ]


def fill_with_a_hole(source: Path) -> Files:
    """A cache of as many images as the release has, whose pixels take no space on the disk."""
    ids = np.array([f"{index // 4:08}_{index % 4:03}" for index in range(RELEASE)])
    files = Files(ids, np.arange(RELEASE), np.arange(RELEASE))
    black = zlib.crc32(bytes(SIZE**2))
    entries = {
        name: Entry(row, f"{VERSION}:{row}:{row}", black) for row, name in enumerate(ids.tolist())
    }
    store = Store("nih", SIZE, source)
    store.folder.mkdir(parents=True)
    store.write_index(entries)
    with open(store.pixels, "wb") as file:
        file.truncate(len(npy_header(RELEASE, SIZE, SIZE)) + RELEASE * SIZE**2)
    store.seal(entries)
    return files


def read_release(source: Path, files: Files) -> list[dict[str, object]]:
    """Open the whole release and read it once, in a process of its own."""
    start = time.perf_counter()
    labels, boxes = np.zeros((RELEASE, 14)), pd.DataFrame(columns=BOX_COLUMNS)
    ids = files.image_ids
    data = CXRDataset("nih", ids, ids, labels, boxes, SIZE, Reader({}, SIZE, ""))
    data = data.reading(stored(data, source, files))
    batches = loader(data, BATCH, 0, sampler=EpochSampler(RELEASE, 0))
    seconds, most = [], 0
    for _ in batches:
        seconds.append(time.perf_counter() - start)
        most = max(most, anonymous_bytes()) if len(seconds) % 50 == 1 else most
    rows = [
        ("first batch of the release", seconds[0], "s"),
        ("one pass over the release", seconds[-1], "s"),
        ("memory beyond the page cache", most / 2**20, "MiB"),
    ]
    about = {"files": "none: a hole", "n": RELEASE}
    return [dict(zip(("quantity", "value", "unit"), row, strict=True)) | about for row in rows]


def anonymous_bytes() -> int:
    """Memory of this process that is no page of a file (Linux)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(text.split("Anonymous:")[1].split()[0])


def main() -> None:
    """Measure both parts; the cache is a temporary one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, action="append", default=[])
    given = parser.parse_args().data_dir
    torch.set_num_threads(THREADS)
    rows: list[dict[str, object]] = []
    ratios: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["CXRLIB_CACHE"] = str(scratch / "cache")
        (scratch / "drawn").mkdir()
        for folder in (draw_release(scratch / "drawn"), *given):
            spent, of_files, count = compare(folder, scratch)
            rows += rows_of(spent, of_files, count)
            other, *ours = (spent := spent.add_suffix(f", {of_files}"))
            ratios += [ratio(spent, name, other) for name in ours]
        files = fill_with_a_hole(scratch)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            rows += pool.submit(read_release, scratch, files).result()
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.4g"))
    write(__file__, table, ratios, threads=THREADS, packages=PACKAGES)


if __name__ == "__main__":
    main()
