import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from cxrlib import checkpoints, devices, training
from cxrlib.devices import METHODS, ONLY_NOTEBOOKS, read_options
from cxrlib.inference import answers, loader
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.phantom import dataset as phantom
from cxrlib.team import Team

OPTIONS = ["lse_lba", "--preset", "smoke", "--accelerator", "cpu", "--epochs", "2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, Path]:
    """The same training by one process and by two."""
    place = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for size, before in ((1, []), (2, torchrun)):
        command = [sys.executable, *before, "-m", "cxrlib.training", *OPTIONS]
        command += ["--run-dir", str(place / str(size))]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.strip().endswith(str(place / str(size)))
    return {size: place / str(size) for size in (1, 2)}


def read(folder: Path, name: str):
    return json.loads((folder / f"{name}.json").read_text())


def test_two_processes_write_the_run_folder_of_one(folders):
    names = {size: {path.name for path in folder.iterdir()} for size, folder in folders.items()}
    assert names[1] == names[2] >= {"metrics.json", "predictions.npz", "best.ckpt", "history.json"}
    params = {size: read(folder, "params") for size, folder in folders.items()}
    assert [params[size].pop("processes") for size in (1, 2)] == [1, 2]
    assert {**params[1], "run_dir": None} == {**params[2], "run_dir": None}
    keys = {read(folder, "environment")["key"] for folder in folders.values()}
    assert len(keys) == 2  # the numbers are not the same to the last digit


def test_two_processes_learn_as_one_does(folders):
    """Of 24 steps each; what differs is the augmentation and what batch normalization sees."""
    one, two = (read(folders[size], "history") for size in (1, 2))
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=0.05)
        assert first["loss"] != second["loss"]
    one, two = (read(folders[size], "metrics")["classification"] for size in (1, 2))
    a, b = (scores["auroc"]["mean"] for scores in (one, two))
    assert a["low"] <= b["value"] <= a["high"]


def test_processes_agree_on_the_validation_loss(folders):
    """What is logged, the mean of both, is what the kept weights give in one process."""
    history = read(folders[2], "history")
    kept = checkpoints.load_model(folders[2]).model
    settings = read(folders[2], "params")
    split = phantom.load(settings["image_size"], seed=0, **settings["phantom"])
    outputs = answers(kept, split.val, 8, "cpu")
    labels = torch.as_tensor(split.val.labels, dtype=torch.float32).split(8)
    losses = [
        multilabel_cross_entropy(output.logits, known) * len(known)
        for output, known in zip(outputs, labels, strict=True)
    ]
    mean = float(sum(losses)) / len(split.val)
    assert mean == pytest.approx(min(row["val_loss"] for row in history), abs=1e-5)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("length", [48, 50, 59])
def test_the_shares_of_a_step_are_the_batch_of_one_process(size, length):
    batch = 12
    alone = training.EpochSampler(length, seed=3)
    shares = [training.EpochSampler(length, 3, Team(size, rank), batch) for rank in range(size)]
    for epoch in (0, 5):
        for sampler in (alone, *shares):
            sampler.set_epoch(epoch)
        own = batch // size
        assert {len(list(share)) for share in shares} == {length // batch * own}
        assert {len(share) for share in shares} == {length // batch * own}
        order = list(alone)
        for step in range(length // batch):
            union = [i for share in shares for i in list(share)[step * own : (step + 1) * own]]
            assert sorted(union) == sorted(order[step * batch : (step + 1) * batch])


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match=r"16 cannot be shared out to 3 processes.*multiple of 3"):
        Team(3).share(16)
    with pytest.raises(ValueError, match=r"10 images to train on are fewer than batch_size = 16"):
        training.EpochSampler(10, 0, Team(2), 16)


def test_torchrun_says_who_is_there(monkeypatch):
    for name, value in {"WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4, "RANK": 5}.items():
        monkeypatch.setenv(name, str(value))
    assert Team.from_torchrun() == Team(size=8, rank=5, nodes=2)


def test_options_are_the_parameters_of_the_notebook():
    name, params = read_options(["pylon", "--learning-rate", "1e-2", "--data-dir", "None"])
    assert name == "pylon" and params.learning_rate == 0.01 and params.data_dir is None
    assert params.preset == "quick" and params.variant == "pylon"  # the notebook's defaults
    with pytest.raises(TypeError, match="seed = 'x'"):
        read_options(["pylon", "--seed", "x"])


def test_methods_that_cannot_be_shared_out_say_why(capsys):
    notebooks = Path(devices.__file__).parents[1] / "notebooks"
    for name in ONLY_NOTEBOOKS:
        assert devices.main([name]) == 1
        said = capsys.readouterr().err
        assert f"{name} trains in notebooks/{name}.ipynb only, on one device" in said
    assert all((notebooks / f"{name}.ipynb").exists() for name in (*METHODS, *ONLY_NOTEBOOKS))


class Idle(pl.Callback):
    """Weights that a step has given no gradient."""

    def on_after_backward(self, trainer, model):
        self.names = [name for name, weights in model.named_parameters() if weights.grad is None]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_uses_all_its_weights(name, tmp_path):
    """A weight without a gradient would stop the second step of several processes."""
    _, params = read_options([name, "--preset", "smoke"])
    settings = METHODS[name].presets["smoke"]
    model = METHODS[name].make(params, settings)
    split = phantom.load(settings["image_size"], n_train=8, n_val=2, n_test=2)
    idle = Idle()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[idle], logger=False, default_root_dir=tmp_path
    )
    trainer.fit(model, loader(split.train, 8, 0), loader(split.val, 2, 0))
    assert idle.names == []
