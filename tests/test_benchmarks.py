"""The benchmarks: their arithmetic, their one command, and what is committed of them.

Nothing here measures how fast anything is.
"""

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from cxrlib import figures_studies, runs

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = {path.stem for path in FOLDER.glob("*.py")} - {"all", "measure"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Imports a benchmark, which finds those beside it."""
    monkeypatch.syspath_prepend(FOLDER)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_a_ratio_is_of_the_shortest_rounds_and_lies_within_its_range(script):
    measure = script("measure")
    assert doctest.testmod(measure).failed == 0
    spent = pd.DataFrame({"ours": [3.0, 1.0, 2.0], "other": [2.0, 4.0, 1.0]})
    row = measure.ratio(spent, "ours", "other")
    assert row["value"] == 1.0 and row["rounds"] == 3
    assert (row["low"], row["median"], row["high"]) == (0.25, 1.5, 2.0)


def test_works_take_turns_and_the_first_rounds_do_not_count(script):
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    ticks = iter(range(100))

    def clock(work):
        work()
        return next(ticks)

    spent = script("measure").rounds(works, 2, warm=1, clock=clock)
    assert calls == list("ababab")
    assert spent["a"].tolist() == [2, 4] and spent["b"].tolist() == [3, 5]


def test_a_benchmark_replaces_its_own_ratios_only(script, tmp_path):
    measure = script("measure")
    spent = pd.DataFrame({"ours": [1.0], "other": [2.0]})
    for name, times in (("b.py", 1), ("a.py", 1), ("b.py", 3)):
        rows = [measure.ratio(spent * times, "ours", "other")] * times
        table = pd.DataFrame({"machine": ["a GPU"]})
        measure.write(name, table, rows, threads=1, packages=["torch"], folder=tmp_path)
    assert pd.read_csv(tmp_path / "ratios.csv")["benchmark"].tolist() == ["a", "b", "b", "b"]
    kept = pd.read_csv(tmp_path / "b.csv").iloc[0]
    assert (
        kept["machine"] == "a GPU"
        and f"torch {torch.__version__.split('+')[0]}" in kept["versions"]
    )


def test_a_benchmark_that_fails_is_reported_and_the_others_stand(script, tmp_path, capsys):
    (tmp_path / "bad.py").write_text("raise ValueError('no such disk')")
    (tmp_path / "good.py").write_text("import sys; open(sys.argv[1], 'w').write('measured')")
    place = tmp_path / "out"
    failed = script("all").run(["bad", "good"], {"good": [str(place)]}, tmp_path)
    said = capsys.readouterr().out
    assert failed == ["bad"] and place.read_text() == "measured"
    assert "1 of 2, bad ... failed after" in said and "ValueError: no such disk" in said
    assert "2 of 2, good ..." in said


def test_the_command_knows_every_benchmark_and_refuses_others(script, capsys):
    assert set(script("all").NAMES) == NAMES
    with pytest.raises(SystemExit):
        script("all").main(["--only", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


SMALL = {
    "LSE-LBA": {"width": 8, "levels": 1, "growth": 4, "layers": 1},
    "AM and KP, third step": {"encoder": "resnet18", "width": 16, "steps": 1},
    "HAM": {"encoder": "resnet18", "width": 16},
    "PYLON": {"encoder": "resnet18", "width": 16, "pa_depth": 1},
    "CLARiTy": {"width": 32, "depth": 1, "heads": 2, "patch": 8},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_every_method_learns_and_is_counted(script, name):
    step = script("training_step")
    method = step.METHODS[name]._replace(size=64, rounds=2)
    torch.manual_seed(0)
    model = step.create_model(method.model, **SMALL[name])
    before = [weights.clone() for weights in model.parameters() if weights.requires_grad]
    once = step.step_of(model, step.draw(method, 2, torch.device("cpu")), step.MODES[0])
    assert step.flops(once) > 0
    after = [weights for weights in model.parameters() if weights.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_switch_of_the_gpu_is_turned_on_this_device(script):
    """The same function that a GPU runs; a compiler that needs no other program stands in."""
    step = script("training_step")
    modes = [mode._replace(compiler=mode.compiler and "aot_eager") for mode in step.MODES]
    assert {mode.dtype for mode in modes} == {torch.float32, torch.bfloat16}
    assert {mode.channels_last for mode in modes} == {True, False}
    assert {mode.compiler for mode in modes} == {None, "aot_eager"}
    method = step.METHODS["LSE-LBA"]._replace(arguments=SMALL["LSE-LBA"], size=32, rounds=1)
    cpu = torch.device("cpu")
    roofs = dict.fromkeys((mode.dtype for mode in modes), 1e9)
    measured = step.measure("LSE-LBA", method, modes, cpu, 2, roofs)
    table = measured.table
    assert len(table) == 2 * len(modes) and (table["seconds"] > 0).all()
    assert table["images_per_second"].to_numpy() == pytest.approx(2 / table["seconds"])
    share = table["operations"] / table["seconds"] / 1e9
    assert table["share_of_roofline"].to_numpy() == pytest.approx(share)
    of = table.groupby("is_method")["operations"].unique()
    assert of[True].item() > of[False].item() > 0  # the method does more than its backbone
    names = [(row["ours"], row["other"]) for row in measured.ratios]
    assert names[0] == ("LSE-LBA", "backbone of LSE-LBA")
    assert {other for _, other in names[1:]} == {"LSE-LBA"}
    assert len(set(names)) == len(modes)


def test_the_roofline_of_a_product_counts_its_operations(script, monkeypatch):
    step = script("training_step")
    spent = pd.DataFrame({"product": [2.0, 4.0]})
    monkeypatch.setattr(step, "rounds", lambda works, count, clock: spent)
    assert step.roofline(torch.float32, torch.device("cpu")) == 2048**3


@pytest.fixture
def ratios() -> pd.DataFrame:
    return runs.committed("ratios.csv", "benchmarks")


def test_every_benchmark_is_committed_with_machine_and_versions(ratios):
    assert set(ratios["benchmark"]) == NAMES
    for name in NAMES:
        table = runs.committed(f"{name}.csv", "benchmarks")
        assert table[["machine", "versions"]].notna().all().all(), name
    assert ratios[["machine", "versions", "date"]].notna().all().all()
    ranged = ratios.dropna(subset=["low", "high"])
    assert (ranged["low"] <= ranged["value"] * 1.00001).all()
    assert (ranged["value"] <= ranged["high"] * 1.00001).all()


def test_starting_meets_its_bars():
    start = runs.committed("start.csv", "benchmarks").set_index("program")
    assert start.loc["import cxrlib, after torch", "seconds"] < 0.3
    assert start.loc["cxrlib --help", "whole"] < 1
    assert not start.loc["cxrlib --help", "has_torch"]
    assert start.loc["import torch", "has_torch"]  # the column says something


def test_the_page_on_speed_says_what_its_tables_say(ratios):
    page = (FOLDER.parent / "notebooks" / "speed.py").read_text()
    for name in NAMES:
        assert f'"{name}": "' in page
    value = ratios.set_index(["benchmark", "ours"])["value"]
    for name in ("auroc_speed", "protocols_speed"):  # "ahead"
        assert (value[name] < 1).all()
    assert value["loading"].filter(like="cached").max() < 0.5
    assert value["predict_latency"].min() > 10  # "nearly everything"
    bare = ratios[ratios["other"].str.startswith("backbone")]
    assert bare["ours"].str.split(" (", regex=False).str[0].nunique() == len(SMALL) + 1
    assert bare["value"].min() > 0.9 and bare["value"].median() > 1  # "does more"
    steps = runs.committed("training_step.csv", "benchmarks").query("device == 'cpu' and is_method")
    assert steps.loc[steps["share_of_roofline"].idxmin(), "method"] == "LSE-LBA"
    assert value["pooling_speed", "LSE-LBA, bounded, both passes"] > 1


def test_costs_are_drawn_under_their_questions(ratios):
    drawn = ratios[ratios["benchmark"].isin(["start", "pooling_speed"])]
    figure = figures_studies.costs(drawn.rename(columns={"benchmark": "question"}))
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    ours = drawn.set_index("benchmark")["ours"]
    assert names == ["pooling_speed", *ours["pooling_speed"], "start", *ours["start"]]
    assert axis.get_xscale() == "log" and "1" in axis.get_xlabel()
