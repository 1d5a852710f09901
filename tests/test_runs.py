import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cxrlib import cli, execution, metrics, runs
from cxrlib.datasets.base import Split, Truth
from cxrlib.models.lse_lba import LSELBAParameters
from cxrlib.phantom import dataset as phantom
from cxrlib.predictions import Predictions

ROOT = Path(__file__).parents[1]
WEIGHTS = shutil.ignore_patterns("*.safetensors", "__pycache__")
PARAMETERS = LSELBAParameters(
    preset="smoke",
    dataset="phantom",
    data_dir=None,
    run_dir=None,
    seed=0,
    image_size=64,
    epochs=1,
    batch_size=2,
    learning_rate=None,
    accelerator="cpu",
    num_workers=0,
    r0=5.0,
)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, n_train=16, n_val=8, n_test=24)


def start(split: Split, folder, r0: float = 5.0, **options) -> runs.Run:
    parameters = replace(PARAMETERS, run_dir=str(folder), r0=r0)
    return runs.start("lse_lba", parameters, {"r0": r0, "run_dir": str(folder)}, split, **options)


def finish(run: runs.Run, split: Split):
    truth = Truth(split.test)
    rng = np.random.default_rng(0)
    wanted = np.unique(truth.image)
    predictions = Predictions(
        image_ids=split.test.image_ids,
        scores=rng.random((len(split.test), 14), np.float32),
        map_ids=split.test.image_ids[wanted],
        maps=rng.random((len(wanted), 14, 16, 16), np.float32).astype(np.float16),
        frame=64,
    )
    results = metrics.evaluate(predictions, split.test, replicates=50)
    return run.finish(results, {"train": 1.0, "evaluate": 0.5}, predictions)


def test_a_folder_exists_only_when_the_run_is_complete(split, tmp_path):
    run = start(split, tmp_path / "run")
    assert not (tmp_path / "run").exists() and not run.finished
    assert finish(run, split) == tmp_path / "run"
    stored = {path.name for path in (tmp_path / "run").iterdir()}
    assert stored == {"params.json", "environment.json", "metrics.json", "predictions.npz"}
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert document["schema"] == 1 and document["seconds"]["total"] == 1.5
    scored = {"classification", "localization", "controls", "strata", "protocols"}
    assert set(document) == scored | {"schema", "seconds"}
    controls = {"random", "centre_prior", "location_prior", "grid_ceiling"}
    assert set(document["controls"]) == controls
    number = document["classification"]["auroc"]["mean"]
    assert set(number) == {"value", "low", "high", "n"} and number["n"] == len(split.test)


def test_the_environment_says_all_that_a_result_depends_on(split, tmp_path):
    environment = start(split, tmp_path / "run").environment
    assert environment["decides"]["split_hash"] == split.split_hash
    assert environment["decides"]["data_hash"] == split.data_hash
    assert environment["images"]["test"] == len(split.test)
    assert {"torch", "lightning", "numpy", "cxrlib"} <= set(environment["versions"])


def test_a_finished_run_is_found_again_and_left_alone(split, tmp_path):
    finish(start(split, tmp_path / "run"), split)
    before = (tmp_path / "run" / "metrics.json").stat().st_mtime_ns
    again = start(split, tmp_path / "run")
    assert again.finished and again.workspace == tmp_path / "run"
    finish(again, split)
    assert (tmp_path / "run" / "metrics.json").stat().st_mtime_ns == before


def test_another_runs_folder_is_never_touched(split, tmp_path):
    finish(start(split, tmp_path / "run"), split)
    with pytest.raises(FileExistsError, match=r"run holds a run with other parameters.*-p run_dir"):
        start(split, tmp_path / "run", r0=6)
    start(split, tmp_path / "half")
    with pytest.raises(FileExistsError, match=r"half.partial holds a run with other"):
        start(split, tmp_path / "half", r0=6)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(FileExistsError, match=r"thesis holds other things than a run"):
        start(split, tmp_path / "thesis")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        start(split, tmp_path / "file")


def test_an_empty_folder_is_free_to_use(split, tmp_path):
    (tmp_path / "run").mkdir()
    run = start(split, tmp_path / "run")
    assert not run.finished
    finish(run, split)
    assert (tmp_path / "run" / "metrics.json").exists()


def test_the_default_place_is_named_after_the_key(split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = (
        runs.start("lse_lba", PARAMETERS, {"r0": r0, "run_dir": None}, split) for r0 in (5, 6)
    )
    assert one.folder.parent == tmp_path / "runs" / "lse_lba"
    assert one.folder != other.folder
    assert one.folder.name == one.environment["key"]


def test_no_page_shows_an_old_number(split, tmp_path):
    """A run is made anew when the parameters, the data or a line of the library are others."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "force"  # so each page asks for its run
    environment = start(split, tmp_path / "one").environment
    other_data = phantom.load(64, n_train=16, n_val=8, n_test=23)
    keys = {
        environment["key"],
        start(split, tmp_path / "two", r0=6).environment["key"],
        start(other_data, tmp_path / "three").environment["key"],
    }
    assert len(keys) == 3
    library = shutil.copytree(ROOT / "cxrlib", tmp_path / "cxrlib", ignore=WEIGHTS)
    with (library / "pooling.py").open("a") as file:
        file.write("# changed\n")
    code = "from cxrlib.provenance import source_hash; print(source_hash())"
    command, place = [sys.executable, "-c", code], {"PYTHONPATH": str(tmp_path)}
    changed = subprocess.check_output(command, env=os.environ | place, cwd=tmp_path, text=True)
    source = environment["decides"]["source"]
    assert len(source) > 8 and changed.strip() != source


def test_two_processes_do_not_share_a_workspace(split, tmp_path):
    run = start(split, tmp_path / "run")
    code = (
        "import filelock, sys\n"
        "try: filelock.FileLock(sys.argv[1]).acquire(timeout=0)\n"
        "except filelock.Timeout: print('taken')"
    )
    command = [sys.executable, "-c", code, str(run.workspace / ".lock")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "taken\n"


def test_a_place_that_cannot_be_written_is_refused(split, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/run.partial.*choose another"):
        start(split, tmp_path / "file" / "run")


def test_a_nearly_full_disk_is_refused_before_any_work(split, tmp_path):
    with pytest.raises(OSError, match="MB free, this run needs"):
        start(split, tmp_path / "run", room=10**18)


def test_a_disk_that_fills_up_leaves_no_half_run(split, tmp_path):
    """A real limit on file sizes, as from a full disk, hits the predictions."""
    resource = pytest.importorskip("resource")
    run = start(split, tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(
            OSError, match=r"predictions.npz .*disk .*is full.*run the same command"
        ):
            finish(run, split)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert not (tmp_path / "run").exists()
    assert not any("tmp" in name for name in os.listdir(run.workspace))
    assert finish(run, split) == tmp_path / "run"


def test_runs_collect_into_a_tidy_table(split, tmp_path):
    for r0 in (5, 6):
        finish(start(split, tmp_path / f"r{r0}", r0=r0), split)
    assert cli.main(["collect", str(tmp_path), str(tmp_path / "all.csv")]) == 0
    table = runs.collect(tmp_path)
    assert set(table["r0"]) == {5, 6}
    assert set(table["part"]) == {
        "classification",
        "localization",
        "random",
        "centre_prior",
        "location_prior",
        "grid_ceiling",
    }
    row = table.query("run == 'r5' and metric == 'auroc' and finding == 'mean'")
    stored = json.loads((tmp_path / "r5" / "metrics.json").read_text())
    assert row["value"].item() == stored["classification"]["auroc"]["mean"]["value"]


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    notebook = os.path.join(os.path.dirname(__file__), "..", "notebooks", "lse_lba.ipynb")
    assert cli.main(["run", notebook, str(tmp_path / "run"), "-p", "r00", "5"]) == 1
    assert "has no parameter 'r00'; did you mean 'r0'?" in capsys.readouterr().err


def test_collecting_some_metrics_and_findings(split, tmp_path, capsys):
    finish(start(split, tmp_path / "run"), split)
    command = ["collect", str(tmp_path), str(tmp_path / "some.csv")]
    assert cli.main([*command, "--metrics", "auroc", "pxap", "--findings", "macro", "mean"]) == 0
    some = pd.read_csv(tmp_path / "some.csv")
    assert len(some) == 1 + 5  # one mean AUROC; pxap of the model and of four controls
    assert set(some["metric"]) == {"auroc", "pxap"} and set(some["finding"]) == {"macro", "mean"}
    assert cli.main([*command, "--metrics", "auroch"]) == 1
    assert "no metric 'auroch' in these runs; did you mean 'auroc'?" in capsys.readouterr().err


def renewed(split: Split, folder, r0: float) -> runs.Run:
    """A run that may put aside another one in its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(execution.RENEW, "1")
        return start(split, folder, r0=r0)


def test_a_renewed_run_puts_the_old_one_aside_once_it_is_complete(split, tmp_path):
    first = finish(start(split, tmp_path / "run"), split)
    key = json.loads((first / "environment.json").read_text())["key"]
    run = renewed(split, first, r0=6)
    assert not run.finished and (first / "metrics.json").exists()  # until there is a new one
    finish(run, split)
    assert json.loads((first / "params.json").read_text())["r0"] == 6
    aside = tmp_path / f"run{runs.ASIDE}{key}"
    assert json.loads((aside / "params.json").read_text())["r0"] == 5
    assert set(runs.collect(tmp_path)["r0"]) == {6}
    back = renewed(split, first, r0=5.0)  # what is wanted again was kept
    assert back.finished and json.loads((first / "params.json").read_text())["r0"] == 5
    assert not aside.exists() and set(runs.collect(tmp_path)["r0"]) == {5}


def test_a_renewed_run_clears_what_another_left_unfinished_and_nothing_else(split, tmp_path):
    unfinished = start(split, tmp_path / "run")
    (unfinished.workspace / "last.ckpt").write_text("of r0 = 5")
    unfinished._lock.release()
    run = renewed(split, tmp_path / "run", r0=6)
    assert run.workspace == unfinished.workspace
    assert not (run.workspace / "last.ckpt").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(FileExistsError, match=r"thesis holds other things than a run"):
        renewed(split, tmp_path / "thesis", r0=6)
