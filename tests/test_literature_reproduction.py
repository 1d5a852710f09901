"""Published numbers beside ours."""

import json

import numpy as np
import pytest

from cxrlib import literature
from cxrlib.findings import FINDINGS
from cxrlib.literature.reproduction import differences, main, reproduction, setups, side, verdict
from cxrlib.runs import committed

THEIRS = {"training_images": 86524, "test_images": 25596, "image_size": 512, "start": "ImageNet"}


def write_run(folder, auroc, **params):
    folder.mkdir(parents=True)
    N = {"value": auroc, "low": auroc - 0.01, "high": auroc + 0.01, "n": 25596}
    metrics = {"classification": {"auroc": {"mean": N, "per_finding": {}}}, "localization": {}}
    params = {"dataset": "nih", "image_size": 512, "preset": "paper", **params}
    environment = {"images": {"train": 77872, "test": 25596}, "git_commit": "abc", "decides": {}}
    documents = {
        "params": params,
        "environment": environment,
        "metrics": {**metrics, "controls": {}},
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    (folder / "lse_lba.ipynb").touch()


@pytest.mark.parametrize(
    ("auroc", "where", "found"),
    [
        (0.74, "worse", "not reproduced"),
        (0.76, "not told apart", "reproduced"),
        (0.79, "better", "reproduced"),
    ],
)
def test_a_run_of_the_same_experiment_is_judged(tmp_path, auroc, where, found):
    write_run(tmp_path / "runs" / "full", auroc, r0=5.0)
    main([str(tmp_path / "runs"), str(tmp_path / "table.csv")])
    table = reproduction(tmp_path / "runs").set_index("paper")
    row = table.loc["yao2018"]
    assert (row["ours_is"], row["verdict"], row["differs"]) == (where, found, "")
    assert (row["published"], row["ours"], row["n"]) == (0.761, auroc, 25596)
    assert set(table.drop(index="yao2018")["verdict"]) == {"not run"}


def test_another_sharpness_or_dataset_does_not_stand_beside_it(tmp_path):
    write_run(tmp_path / "r0", 0.8, r0=1.0)
    write_run(tmp_path / "phantom", 0.8, r0=5.0, dataset="phantom")
    assert set(reproduction(tmp_path)["verdict"]) == {"not run"}


def test_two_candidates_are_refused(tmp_path):
    for name in ("one", "two"):
        write_run(tmp_path / name, 0.8, r0=5.0)
    with pytest.raises(ValueError, match="could both be our LSE-LBA"):
        reproduction(tmp_path)


def test_what_differs_is_named():
    assert differences(THEIRS, THEIRS) == ""
    assert differences({**THEIRS, "training_images": 77872}, THEIRS) == ""
    ours = {"training_images": 1105, "test_images": 814, "image_size": 96, "start": "random"}
    said = differences(ours, THEIRS)
    assert all(word in said for word in ("1,105 of 86,524", "814 of 25,596", "96 px", "ImageNet"))
    assert "weights" not in differences(ours, {**THEIRS, "start": np.nan})  # not known


def test_less_may_be_better():
    assert side(1.0, 3.0, 4.0) == "better" and side(1.0, 3.0, 4.0, more_is_better=False) == "worse"
    assert verdict("better", "") == "reproduced" and verdict("better", "96 px") == "not comparable"


def test_every_published_number_is_in_the_committed_table():
    table = committed("reproduction.csv")
    for paper in setups()["paper"].unique():
        ours, theirs = table[table["paper"] == paper], literature.published(paper)
        assert sorted(ours["published"]) == sorted(theirs["value"])
    held = literature.published_papers()
    assert set(held) == set(table["paper"])


def test_the_committed_table_agrees_with_those_of_the_chapters():
    table = committed("reproduction.csv").set_index(["method", "metric", "finding"])["ours"]
    for name, method in (("lse_lba", "LSE-LBA"), ("clarity", "CLARiTy-S-16-512")):
        real = committed(f"{name}_nih_mini.csv").query("metric == 'auroc' and finding == 'mean'")
        assert table[method, "AUROC", "Mean"].item() == pytest.approx(
            real["value"].item(), abs=1e-5
        )


def test_the_page_says_what_the_table_holds():
    """Its verdicts are prose; these are its claims."""
    table = committed("reproduction.csv")
    assert set(table["verdict"]) == {"not comparable", "not run"}  # "Nothing is."
    assert (table["ours_is"] != "better").all()
    prior = table[table["metric"] == "T(IoBB) Acc"].eval("location_prior >= published")
    false = table[table["metric"] == "T(IoBB) AFP"].eval("location_prior > published")
    assert prior.mean() > 0.5 and false.all()
    assert {"cai2018", "ouyang2021"}.isdisjoint(table["paper"])
    means = table[~table["finding"].isin(FINDINGS)]
    assert (means["ours"].dropna() < means["published"][means["ours"].notna()]).all()
