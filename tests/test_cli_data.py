import importlib
import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib import cli, datasets
from cxrlib.datasets import folder, summary

TABLE = "image,patient,split,Mass,Nodule\n" + "".join(
    f"{part}{index}.png,{part}{index // 2},{part},{index % 2},{'' if index else 0}\n"
    for part in ("train", "val", "test")
    for index in range(4)
)
BOXES = "image,finding,x0,y0,x1,y1\ntest1.png,Mass,10,10,20,30\n"


@pytest.fixture
def data_dir(tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    (place / "labels.csv").write_text(TABLE)
    (place / "boxes.csv").write_text(BOXES)
    for name in [row.split(",")[0] for row in TABLE.splitlines()[1:]]:
        Image.fromarray(np.full((40, 40), 99, np.uint8)).save(place / name)
    return place


def test_data_prints_the_counts_and_writes_table_and_sheet(data_dir, tmp_path, capsys):
    sheet, csv = tmp_path / "out" / "sheet.png", tmp_path / "out" / "counts.csv"
    options = ["--image-size", "32", "--sheet", str(sheet), "--csv", str(csv)]
    assert cli.main(["data", "folder", "--data-dir", str(data_dir), *options]) == 0
    split = folder.load(data_dir, 32)
    out = capsys.readouterr().out
    assert out == summary.text(split) + "\n"
    assert "\ntest:  4 images of 2 patients\n" in out
    counts = summary.counts(split)
    pd.testing.assert_frame_equal(pd.read_csv(csv, dtype=counts.dtypes.to_dict()), counts)
    with Image.open(sheet) as image:
        assert (image.format, image.width) == ("PNG", 1600)
    assert sorted(path.name for path in sheet.parent.iterdir()) == ["counts.csv", "sheet.png"]


def test_data_draws_and_writes_nothing_unless_asked(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {*tmp_path.rglob("*")}
    assert cli.main(["data", "folder", "--data-dir", str(data_dir), "--image-size", "32"]) == 0
    assert {*tmp_path.rglob("*")} == before


def test_data_of_the_phantom_with_options_and_seed(capsys):
    small = ["-p", "n_train", "12", "-p", "n_val", "12", "-p", "n_test", "12"]
    for seed in ("0", "1"):
        assert cli.main(["data", "phantom", "--image-size", "64", "--seed", seed, *small]) == 0
    one, other = capsys.readouterr().out.split("phantom, images of 64 px\n")[1:]
    assert "Digital phantom, not patients" in one
    assert one != other
    views = [line.split() for line in one.splitlines() if line[:3] in ("PA ", "AP ")]
    assert sum(int(count) for _, *counts in views for count in counts) == 36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nhi"], "no dataset 'nhi'; did you mean 'nih'? Valid: phantom, nih, chexpert, vindr, "),
        (["nih"], "'nih' needs data_dir, its folder, e.g. cxrlib data nih --data-dir /data/nih"),
        (["phantom", "--data-dir", "x"], "data_dir 'x' has no use with the phantom"),
        (["folder", "--data-dir", "nowhere"], "nowhere does not exist; expected a folder with"),
        (["phantom", "--sheet", "a.pdf"], "a.pdf does not end in .png; give such a name"),
        (["phantom", "--csv", "a"], "a does not end in .csv; give such a name"),
        (["phantom", "--seed", "-1"], "seed is -1; give 0 or more"),
        (["phantom", "--image-size", "63"], "image_size = 63; the phantom has 64 to 1024"),
        (
            ["nih", "--data-dir", "x", "-p", "folt", "1"],
            "dataset 'nih' has no option 'folt'; did you mean 'fold'? Valid: val_fraction, limit_",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(arguments, message, capsys):
    assert cli.main(["data", *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("name", datasets.LOADERS)
def test_every_dataset_has_a_loader_of_its_folder_size_and_seed(name):
    takes = inspect.signature(importlib.import_module(datasets.LOADERS[name]).load).parameters
    assert [*takes][:2] == (
        ["image_size", "n_train"] if name == "phantom" else ["data_dir", "image_size"]
    )
    assert takes["seed"].default == 0


def test_the_command_line_is_quick_to_import():
    code = (
        "import sys, cxrlib.cli, cxrlib.datasets.nih, cxrlib.datasets.sheet; "
        "print({'lightning', 'torchvision', 'seaborn', 'sklearn', 'papermill'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_help_needs_nothing_heavy():
    code = (
        "import contextlib, sys\n"
        "from cxrlib import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        "print({'torch', 'numpy', 'pandas', 'scipy', 'cv2'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, heavy = done.stdout.splitlines()
    assert heavy == "set()"
    assert "score" in " ".join(shown)


def test_data_of_real_images(shared, capsys, tmp_path):
    sheet = tmp_path / "sheet.png"
    arguments = ["nih", "--data-dir", str(shared / "nih-mini"), "--image-size", "64"]
    assert cli.main(["data", *arguments, "--sheet", str(sheet)]) == 0
    rows = {
        line.split()[0]: line.split()[1:]
        for line in capsys.readouterr().out.splitlines()[7:]
        if line
    }
    assert rows["Cardiomegaly"][2:6] == ["155", "0", "86", "86"]
    assert sum(int(row[4]) for row in [*rows.values()][1:15]) == 601
    assert sum(int(count) for view in ("PA", "AP") for count in rows[view]) == 2_060
    with Image.open(sheet) as image:
        assert image.size == (1600, 72 + 15 * 318 + 12)
