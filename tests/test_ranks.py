"""Methods on the same images, ranked."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from cxrlib.ranks import ARMS, find, main, rank, scores

TWO = {"LSE-LBA": ("lse_lba", "r0", 5), "PYLON": ("pylon", "variant", "pylon")}


def write_run(folder, notebook, seed, split="s", **params):
    folder.mkdir(parents=True)
    N = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    tables = {"pointing": {"macro": N, "per_finding": {"Mass": N}}}
    params = {"dataset": "phantom", "preset": "quick", "image_size": 64, "seed": seed} | params
    decides = {"split_hash": split, "data_hash": "d", "source": "x", "device": "cpu"}
    documents = {
        "params": params,
        "environment": {"decides": decides, "git_commit": "abc"},
        "metrics": {
            "localization": tables,
            "controls": {"random": tables},
            "seconds": {"train": 7},
        },
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    (folder / f"{notebook}.ipynb").touch()
    weights = {"w": torch.zeros(3, 4), "bn.running_mean": torch.zeros(5)}
    torch.save({"state_dict": weights}, folder / "best.ckpt")


def write_study(root, seeds=(0, 1), **last):
    for seed in seeds:
        write_run(root / f"l{seed}", "lse_lba", seed, r0=5.0)
        write_run(root / f"p{seed}", "pylon", seed, variant="pylon", **last)


def test_runs_are_told_apart_and_common_seeds_are_kept(tmp_path):
    write_study(tmp_path)
    write_run(tmp_path / "r0", "lse_lba", 0, r0=1.0)
    write_run(tmp_path / "real", "lse_lba", 0, r0=5.0, dataset="nih")
    write_run(tmp_path / "more", "pylon", 2, variant="pylon")
    arms = find([tmp_path], TWO)
    assert arms.seeds == (0, 1) and arms.folders["LSE-LBA"][0] == tmp_path / "l0"
    table = scores(arms)
    assert table.groupby(["method", "seed"]).ngroups == 4
    cost = table[table["part"] == "cost"].set_index(["method", "seed", "metric"])["value"]
    assert cost["PYLON", 1, "weights"] == 12 and cost["PYLON", 1, "train_seconds"] == 7
    assert set(table["finding"].dropna()) == {"macro"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: write_run(root / "twice", "pylon", 0, variant="pylon"), "are the same run"),
        (
            lambda root: [(root / f"p{s}/metrics.json").unlink() for s in (0, 1)],
            "no finished run of PYLON",
        ),
        (
            lambda root: [(root / f"{r}/metrics.json").unlink() for r in ("p0", "l1")],
            "no seed is common",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, change, message):
    write_study(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        find([tmp_path], TWO)


def test_other_test_patients_are_refused(tmp_path):
    write_study(tmp_path, split="t")
    with pytest.raises(ValueError, match="seed 0 were split differently"):
        find([tmp_path], TWO)


def test_the_command_names_what_is_lacking(tmp_path):
    write_study(tmp_path)
    with pytest.raises(ValueError, match="no finished run of AM"):
        main([str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--runs", str(tmp_path)])
    assert set(TWO) < set(ARMS)


def test_draws_are_the_same_for_all_arms():
    """What moves all arms alike moves no rank, however wide it makes their intervals."""
    noise = np.random.default_rng(0).normal(0, 1, (1, 3, 201))
    drawn = noise + np.array([0.03, 0.02, 0.01])[:, None, None]
    table = rank(drawn)
    assert (table["high"] - table["low"] > 0.5).all()
    assert table[["rank", "rank_low", "rank_high"]].values.tolist() == [[k] * 3 for k in (1, 2, 3)]
    assert table["first"].tolist() == [1, 0, 0]
    assert table["value"].tolist() == pytest.approx(drawn[:, :, 0].mean(axis=1))


def test_seeds_are_drawn_too():
    """An arm that leads on one seed of three is behind in some draws."""
    drawn = np.zeros((2, 3, 101))
    drawn[0, 0], drawn[1, 1:] = 1.0, 0.4
    table = rank(drawn)
    assert table["rank"].tolist() == [1, 2] and table["rank_high"].tolist() == [2, 2]
    share = sum(stats.binom.pmf(k, 3, 1 / 3) for k in range(1, 4))  # k times the good seed
    assert table["first"][0] == pytest.approx(share, abs=0.15)


def test_equals_share_a_rank():
    assert rank(np.ones((3, 2, 11)))["rank"].tolist() == [2, 2, 2]
