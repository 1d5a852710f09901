"""A phantom before the patients, and what it is worth."""

import pandas as pd
import pytest
from test_phantom_transfer import release, small

from cxrlib import datasets
from cxrlib.phantom import transfer, tuning

__all__ = ["release", "small"]  # fixtures


@pytest.fixture
def study(release, small, tmp_path, monkeypatch):
    """Runs with and without a phantom, one epoch each."""
    monkeypatch.setattr(transfer, "SETTINGS", {**transfer.SETTINGS, "epochs": 1})
    monkeypatch.setattr(tuning, "TUNING", {**tuning.TUNING, "epochs": 1})
    for phantom in (0, 24):
        folder = tmp_path / "runs" / str(phantom)
        words = ["--phantom", str(phantom), "--data-dir", str(release), "--accelerator", "cpu"]
        tuning.main(["run", *words, "--run-dir", str(folder)])
    return tmp_path / "runs"


def test_runs_are_compared_with_scratch_and_prior(study, release, tmp_path):
    untuned = study / "24" / tuning.STAGES["phantom only"]
    assert untuned.exists() and not (study / "0" / untuned.name).exists()
    table = tmp_path / "table.csv"
    tuning.main(["collect", str(study), str(table), "--data-dir", str(release)])
    rows = pd.read_csv(table, keep_default_na=False).set_index(
        ["phantom_images", "stage", "against", "metric", "mean"]
    )["value"]
    for metric in ("pointing", "continuous_dice"):
        ours, scratch = (rows[n, "tuned", "", metric, "micro"] for n in (24, 0))
        assert rows[24, "tuned", "scratch", metric, "micro"] == pytest.approx(
            ours - scratch, abs=1e-5
        )
        prior = rows[0, "location prior", "", metric, "micro"]
        against = rows[24, "tuned", "location prior", metric, "micro"]
        assert against == pytest.approx(ours - prior, abs=1e-5)
    ceiling, noise = (
        rows[0, name, "", "pointing", "micro"] for name in ("grid ceiling", "random map")
    )
    assert ceiling > noise
    assert (0, "tuned", "scratch", "pointing", "micro") not in rows.index


def test_without_a_run_from_scratch_nothing_is_compared(release, tmp_path):
    test = datasets.load("nih", release, 64).test
    with pytest.raises(ValueError, match="no finished run with phantom_images = 0"):
        tuning.compared(tmp_path, test)
