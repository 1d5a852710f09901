"""The same seed, in fresh processes: what is equal to the last bit, and what to how much.

With the same number of threads everything is equal bit for bit, whatever the number of processes
that read images, of cores that draw the phantom and whatever Python's hashes. Another number of
threads sums gradients in another order: after two short epochs scores differ by some 1e-6.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).with_name("fresh_process.py")
WAYS = {
    "plain": {"workers": 0, "threads": 1, "cores": 1, "hashes": 0},
    "other processes": {"workers": 2, "threads": 1, "cores": 2, "hashes": 1},
    "two threads": {"workers": 0, "threads": 2, "cores": 2, "hashes": 2},
}
TRAINED = ("weight", "history", "scores", "maps", "metrics")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Ten images of ten patients, as a user's own folder."""
    folder = tmp_path_factory.mktemp("images")
    rows = [f"{name}.png,{name % 2}\n" for name in range(10)]
    (folder / "labels.csv").write_text("image,Mass\n" + "".join(rows))
    for name in range(10):
        pixels = np.random.default_rng(name).integers(0, 256, (50, 40 + name), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def numbers(tmp_path_factory, images) -> dict[str, dict[str, np.ndarray]]:
    """What each way of running came to, by name."""
    found = {}
    for name, way in WAYS.items():
        folder = tmp_path_factory.mktemp("process")
        changed = {
            "PYTHONHASHSEED": way["hashes"],
            "LOKY_MAX_CPU_COUNT": way["cores"],
            "OMP_NUM_THREADS": way["threads"],
        }
        done = subprocess.run(
            [sys.executable, SCRIPT, folder, images, str(way["workers"]), str(way["threads"])],
            env=os.environ | {key: str(value) for key, value in changed.items()},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        with np.load(folder / "numbers.npz") as file:
            found[name] = dict(file)
    return found


def test_fresh_processes_and_workers_change_no_bit(numbers):
    plain, other = numbers["plain"], numbers["other processes"]
    assert plain.keys() == other.keys()
    for name, values in plain.items():
        assert values.tobytes() == other[name].tobytes(), name
    assert len(np.unique(plain["cached"], axis=0)) == len(plain["cached"]) > 1
    assert plain["history"].shape[0] == 2 and np.isfinite(plain["history"]).all()


def test_threads_change_no_image_no_draw_and_of_a_training_little(numbers):
    plain, other = numbers["plain"], numbers["two threads"]
    for name in plain:
        if not name.startswith(TRAINED):
            assert plain[name].tobytes() == other[name].tobytes(), name
    np.testing.assert_allclose(other["history"], plain["history"], rtol=1e-5)
    np.testing.assert_allclose(other["scores"], plain["scores"], atol=2e-5)
    np.testing.assert_allclose(other["maps"], plain["maps"], atol=1e-3)
