import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlib import training
from cxrlib.datasets.base import Split, Truth
from cxrlib.inference import device_type, predict
from cxrlib.models import create_model
from cxrlib.phantom import dataset as phantom
from cxrlib.predictions import Predictions

TINY = {"width": 8, "levels": 2, "growth": 4, "layers": 1}
WHOLE_RUN = """
import sys, torch
from cxrlib import metrics, models, runs, training
from cxrlib.datasets.base import Truth
from cxrlib.models.lse_lba import PRESETS, LSELBAParameters
from cxrlib.parameters import settings_of
from cxrlib.phantom import dataset as phantom
from cxrlib.inference import predict

params = LSELBAParameters(
    preset="smoke", dataset="phantom", data_dir=None, run_dir=sys.argv[1], seed=0, image_size=64,
    epochs=6, batch_size=16, learning_rate=None, accelerator="cpu", num_workers=0, r0=5.0,
)
settings = settings_of(params, PRESETS["smoke"])
split = phantom.load(64, n_train=240, n_val=40, n_test=60)
run = runs.start("lse_lba", params, settings, split)
print("ready", flush=True)
torch.manual_seed(params.seed)
model = models.create_model("lse_lba", r0=params.r0, **settings["network"])
history = training.fit(model, split, run.workspace, epochs=6, batch_size=16, accelerator="cpu")
predictions = predict(model, split.test, batch_size=16, accelerator="cpu")
results = metrics.evaluate(predictions, split.test)
run.finish(results, {"train": history["seconds"].sum(), "epochs": len(history)}, predictions)
"""


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, n_train=48, n_val=12, n_test=24)


def trained(split: Split, folder: Path, epochs: int = 2, seed: int = 0, **arguments):
    torch.manual_seed(seed)
    model = create_model("lse_lba", **TINY, **arguments)
    folder.mkdir(exist_ok=True)
    history = training.fit(
        model, split, folder, epochs=epochs, batch_size=16, seed=seed, accelerator="cpu"
    )
    return model, history.drop(columns="seconds")


def test_same_seed_same_numbers(split, tmp_path):
    (one, first), (two, second) = (trained(split, tmp_path / name) for name in "ab")
    pd.testing.assert_frame_equal(first, second)
    for weights, others in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(weights, others)
    assert not first.equals(trained(split, tmp_path / "c", seed=1)[1])


def test_the_kept_epoch_is_the_best_one(split, tmp_path):
    _, history = trained(split, tmp_path / "run", epochs=3)
    best = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(history["val_loss"].argmin())
    assert list(history["epoch"]) == [1, 2, 3]


def test_a_finished_training_is_not_repeated(split, tmp_path):
    model, history = trained(split, tmp_path / "run")
    stamp = (tmp_path / "run" / "last.ckpt").stat().st_mtime_ns
    again, same = trained(split, tmp_path / "run")
    assert (tmp_path / "run" / "last.ckpt").stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(history, same)
    assert torch.equal(model.network.head.weight, again.network.head.weight)


def test_training_reduces_the_loss(split, tmp_path):
    _, history = trained(split, tmp_path / "run", epochs=40, learning_rate=1e-2)
    assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0]


def test_leaks_and_empty_parts_are_refused(split, tmp_path):
    leaky = Split(split.train, split.train.subset(np.arange(4)), split.test, "hash")
    with pytest.raises(ValueError, match="in both 'train' and 'val'"):
        trained(leaky, tmp_path / "run")
    boxed = Split(split.test, split.val, split.train, "hash")
    with pytest.raises(ValueError, match=r"boxed patients belong to 'test'"):
        trained(boxed, tmp_path / "run")
    empty = Split(split.train, split.val.subset(np.arange(0)), split.test, "hash")
    with pytest.raises(ValueError, match=r"'val' part .* has no images"):
        trained(empty, tmp_path / "run")


def test_predictions_keep_the_maps_of_images_with_truth(split, tmp_path):
    model = create_model("lse_lba", **TINY).eval()
    predictions = predict(model, split.test, batch_size=7, accelerator="cpu")
    assert predictions.scores.shape == (len(split.test), 14)
    truth = Truth(split.test)
    assert set(predictions.map_ids) == set(split.test.image_ids[truth.image])
    pairs = predictions.pairs(truth)
    with torch.inference_mode():
        output = model(split.test[int(truth.image[5])].image[None])
    expected = output.maps[0, truth.finding[5]].numpy()
    assert np.abs(pairs[5].astype(np.float32) - expected).max() < 1e-3
    with open(tmp_path / "predictions.npz", "wb") as file:
        predictions.write(file)
    stored = Predictions.read(tmp_path / "predictions.npz")
    assert (stored.pairs(truth) == pairs).all() and stored.frame == 64


def test_a_device_that_is_not_there_is_refused():
    absent = "gpu" if not torch.cuda.is_available() else "mps"
    if absent == "gpu" and torch.backends.mps.is_available():
        absent = "tpu"
    with pytest.raises(ValueError, match=r"no such device; use 'auto' or 'cpu'"):
        device_type(absent)


def test_three_kills_change_no_number(tmp_path, monkeypatch):
    """SIGKILL at random moments of a run, then the same command to its end."""
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))

    def start(folder: str) -> subprocess.Popen:
        command = [sys.executable, "-c", WHOLE_RUN, str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    assert whole.stdout.readline() == "ready\n"
    ready = time.monotonic()
    assert whole.wait(120) == 0
    length = time.monotonic() - ready

    # After the first of six epochs, then twice 0.3 of the whole at most: the run cannot end before.
    for moment in [0, *np.random.default_rng().uniform(0, 0.3 * length, 2)]:
        run = start("killed")
        assert run.stdout.readline() == "ready\n"
        while not (tmp_path / "killed.partial" / "last.ckpt").exists():
            time.sleep(0.01)
        time.sleep(moment)
        run.send_signal(signal.SIGKILL)
        assert run.wait(20) == -signal.SIGKILL
        assert not (tmp_path / "killed").exists()
    assert start("killed").wait(120) == 0

    one, other = (
        json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("whole", "killed")
    )
    assert one["seconds"]["epochs"] == other["seconds"]["epochs"] == 6
    # In float32, where a process that starts anew may add up in another order: a threshold that is
    # tuned near 0 is a small difference of numbers near 1.
    numbers = [pd.json_normalize({**run, "seconds": 0}).iloc[0] for run in (one, other)]
    pd.testing.assert_series_equal(*numbers, rtol=1e-5, atol=1e-5)
    assert not (tmp_path / "killed.partial").exists()
