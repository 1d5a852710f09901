"""How fast maps are scored by every protocol: ``python benchmarks/protocols_speed.py``.

As many pairs, images and patients as ChestX-ray14 has official boxes for, 984, 880 and 726, with a
map of 64 x 64 of each of eight findings, in the frame of the boxes, 1024 px. Maps and boxes are
drawn: smooth hills on smooth noise. Timed are the measurements of all conventions, of the 984 maps
of what is there, and with the false boxes of the 6,056 maps of what is not; and every protocol's
number with 1,000 replicates. The memory is the most that the process held, libraries included.

One part is compared with the plain way, in one thread on 40 maps, scaled to all: the boxes of a
hundred thresholds, with OpenCV's calls in a loop over the whole frame. Other boxes stop the
benchmark. Both ways take turns; the shortest round counts.

Writes ``protocols_speed.csv`` and its rows of ``ratios.csv``.
"""

import resource

import cv2
import numpy as np
import pandas as pd
import torch
from measure import ratio, rounds, wall, write

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Truth
from cxrlib.metrics.conventions import SWEEP
from cxrlib.metrics.estimates import estimate
from cxrlib.metrics.localization import frames_of, measure, of_pairs
from cxrlib.metrics.regions import rescale, sweep, to_bytes, upsample

PAIRS, IMAGES, PATIENTS, FINDINGS, GRID, FRAME = 984, 880, 726, 8, 64, 1024
REPLICATES, COMPARED, ROUNDS = 1000, 40, 5
PACKAGES = ("opencv-python-headless", "numpy", "torch")


def draw_truth(rng: np.random.Generator) -> Truth:
    """Boxes of an eighth of the side to a half, no finding twice in an image."""
    pair = np.arange(PAIRS)
    image = pair % IMAGES
    side = rng.uniform(0.125, 0.5, (PAIRS, 2))
    corner = rng.uniform(0, 1 - side)
    ids = np.char.mod("%05d", np.arange(IMAGES))
    boxes = pd.DataFrame(np.hstack([corner, corner + side]), columns=BOX_COLUMNS[2:])
    boxes = boxes.assign(image_id=ids[image], finding=(image + pair // IMAGES) % FINDINGS)
    patients = np.char.mod("%05d", np.arange(IMAGES) % PATIENTS)
    labels = np.zeros((IMAGES, 14))
    return Truth(CXRDataset("drawn", ids, patients, labels, boxes, FRAME, np.zeros))


def draw_maps(rng: np.random.Generator) -> np.ndarray:
    """One hill for each image and finding, on noise: float16 (880, 8, 64, 64), 0 to 1."""
    return np.stack([draw_hills(rng) for _ in range(IMAGES)])


def draw_hills(rng: np.random.Generator) -> np.ndarray:
    """The maps of one image: float16 (8, 64, 64)."""
    cell = (np.arange(GRID) + 0.5) / GRID
    x, y = rng.uniform(0.2, 0.8, (2, FINDINGS, 1))
    width = rng.uniform(0.05, 0.25, (FINDINGS, 1))
    across, down = (np.exp(-(((cell - centre) / width) ** 2) / 2) for centre in (x, y))
    noise = [cv2.GaussianBlur(one, (0, 0), 2.5) for one in rng.normal(size=(FINDINGS, GRID, GRID))]
    logits = 5 * down[:, :, None] * across[:, None] - 3 + 4 * np.stack(noise)
    return (1 / (1 + np.exp(-logits))).astype(np.float16)


def plain_sweep(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of all contours at each threshold, and that of the largest contour."""
    boxes, largest = [], []
    for share in SWEEP:
        _, above = cv2.threshold(levels, int(share * levels.max()), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        around = [cv2.boundingRect(contour) for contour in contours]
        largest.append(around[int(np.argmax([cv2.contourArea(c) for c in contours]))])
        boxes += around
    corners = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    return np.array(boxes) @ corners, np.array(largest) @ corners


def compare_sweeps(maps: np.ndarray) -> pd.DataFrame:
    """Seconds of both ways for all pairs, round by round."""
    levels = [to_bytes(rescale(upsample(map_, FRAME))) for map_ in maps[:COMPARED]]
    for of_map in levels:
        boxes, _, largest = sweep(of_map, SWEEP)
        plain, plain_largest = plain_sweep(of_map)
        if not (np.array_equal(boxes, plain) and np.array_equal(boxes[largest], plain_largest)):
            raise ValueError("the boxes of the two ways differ; nothing was measured")
    ways = {
        "boxes of 100 thresholds, plain loop": lambda: [plain_sweep(map_) for map_ in levels],
        "boxes of 100 thresholds, ours": lambda: [sweep(map_, SWEEP) for map_ in levels],
    }
    return rounds(ways, ROUNDS, warm=0) * PAIRS / COMPARED  # the check above was the first


def main() -> None:
    """Measure all parts."""
    rng = np.random.default_rng(0)
    truth, maps = draw_truth(rng), draw_maps(rng)
    of_pairs_only = of_pairs(maps[truth.image, truth.finding], truth, FRAME)
    measuring = wall(lambda: measure({"drawn": of_pairs_only}, truth, FRAME))
    source = frames_of(lambda image, finding: maps[image, finding], FRAME)
    measured = {}
    with_others = wall(lambda: measured.update(measure({"drawn": source}, truth, FRAME)))
    estimating = wall(lambda: estimate(measured["drawn"], replicates=REPLICATES))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sweeps = compare_sweeps(maps[:, 0])
    both = ratio(sweeps, "boxes of 100 thresholds, ours", "boxes of 100 thresholds, plain loop")
    rows = [
        ("984 maps, every convention", measuring, "s"),
        ("the same and the false boxes of 6,056 other maps", with_others, "s"),
        ("every protocol with 1,000 replicates", estimating, "s"),
        ("memory of the process", most, "MiB"),
        *((str(name), value, "s") for name, value in sweeps.min().items()),
        ("plain / ours, boxes of 100 thresholds", 1 / both["value"], "ratio"),
    ]
    table = pd.DataFrame(rows, columns=["quantity", "value", "unit"])
    print(table.to_string(index=False, float_format="%.4g"))
    table = table.assign(n=PAIRS, rounds=ROUNDS)
    write(__file__, table, [both], threads=torch.get_num_threads(), packages=PACKAGES)


if __name__ == "__main__":
    main()
