import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cxrlib
from cxrlib import runs, weights
from cxrlib.cli.predict import DEFAULT
from cxrlib.findings import FINDINGS
from cxrlib.inference import predict
from cxrlib.metrics import evaluate
from cxrlib.models import create_model
from cxrlib.models.lse_lba import LSELBAParameters
from cxrlib.phantom import dataset as phantom
from cxrlib.predictions import Predictions
from cxrlib.training import fit
from cxrlib.weights import scoring
from cxrlib.weights.card import CONTROLS, card, verdict
from cxrlib.weights.ship import MOST, half, ship, write_weights

SIDE = 64
TINY = {"r0": 5.0, "width": 8, "levels": 1, "growth": 4, "layers": 1, "learning_rate": 1e-2}
PHANTOM = {"n_train": 24, "n_val": 8, "n_test": 12, "prevalence": 0.3}
PARAMETERS = LSELBAParameters(
    preset="smoke",
    dataset="phantom",
    data_dir=None,
    run_dir=None,
    seed=3,
    image_size=SIDE,
    epochs=1,
    batch_size=8,
    learning_rate=1e-2,
    accelerator="cpu",
    num_workers=0,
    r0=5.0,
)


@pytest.fixture(scope="module")
def split():
    return phantom.load(SIDE, seed=3, **PHANTOM)


@pytest.fixture(scope="module")
def run(split, tmp_path_factory) -> Path:
    """A finished run of LSE-LBA."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        params = {"dataset": "phantom", "phantom": PHANTOM, "preset": "smoke", "data_dir": None}
        params |= {"image_size": SIDE, "epochs": 1, "batch_size": 8, "learning_rate": 1e-2}
        made = runs.start("lse_lba", PARAMETERS, params | {"seed": 3}, split)
        torch.manual_seed(0)
        model = create_model("lse_lba", **TINY)
        fit(model, split, made.workspace, epochs=1, batch_size=8, accelerator="cpu")
        predictions = predict(model, split.test, batch_size=8)
        results = evaluate(predictions, split.test, replicates=20)
        return made.finish(results, {"train": 1.0}, predictions)


@pytest.fixture(scope="module")
def shipped(run, tmp_path_factory) -> Path:
    return ship(run, tmp_path_factory.mktemp("shipped"))


@pytest.mark.parametrize("name", weights.SHIPPED)
def test_every_paper_has_a_model_that_loads_and_answers(name):
    model, about = weights.open_pretrained(name)
    assert not model.training
    assert about["method"] == name
    size = about["image_size"]
    with torch.inference_mode():
        logits, maps = cxrlib.load_pretrained(name)(torch.rand(2, 1, size, size))
    assert logits.shape == (2, 14) and maps.shape[:2] == (2, 14)
    assert logits.isfinite().all() and (maps >= 0).all() and (maps <= 1).all()


def test_the_files_are_small():
    sizes = {name: weights.weights_file(name).stat().st_size for name in weights.SHIPPED}
    print(f"{sizes}, {sum(sizes.values()):,} bytes in all")
    assert max(sizes.values()) <= MOST == 8_000_000


@pytest.mark.parametrize("name", weights.SHIPPED)
def test_every_card_says_what_its_file_says(name):
    about = weights.open_pretrained(name).about
    path = weights.weights_file(name)
    assert path.with_suffix(".md").read_text() == card(about, path.stat().st_size)
    assert weights.NOTICE in card(about, 0) and "Digital phantom, not patients" in card(about, 0)
    assert about["findings"] == [*FINDINGS]
    assert not about["commit"].endswith("+")


@pytest.mark.parametrize("name", weights.SHIPPED)
def test_half_precision_changes_little(name):
    change = weights.open_pretrained(name).about["half"]
    assert 0 < change["score"] < 1e-2
    assert abs(change["auroc"]) < 1e-3 and abs(change["pointing"]) < 1e-2


def test_nothing_else_is_in_the_folder_and_the_wheel_takes_it():
    folder = weights.weights_file("pylon").parent
    for suffix in (".safetensors", ".md"):
        assert {path.stem for path in folder.glob(f"*{suffix}")} == {*weights.SHIPPED}
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]["cxrlib"]
    assert {"weights/*.safetensors", "weights/*.md"} <= {*data}


def test_a_run_is_shipped_with_its_provenance(run, shipped, split):
    model, about = weights.read_weights(shipped)
    environment = json.loads((run / "environment.json").read_text())
    assert about["run"] == environment["key"] and about["commit"] == environment["git_commit"]
    assert about["arguments"] == {**TINY, "num_classes": 14}
    assert about["options"] == PHANTOM and about["images"]["test"] == len(split.test)
    assert (
        about["numbers"]["model"]["pointing"]
        == (json.loads((run / "metrics.json").read_text())["localization"]["pointing"]["macro"])
    )
    full = weights.of_run(run).model
    with torch.inference_mode():
        images = torch.stack([split.test[index].image for index in range(4)])
        ours, theirs = (m(images).logits.sigmoid() for m in (model, full))
    assert 0 < (ours - theirs).abs().max() < 1e-2
    assert about["half"]["score"] < 1e-2
    assert "at most" in shipped.with_suffix(".md").read_text()


def test_half_precision_is_compared_on_the_whole_part(run, shipped, split):
    model = weights.of_run(run).model
    spoilt = weights.read_weights(shipped)
    torch.nn.init.ones_(spoilt.model.network.head.weight)
    change = half(model, spoilt, split.test)
    assert change["score"] > 1e-2 and abs(change["auroc"]) > 0


def test_a_changed_run_has_another_hash(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    (other / "params.json").write_text((run / "params.json").read_text() + " ")
    model = weights.of_run(run).model
    hashes = {weights.describe(folder, model)["run_hash"] for folder in (run, other)}
    assert len(hashes) == 2


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    large = torch.nn.Linear(16, 16)
    torch.nn.init.constant_(large.weight, 1e6)
    with pytest.raises(ValueError, match="weight has values that half precision"):
        write_weights(large, {}, tmp_path / "a.safetensors")
    few = torch.nn.Linear(15, 17)  # 255 numbers stay as they are
    torch.nn.init.constant_(few.weight, 1e6)
    write_weights(few, {}, tmp_path / "b.safetensors")
    assert load_file(tmp_path / "b.safetensors")["weight"].max() == 1e6
    with pytest.raises(ValueError, match="of 8,000,000; ship a smaller one"):
        write_weights(torch.nn.Linear(4_000, 1_001), {}, tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]


def test_an_unknown_name_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"did you mean 'pylon'\? Valid: lse_lba, .*clarity"):
        cxrlib.load_pretrained("pilon")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (Path.unlink, FileNotFoundError, "is absent; install cxrlib again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-99]), ValueError, "is damaged"),
        (lambda path: path.write_bytes(b""), ValueError, "is damaged"),
        (lambda path: path.write_bytes(b"\xff" * 99), ValueError, "is damaged"),
    ],
)
def test_an_absent_or_damaged_file_says_so(shipped, tmp_path, spoil, error, message):
    path = Path(shutil.copy(shipped, tmp_path))
    spoil(path)
    with pytest.raises(error, match=f"{path}.*{message}"):
        weights.read_weights(path)


def test_a_file_of_another_version_says_so(shipped, tmp_path):
    model, about = weights.read_weights(shipped)
    about["arguments"]["nothing"] = 1
    write_weights(model, about, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"another version of cxrlib .*no argument 'nothing'"):
        weights.read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("low", "how"), [(0.46, "better than"), (0.1, "worse than")])
def test_the_verdict_of_a_card(low, how):
    prior = {"value": 0.4, "low": 0.35, "high": 0.45}
    assert verdict({"value": low + 0.05, "low": low, "high": low + 0.1}, prior) == how


def test_the_table_of_real_radiographs_is_of_the_models_that_are_shipped():
    table = runs.committed("pretrained_nih_mini.csv")
    shipped = {name: weights.open_pretrained(name).about["run"] for name in weights.SHIPPED}
    assert dict(table.groupby("model")["run"].first()) == shipped
    assert {*table["frame"]} == {scoring.REAL_FRAME}
    pointing = table.query("protocol == 'pointing' and finding == 'micro'")
    assert {*pointing["n"]} == {601}
    assert {*pointing["source"]} == {scoring.MODEL, *CONTROLS}


def test_the_command_asks_the_model_that_points_best_on_real_radiographs():
    table = runs.committed("pretrained_nih_mini.csv").query("source == 'model'")
    pointing = table.query("protocol == 'pointing' and finding == 'micro'").set_index("model")
    assert pointing["value"].idxmax() == DEFAULT


def test_the_page_says_rightly_that_the_order_differs():
    table = runs.committed("pretrained_nih_mini.csv").query("source == 'model'")
    real = table.query("protocol == 'pointing' and finding == 'micro'").set_index("model")["value"]
    opened = {name: weights.open_pretrained(name).about["numbers"] for name in weights.SHIPPED}
    drawn = {name: of["model"]["pointing"]["value"] for name, of in opened.items()}
    assert sorted(drawn, key=drawn.get) != sorted(drawn, key=real.get)


def test_shipped_models_are_scored_beside_their_controls(split):
    dataset = split.test
    generator = np.random.default_rng(0)
    scores = generator.random((len(dataset), 14))
    perfect = {
        "map_ids": dataset.image_ids,
        "maps": np.stack([dataset.read_masks(str(name)) for name in dataset.image_ids]),
        "frame": SIDE,
    }
    answers = {"made": Predictions.from_arrays(dataset.image_ids, scores, **perfect)}
    table = scoring.score(answers, dataset, SIDE, replicates=10)
    macro = table.query("protocol == 'pointing' and finding == 'macro'").set_index("source")
    assert 0.99 < macro["value"]["model"] <= 1  # a mask's rim may lie just outside its box
    assert macro["value"]["random"] < 0.5 < macro["value"]["grid_ceiling"]
    expected = evaluate(answers["made"], dataset, replicates=10)
    assert macro["value"]["location_prior"] == pytest.approx(
        expected["controls"]["location_prior"]["pointing"]["macro"]["value"]
    )
    auroc = table.query("protocol == 'auroc' and finding == 'macro'")["value"].item()
    assert auroc == pytest.approx(expected["classification"]["auroc"]["mean"]["value"])


def test_importing_the_package_stays_light():
    code = (
        "import time; start = time.perf_counter(); import cxrlib, sys\n"
        "print(time.perf_counter() - start, {'torch', 'numpy', 'safetensors'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.split(maxsplit=1)
    assert float(seconds) < 0.3 and heavy == "set()\n"


def test_scores_are_those_of_the_run(run, shipped, split):
    stored = np.load(run / "predictions.npz")["scores"]
    ours = predict(weights.read_weights(shipped).model, split.test, batch_size=8).scores
    assert np.abs(stored - ours).max() < 1e-2
