import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib import cli, datasets
from cxrlib.datasets import folder, nih
from cxrlib.findings import FINDINGS
from cxrlib.metrics import score
from cxrlib.predictions import Predictions

FINDINGS_HERE = ["Effusion", "Mass"]
NAMES = {part: [f"{part}{k:02}" for k in range(12)] for part in ("train", "val", "test")}
TABLE = "image,patient,split,Effusion,Mass\n" + "".join(
    f"{name}.png,{name[:-2]}{k // 2},{part},{k % 2},{k % 3 // 2}\n"
    for part, names in NAMES.items()
    for k, name in enumerate(names)
)
BOXES = "image,finding,x0,y0,x1,y1\n" + "".join(
    f"{name}.png,{FINDINGS_HERE[k % 2]},{5 + k},10,{20 + k},30\n"
    for k, name in enumerate(NAMES["test"])
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    (place / "labels.csv").write_text(TABLE)
    (place / "boxes.csv").write_text(BOXES)
    for k, name in enumerate(name for names in NAMES.values() for name in names):
        Image.fromarray(np.full((40, 40), 3 * k, np.uint8)).save(place / f"{name}.png")
    return place


def make(seed=0, ids=NAMES["test"], mapped=None, findings=FINDINGS_HERE, frame=32, grid=8):
    rng = np.random.default_rng(seed)
    mapped = ids if mapped is None else mapped
    located = {
        "map_ids": mapped,
        "maps": rng.random((len(mapped), len(findings), grid, grid)),
        "frame": frame,
    }
    scores = rng.random((len(ids), len(findings)))
    return Predictions.from_arrays(
        ids, scores, findings=findings, **(located if len(mapped) else {})
    )


@pytest.fixture
def write(tmp_path):
    """Writes predictions as a file of tmp_path and returns its name."""

    def of(predictions, name="model.npz"):
        with open(tmp_path / name, "wb") as file:
            predictions.write(file)
        return str(tmp_path / name)

    return of


@pytest.fixture
def run(data_dir):
    """Scores on the folder dataset with few replicates."""
    place = ["--dataset", "folder", "--data-dir", str(data_dir), "--replicates", "20"]
    return lambda *arguments: cli.main(["score", *map(str, arguments), *place])


def test_score_prints_the_table_and_writes_every_output(run, write, tmp_path, capsys, data_dir):
    out = tmp_path / "new" / "folder"
    outputs = [
        part for kind in ("csv", "json", "html") for part in (f"--{kind}", out / f"a.{kind}")
    ]
    assert run(write(make()), *outputs, "--seed", 4) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "model.npz (" in lines[0] and lines[0].endswith(") on folder, test")
    assert "frame 32 px, 20 replicates, seed 4" in lines  # that of the predictions
    tree = json.loads((out / "a.json").read_text())
    split = folder.load(data_dir, 64, seed=4, cache=False)
    scored = score(make(), split.test, 32, replicates=20, seed=4)
    assert tree["localization"] == scored.to_json()["localization"]
    assert tree["provenance"]["split_hash"] == split.split_hash
    table = pd.read_csv(out / "a.csv")
    keys = (table["source"] == "model") & (table["protocol"] == "pointing")
    whole = table[keys & table["stratum"].isna()].set_index("finding")
    summary = scored.scores["model"].summary("pointing")
    assert whole.loc["macro", "value"] == pytest.approx(summary["macro"].value, rel=1e-5)
    assert whole.loc["Mass", "n"] == summary["per_finding"]["Mass"].n == 6
    assert (out / "a.html").read_text().count("<img") == 6
    assert sorted(path.name for path in out.iterdir()) == ["a.csv", "a.html", "a.json"]


def test_score_against_another_model(run, write, tmp_path, capsys):
    first, second = write(make()), write(make(seed=1), "other.npz")
    assert run(first, "--against", second, "--csv", tmp_path / "a.csv") == 0
    assert "model.npz minus other.npz" in capsys.readouterr().out
    sources = {*pd.read_csv(tmp_path / "a.csv")["source"]}
    assert {"model", "model - other", "model - location_prior"} < sources


def test_score_without_maps_or_boxes_is_of_labels_only(run, write, capsys):
    assert run(write(make(mapped=[]))) == 0
    assert "only classification" in capsys.readouterr().out
    assert run(write(make(ids=NAMES["val"])), "--part", "val") == 0
    out = capsys.readouterr().out
    assert "only classification" in out and "on folder, val" in out


def test_score_writes_nothing_unless_asked(run, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(make())
    before = {*tmp_path.rglob("*")}
    assert run(path) == 0
    assert {*tmp_path.rglob("*")} == before


def test_frame_and_image_size_follow_the_predictions_unless_given(run, write, tmp_path):
    path, json_path = write(make(frame=48)), tmp_path / "a.json"
    for arguments, expected in (
        ([], (48, 64)),  # no dataset has images of 48 px or less
        (["--frame", 40, "--image-size", 32], (40, 32)),
    ):
        assert run(path, "--json", json_path, *arguments) == 0
        of = json.loads(json_path.read_text())["provenance"]
        assert (of["frame"], of["image_size"]) == expected


def write_release(place):
    """A release of ChestX-ray14 with a test image in the frame of the official boxes."""
    names = [f"{patient:08}_000.png" for patient in range(1, 5)]
    rows = [f"{name},Mass,{patient},PA" for patient, name in enumerate(names, start=1)]
    header = "Image Index,Finding Labels,Patient ID,View Position"
    (place / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *rows]))
    (place / "train_val_list.txt").write_text("\n".join(names[:3]))
    (place / "test_list.txt").write_text(names[3])
    box = f"Image Index,Finding Label,Bbox x,Bbox y,Bbox w,Bbox h\n{names[3]},Mass,1,1,512,512\n"
    (place / "BBox_List_2017.csv").write_text(box)
    (place / "images").mkdir()
    for name in names:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(place / "images" / name)


def test_nih_is_scored_in_the_frame_of_its_boxes_and_nothing_is_cached(
    write, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "nih"
    place.mkdir()
    write_release(place)
    path = write(make(ids=["00000004_000"], findings=["Mass"]))
    options = ["--dataset", "nih", "--data-dir", str(place), "--replicates", "0"]
    given = ["-p", "val_fraction", "0.4"]
    assert cli.main(["score", path, *options, *given]) == 0
    out = capsys.readouterr().out
    assert f"frame {nih.FRAME} px, 0 replicates, seed 0" in out
    assert "val is 40% of" in out
    assert not (tmp_path / "cache").exists()


def test_score_of_the_phantom(write, capsys):
    small = {"n_train": 12, "n_val": 12, "n_test": 12}
    test = datasets.load("phantom", None, 64, **small).test
    path = write(make(ids=test.image_ids, findings=FINDINGS))
    options = [word for name, n in small.items() for word in ("-p", name, str(n))]
    assert cli.main(["score", path, "--dataset", "phantom", *options, "--replicates", "5"]) == 0
    assert f"{len(test)} images of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "a.txt"], "a.txt does not end in .csv; give such a name"),
        (["--json", "a"], "a does not end in .json; give such a name"),
        (["--html", "a.pdf"], "a.pdf does not end in .html; give such a name"),
        (["--csv", "file/a.csv"], "; choose another place with --csv"),
        (["--html", "taken.html"], "--html taken.html is a folder; give the name of a file"),
        (["--replicates", "-1"], "replicates is -1; give 0 or more"),
        (["--seed", "-1"], "seed is -1; give 0 or more"),
        (["--frame", "7"], "a frame of 7 px is smaller than maps of 8 x 8 cells; give the side of"),
        (["--image-size", "8"], "image_size is 8; give 32 to 1024 pixels"),
        (["--against", "labels.npz"], "the second has no maps and the other has; write the maps"),
        (["--against", "absent.npz"], "absent.npz"),
        (["--against", "file"], "file: not an .npz archive"),
        (["--part", "train"], "none of the 12 images of 'folder' is in the predictions"),
        (["--dataset", "nhi"], "no dataset 'nhi'; did you mean 'nih'?"),
        (["--dataset", "phantom"], "has no use with the phantom"),
        (["-p", "folt", "1"], "dataset 'folder' has no option 'folt'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    arguments, message, data_dir, write, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write(make())
    write(make(mapped=[]), "labels.npz")
    (tmp_path / "file").write_text("no archive")
    (tmp_path / "taken.html").mkdir()
    place = ["--dataset", "folder", "--data-dir", str(data_dir)]
    assert cli.main(["score", "model.npz", *place, *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_predictions_without_a_boxed_image_are_refused(run, write, capsys):
    assert run(write(make(mapped=NAMES["test"][:10]))) == 1
    message = "images with boxes but without a map: 2 (such as test10, test11)"
    assert message in capsys.readouterr().err


def test_numbers_are_kept_where_the_page_cannot_be_drawn(
    write, tmp_path, tmp_path_factory, data_dir, capsys
):
    damaged = tmp_path_factory.mktemp("damaged")
    for path in data_dir.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    image = damaged / "test00.png"
    whole = image.read_bytes()
    flaw = bytearray(whole)
    flaw[len(whole) // 2] ^= 0xFF  # the size stays, which is all that loading looks at
    image.write_bytes(bytes(flaw))
    options = ["--dataset", "folder", "--data-dir", str(damaged), "--replicates", "5"]
    outputs = ["--csv", str(tmp_path / "a.csv"), "--html", str(tmp_path / "a.html")]
    model = write(make(ids=NAMES["test"]))
    status = cli.main(["score", model, *options, *outputs])
    captured = capsys.readouterr()
    assert (tmp_path / "a.csv").exists()
    assert status == 1 and "test00.png" in captured.err
    assert not (tmp_path / "a.html").exists()


def test_other_commands_do_not_wait_for_the_metrics():
    code = "import sys, cxrlib.cli; print({'cxrlib.metrics', 'cv2', 'jsonschema'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_score_of_real_images(shared, write, tmp_path, capsys):
    place = shared / "nih-mini"
    test = nih.load(place, 64, cache=False).test
    boxed = np.unique(test.boxes["image_id"].to_numpy(str))
    path = write(make(ids=test.image_ids, mapped=boxed, findings=FINDINGS, frame=256))
    page, numbers = tmp_path / "a.html", tmp_path / "a.json"
    small = ["--frame", "64", "--replicates", "50", "--json", str(numbers), "--html", str(page)]
    options = ["--dataset", "nih", "--data-dir", str(place), *small]
    assert cli.main(["score", path, *options]) == 0
    out = capsys.readouterr().out
    assert "814 images of 507 patients; 601 pairs" in out
    assert max(map(len, out.splitlines())) <= 100
    found = json.loads(numbers.read_text())
    # Maps and scores of noise: as good as the random control, and no better than a coin.
    noise = found["localization"]["pointing"]["micro"]
    assert noise["low"] <= found["controls"]["random"]["pointing"]["micro"]["value"] + 0.05
    assert abs(found["classification"]["auroc"]["mean"]["value"] - 0.5) < 0.05
    assert found["localization"]["pointing"]["micro"]["n"] == 601
    assert page.read_text().count("<img") == 8 * 3
    assert page.stat().st_size < 10e6
