"""Sweeps are run for real, with a notebook that trains nothing, in a small copy of the project."""

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
GRIDS = ROOT / "workflow" / "grids"
GRID = {
    "notebook": "tiny",
    "axes": {"r0": [1, 2], "seed": [0]},
    "run": "r0-{r0}-seed-{seed}",
    "tables": {"small": "cxrlib collect {runs} {table}"},
}
PARAMETERS = "r0: float = 5.0\nseed: int = 0\npreset: str = 'quick'\nrun_dir: str = None\n"
TINY = """
import json
from pathlib import Path
from types import SimpleNamespace

from cxrlib import provenance, runs
from cxrlib.files import digest
from cxrlib.findings import FINDINGS

if r0 == 13:
    raise RuntimeError("thirteen was not to be")
key = digest(json.dumps([r0, seed, provenance.source_hash()]))
environment = {"key": key, "decides": {}, "git_commit": None}
run = runs.Run(Path(run_dir).resolve(), {"r0": r0, "seed": seed, "preset": preset}, environment)
auroc = {"mean": {"value": r0 / 100, "low": None, "high": None, "n": 1}, "per_finding": {}}
predictions = SimpleNamespace(write=lambda file: file.write(b"maps"))
run.finish({"classification": {"auroc": auroc}, "controls": {}}, {}, predictions)
"""


class Project:
    """A clone with one grid, its notebook, and a library of its own to change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("cxrlib", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
        shutil.rmtree(folder / "workflow" / "grids")
        (folder / "workflow" / "grids").mkdir()
        (folder / "notebooks").mkdir()
        cells = [nbformat.v4.new_code_cell(code) for code in (PARAMETERS, TINY)]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(notebook, folder / "notebooks" / "tiny.ipynb")
        self.write_grid([1, 2])

    def write_grid(self, r0: list[int]) -> None:
        grid = GRID | {"axes": GRID["axes"] | {"r0": r0}}
        (self.folder / "workflow" / "grids" / "tiny.yaml").write_text(yaml.safe_dump(grid))

    def start(self, *options: str) -> subprocess.Popen:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        library = os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", *options],
            cwd=self.folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": library},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def make(self, *options: str, status: int = 0) -> str:
        process = self.start("tiny", *options)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == status, said
        return said

    def planned(self) -> dict[str, int]:
        """How many jobs of each rule Snakemake would do now."""
        said = self.make("--dry-run")
        return {rule: int(n) for rule, n in re.findall(r"^(run|collect) +(\d+)$", said, re.M)}

    def finished(self) -> dict[str, int]:
        """When each finished run was written (Snakemake itself touches the metrics)."""
        place = self.folder / "runs" / "study" / "tiny"
        return {
            path.parent.name: (path.parent / "predictions.npz").stat().st_mtime_ns
            for path in place.glob("*/metrics.json")
        }

    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "results" / "small.csv")


def key_of(folder: Path) -> str:
    return json.loads((folder / "environment.json").read_text())["key"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A sweep of three runs was killed when one was finished."""
    project = Project(tmp_path_factory.mktemp("clone"))
    project.write_grid([1, 2, 13])
    process = project.start("tiny", "--cores", "1")
    for _ in range(6000):
        if project.finished():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return project


def test_a_killed_sweep_goes_on_and_a_failed_run_leaves_the_others_standing(project):
    kept = project.finished()
    assert len(kept) < 3
    said = project.make(status=1)
    log = "runs/logs/tiny/r0-13-seed-0.log"
    assert log in said and "thirteen was not to be" in (project.folder / log).read_text()
    after = project.finished()
    assert set(after) == {"r0-1-seed-0", "r0-2-seed-0"}
    assert {run: after[run] for run in kept} == kept  # not repeated
    assert not (project.folder / "results" / "small.csv").exists()  # none with a hole


def test_a_grid_becomes_runs_and_a_table(project):
    project.write_grid([1, 2])
    project.make()
    table = project.table()
    assert dict(zip(table["r0"], table["value"], strict=True)) == {1.0: 0.01, 2.0: 0.02}
    assert (project.folder / "runs/study/tiny/r0-1-seed-0/tiny.ipynb").exists()
    assert project.planned() == {}


def test_only_what_depends_on_a_change_is_run_again(project):
    files, ham = (project.folder / "cxrlib" / name for name in ("files.py", "models/ham.py"))
    stored = files.read_text()
    files.write_text(stored + "\n# a remark\n")
    ham.write_text(ham.read_text() + "\nUNRELATED = 1\n")
    assert project.planned() == {}
    files.write_text(stored + "\nCHANGED = 1\n")
    assert project.planned() == {"run": 2, "collect": 1}
    files.write_text(stored)
    project.write_grid([1, 3])
    assert project.planned() == {"run": 1, "collect": 1}


def test_a_superseded_run_is_put_aside_once_the_new_one_is_there(project):
    place = project.folder / "runs/study/tiny"
    old = key_of(place / "r0-1-seed-0")
    files = project.folder / "cxrlib" / "files.py"
    files.write_text(files.read_text() + "\nCHANGED = 1\n")
    project.write_grid([1])
    project.make()
    aside = place / f"r0-1-seed-0.superseded-{old}"
    assert key_of(aside) == old != key_of(place / "r0-1-seed-0")
    assert (aside / "metrics.json").exists()
    assert project.table().query("r0 == 1")["run"].tolist() == ["r0-1-seed-0"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> str:
    """What Snakemake would do where neither runs nor tables are there."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile"]
    place = tmp_path_factory.mktemp("empty")
    command += ["--directory", place, "--cores", "2", "--dry-run", "--printshellcmds"]
    command += ["all", "shortcuts", "sim_to_real", "book"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_table_of_the_results_has_its_target_and_runs(plan):
    rows = (ROOT / "results" / "README.md").read_text().splitlines()
    made = [row.split(" | ")[0] for row in rows if "`snakemake " in row.split(" | ")[-1]]
    tables = {name for cell in made for name in re.findall(r"`(\w+)\.csv`", cell)}
    assert len(tables) >= 9
    outputs = " ".join(re.findall(r"output: (.+)", plan))
    assert tables <= set(re.findall(r"results/(\w+)\.csv", outputs))
    studies = {path.stem: yaml.safe_load(path.read_text()) for path in GRIDS.glob("*.yaml")}
    for row in rows:
        for study in re.findall(r"`snakemake --cores \d (\w+)`", row):
            assert study in {*studies, "comparison", "shortcuts", "sim_to_real"}
    planned = re.findall(r"output: (runs/study/\w+/\S+)/metrics.json", plan)
    sizes = [math.prod(map(len, grid["axes"].values())) for grid in studies.values()]
    assert len(planned) == len(set(planned)) == sum(sizes) + 2 * 4 * 3


def test_a_grid_becomes_the_commands_that_made_the_results(plan):
    commands = re.findall(r"Shell command: (.+)", plan)
    place = "runs/study/attention_mining"
    for end in (
        f"attention_mining.ipynb {place}/am-1 -p variant am -p seed 1 -p base {place}/msa-1",
        f"attention_mining.ipynb {place}/cam-1 -p variant cam -p seed 1",
        "pylon.ipynb runs/study/pylon/fpn-4 -p against None -p variant fpn -p seed 4",
        "ham.ipynb runs/study/ham/0.1-2 -p ordinal 0.1 -p seed 2",
    ):
        assert any(f"notebooks/{end}) >" in command for command in commands), end
    for start in (
        "cxrlib collect runs/study/lse_lba/r0-5 results/lse_lba_protocols.csv --findings macro",
        f"python -m cxrlib.models.mining_steps {place} results/attention_mining_steps.csv am am_kp",
        "python -m cxrlib.studies runs/study/ham results/ham_history.csv --by ordinal seed",
        "cxrlib collect runs/study/r0_sensitivity results/r0_sensitivity.csv --metrics auroc",
        "jupyter-book build . -n -W --keep-going >",
    ):
        assert any(command.startswith(start) for command in commands), start


def test_the_page_shows_a_grid_as_it_is():
    page = (ROOT / "book" / "scaling.md").read_text()
    shown = re.search(r"```yaml\n(.*?)```", page, re.S)[1]
    assert yaml.safe_load(shown) == yaml.safe_load((GRIDS / "r0_sensitivity.yaml").read_text())


def test_what_a_run_depends_on():
    """Its own paper, the phantom and the scores; not other papers, charts or commands."""
    spec = importlib.util.spec_from_file_location("sources", ROOT / "workflow" / "sources.py")
    sources = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sources)
    for name, own in (("lse_lba", "lse_lba"), ("ham", "ham_losses"), ("pylon", "variants")):
        notebook = ROOT / "notebooks" / f"{name}.ipynb"
        found = {
            str(path.relative_to(ROOT)) for path in sources.files_of(notebook, ROOT, "phantom")
        }
        needed = f"models/{own}.py", "pooling.py", "phantom/lesions.py", "metrics/bootstrap.py"
        assert {f"cxrlib/{file}" for file in (*needed, "phantom/official_boxes.csv")} <= found
        others = {"models/clarity.py", "figures.py", "cli.py", "datasets/vindr.py"}
        assert not {f"cxrlib/{file}" for file in others} & found
        assert ("cxrlib/models/ham.py" in found) == (name == "ham")
    assert "cxrlib/datasets/vindr.py" in {
        str(path.relative_to(ROOT)) for path in sources.files_of(notebook, ROOT, "vindr")
    }
