"""The notebooks as their users run them: papermill from the command line."""

import json
import subprocess
import sysconfig
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PAPERMILL = Path(sysconfig.get_path("scripts")) / "papermill"


def papermill(
    folder: Path, *parameters: object, notebook: str = "lse_lba"
) -> subprocess.CompletedProcess[str]:
    words = [word for name, value in parameters for word in ("-p", name, str(value))]
    command = [
        str(PAPERMILL),
        str(ROOT / "notebooks" / f"{notebook}.ipynb"),
        str(folder / "out.ipynb"),
        "--no-progress-bar",
        *words,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


def outputs(folder: Path) -> list[str]:
    """Of all cells of the executed notebook."""
    cells = nbformat.read(folder / "out.ipynb", 4).cells
    return [str(out) for cell in cells for out in cell.get("outputs", [])]


def figures(folder: Path) -> int:
    return sum("image/png" in out for out in outputs(folder))


def metrics(folder: Path) -> dict:
    (path,) = folder.rglob("metrics.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_smoke_twice_gives_equal_numbers(tmp_path):
    documents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = papermill(tmp_path / name, ("preset", "smoke"), ("r0", 5))
        assert done.returncode == 0, done.stderr
        documents.append(metrics(tmp_path / name))
    seconds = [document.pop("seconds") for document in documents]
    assert documents[0] == documents[1] and seconds[0] != seconds[1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("r00", 5, "no parameter 'r00'; did you mean 'r0'?"),
        ("epochs", 1.5, "epochs = 1.5 is of type float; expected int or None"),
    ],
)
def test_a_wrong_parameter_stops_the_first_cell(tmp_path, name, value, message):
    done = papermill(tmp_path, (name, value))
    assert done.returncode != 0 and message in done.stderr
    cells = nbformat.read(tmp_path / "out.ipynb", 4).cells
    ran = [cell for cell in cells if cell.cell_type == "code" and cell.execution_count]
    assert len(ran) <= 3  # parameters, injected parameters, the check


def test_quick_meets_its_bars(tmp_path):
    """The README's command, from an empty cache."""
    start = time.monotonic()
    done = papermill(tmp_path, ("r0", 5))
    print(f"quick took {time.monotonic() - start:.0f} s")
    assert done.returncode == 0, done.stderr
    document = metrics(tmp_path)
    scores, controls = document["localization"], document["controls"]
    assert document["classification"]["auroc"]["mean"]["value"] >= 0.80
    pointing = scores["pointing"]["macro"]["value"]
    assert pointing >= controls["location_prior"]["pointing"]["macro"]["value"] + 0.15
    dice = scores["continuous_dice"]["macro"]["value"]
    for control in ("random", "location_prior"):
        assert dice > controls[control]["continuous_dice"]["macro"]["value"]


def test_smoke_on_real_radiographs_scores_every_box(tmp_path, shared):
    done = papermill(
        tmp_path, ("dataset", "nih"), ("data_dir", shared / "nih-mini"), ("preset", "smoke")
    )
    assert done.returncode == 0, done.stderr
    document = metrics(tmp_path)
    pointing = document["localization"]["pointing"]
    assert pointing["micro"]["n"] == 601
    assert pointing["per_finding"]["Hernia"] == {"value": None, "low": None, "high": None, "n": 0}
    assert document["classification"]["auroc"]["mean"]["n"] == 814


def test_the_phantom_is_drawn_and_measured(tmp_path):
    done = papermill(tmp_path, ("preset", "smoke"), notebook="phantom")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) >= 9


def test_the_phantom_is_compared_with_real_radiographs(tmp_path, shared):
    places = ("data_dir", shared / "nih-mini"), ("run_dir", tmp_path / "tables")
    done = papermill(tmp_path, ("preset", "smoke"), *places, notebook="phantom")
    assert done.returncode == 0, done.stderr
    real = pd.read_csv(tmp_path / "tables" / "real_statistics.csv")
    committed = pd.read_csv(ROOT / "results" / "real_statistics.csv")
    same = ["kind", "at", "value", "n", "size"]
    pd.testing.assert_frame_equal(real[same], committed[same], rtol=1e-3)
    apart = pd.read_csv(tmp_path / "tables" / "phantom_tell_apart.csv")
    assert (apart["n"] > 2060).all() and apart["value"].between(0.5, 1).all()


def test_tables_that_nothing_would_fill_are_refused(tmp_path):
    done = papermill(tmp_path, ("run_dir", tmp_path / "tables"), notebook="phantom")
    assert done.returncode != 0 and "none were given: -p data_dir" in done.stderr


def test_the_data_are_looked_at(tmp_path):
    done = papermill(tmp_path, ("preset", "smoke"), notebook="data")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == 9


def test_the_data_are_looked_at_with_real_radiographs(tmp_path, shared):
    place = ("data_dir", shared / "nih-mini")
    done = papermill(tmp_path, ("preset", "smoke"), place, notebook="data")
    assert done.returncode == 0, done.stderr
    assert "official lists" in (tmp_path / "out.ipynb").read_text()


def test_every_protocol_is_compared(tmp_path):
    done = papermill(tmp_path, ("preset", "smoke"), notebook="metrics")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == 6


def test_a_variant_of_pylon_is_trained_and_scored_on_real_radiographs(tmp_path, shared):
    places = ("dataset", "nih"), ("data_dir", shared / "nih-mini")
    arms = ("variant", "fpn_group"), ("against", "None")
    done = papermill(tmp_path, *places, *arms, ("preset", "smoke"), notebook="pylon")
    assert done.returncode == 0, done.stderr
    document = metrics(tmp_path)
    assert document["localization"]["pointing"]["micro"]["n"] == 601
    assert document["classification"]["auroc"]["mean"]["n"] == 814


def test_a_finished_comparison_is_shown_again_and_not_trained_again(tmp_path):
    run = tmp_path / "run"

    def trained():
        return {path: path.stat().st_mtime_ns for path in run.rglob("*.ckpt")}

    times = []
    for _ in range(2):
        done = papermill(tmp_path, ("preset", "smoke"), ("run_dir", run), notebook="pylon")
        assert done.returncode == 0, done.stderr
        times.append(trained())
    assert sorted(path.parent.name for path in times[0]) == ["against"] * 2 + ["run"] * 2
    assert times[0] == times[1]


def test_attention_is_mined_from_the_base_network_of_a_finished_run(tmp_path):
    base, mined = tmp_path / "base", tmp_path / "mined"
    for choices in ((("variant", "msa"), ("run_dir", base)), (("base", base), ("run_dir", mined))):
        done = papermill(tmp_path, ("preset", "smoke"), *choices, notebook="attention_mining")
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in mined.glob("step_*")) == ["step_1", "step_2"]
    of_base, of_mined = (pd.read_csv(folder / "steps.csv") for folder in (base, mined))
    assert set(of_mined["step"]) == {0, 1, 2}
    pd.testing.assert_frame_equal(of_mined.query("step == 0"), of_base)
    assert figures(tmp_path) == 7
    assert sum("data:image/gif;base64," in out for out in outputs(tmp_path)) == 1


def test_ham_learns_from_the_boxes_of_some_real_radiographs(tmp_path, shared):
    places = ("dataset", "nih"), ("data_dir", shared / "nih-mini")
    done = papermill(tmp_path, *places, ("box_share", 0.8), ("preset", "smoke"), notebook="ham")
    assert done.returncode == 0, done.stderr
    document = metrics(tmp_path)
    assert 0 < document["localization"]["ham_tiou@0.1"]["micro"]["n"] < 601 / 4
    assert 0 < document["attention"]["outside_abnormality"]["micro"]["value"] < 1
    (history,) = tmp_path.rglob("history.json")
    assert all(row["loss_box"] > 0 for row in json.loads(history.read_text()))
    (environment,) = tmp_path.rglob("environment.json")
    assert "fold 0 of 5 of the patients with boxes is tested on" in environment.read_text()


def test_clarity_is_taught_and_segmented_on_real_radiographs(tmp_path, shared):
    places = ("dataset", "nih"), ("data_dir", shared / "nih-mini")
    done = papermill(tmp_path, *places, ("preset", "smoke"), notebook="clarity")
    assert done.returncode == 0, done.stderr
    document = metrics(tmp_path)
    assert document["localization"]["pointing"]["micro"]["n"] == 601
    assert document["localization"]["clarity_iou@0.5"]["micro"]["n"] < 601  # one half is tuned on
    assert document["anatomy"] == {}  # nobody has outlined the organs of ChestX-ray14
    answers = next(tmp_path.rglob("teacher/predictions.npz"))
    history = json.loads((answers.parents[1] / "history.json").read_text())
    assert {"loss_distillation", "loss_foreground"} <= set(history[0])


def test_the_shipped_models_are_shown_side_by_side(tmp_path):
    done = papermill(tmp_path, ("preset", "smoke"), notebook="pretrained")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == 4
    assert [*tmp_path.iterdir()] == [tmp_path / "out.ipynb"]  # nothing is trained


def test_poolings_are_compared_on_bags(tmp_path):
    done = papermill(tmp_path, ("preset", "smoke"), notebook="pooling")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == 4
