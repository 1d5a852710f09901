import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from torch import nn

from cxrlib import cli, harvest, readings, runs, weights
from cxrlib.datasets.folder import sample as sample_of
from cxrlib.findings import FINDINGS
from cxrlib.models.base import Output
from cxrlib.readings import Reading, folder
from cxrlib.readings.pictures import picture
from cxrlib.weights import Described, open_pretrained

SIZE = 32
SHAPES = {"square.png": (40, 40), "portrait.jpg": (80, 40), "landscape.png": (30, 60)}
ABOUT = {
    "method": "brightness",
    "image_size": SIZE,
    "dataset": "phantom",
    "images": {"train": 9},
    "seed": 0,
    "run": "abc",
    "commit": "def",
}


class Brightness(nn.Module):
    """The image is the map of every finding; the score of finding c is c / 14, of any image."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        logits = torch.logit(torch.arange(14) / 14).clamp(-9)
        return Output(logits.expand(len(images), -1), images.expand(-1, 14, -1, -1))


@pytest.fixture
def described(monkeypatch) -> Described:
    """A model that says what its images look like, in place of the library's own."""
    made = Described(Brightness().eval(), ABOUT)
    monkeypatch.setattr(weights, "open_pretrained", lambda name: made)
    return made


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Black images of three shapes; each has one bright square, of 8 px, from 10 px, 20 px on."""
    paths = []
    for name, shape in SHAPES.items():
        grey = np.zeros(shape, np.uint8)
        grey[20:28, 10:18] = 250
        paths.append(tmp_path / name)
        Image.fromarray(grey).save(paths[-1], quality=100)
    return paths


def predict(*arguments: object) -> int:
    return cli.main(["predict", *map(str, arguments)])


def document(out: Path) -> dict:
    return json.loads((out / "predictions.json").read_text())


def test_every_image_gets_a_picture_and_its_numbers(described, files, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(*files, "--out", out) == 0
    made = document(out)
    assert [image["file"] for image in made["images"]] == [*map(str, files)]
    for image, (name, (height, width)) in zip(made["images"], SHAPES.items(), strict=True):
        assert (image["height"], image["width"]) == (height, width)
        assert image["shown"] == [*FINDINGS[:-4:-1]]
        mass = image["findings"]["Mass"]
        assert mass["score"] == pytest.approx(4 / 14, abs=1e-4)
        x, y = mass["peak"]
        assert 10 <= x <= 18 and 20 <= y <= 28, name
        with Image.open(out / image["picture"]) as drawn:
            assert drawn.format == "PNG" and drawn.width > 4 * 384 * width / max(height, width)
    assert weights.NOTICE in made["notice"] and "drawings of chests" in made["notice"]
    assert made["model"] == ABOUT and made["failed"] == []
    assert made["notice"] in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*SHAPES, "out"])
    assert sorted(p.name for p in out.iterdir()) == ["pictures", "predictions.json", "report.html"]


def test_boxes_lie_around_what_is_bright_in_the_original(described, files, tmp_path):
    predict(*files, "--out", tmp_path / "out", "--findings", "Mass", "infiltrate")
    for image in document(tmp_path / "out")["images"]:
        assert image["shown"] == ["Mass", "Infiltration"]
        ((box, score),) = (found.values() for found in image["findings"]["Mass"]["boxes"])
        slack = max(image["height"], image["width"]) / SIZE + 0.1  # a pixel of the model's frame
        np.testing.assert_allclose(box, [10, 20, 18, 28], atol=slack)
        assert 0 < score < 4 / 14
        assert "boxes" not in image["findings"]["Edema"]


def test_the_numbers_are_those_of_the_folder_dataset(tmp_path):
    """The same files through the reader that training has, asked by the same model."""
    rng = np.random.default_rng(0)
    for name, (height, width) in SHAPES.items():
        grey = rng.integers(0, 255, (height, width), np.uint8)
        Image.fromarray(grey).resize((4 * width, 4 * height)).save(tmp_path / name)
    model, about = open_pretrained("pylon")
    assert (
        predict(
            "--model", "pylon", *(tmp_path / name for name in SHAPES), "--out", tmp_path / "out"
        )
        == 0
    )
    for image in document(tmp_path / "out")["images"]:
        sample = sample_of(image["file"], about["image_size"])
        with torch.inference_mode():
            logits, maps = model(sample.image[None])
        scores = [image["findings"][name]["score"] for name in FINDINGS]
        np.testing.assert_allclose(scores, logits[0].sigmoid(), atol=2e-4)
        highest = [image["findings"][name]["map_maximum"] for name in FINDINGS]
        assert (np.array(highest) <= maps[0].amax(dim=(-2, -1)).numpy() + 1e-4).all()


def test_a_dicom_is_read_as_a_viewer_shows_it(described, tmp_path):
    path = get_testdata_file("CT_small.dcm", download=False)
    assert predict(path, "--out", tmp_path / "out") == 0
    (image,) = document(tmp_path / "out")["images"]
    grey = readings.read_grey(path)
    assert (image["height"], image["width"]) == grey.shape


def test_folders_are_searched_and_batches_are_full(described, tmp_path, monkeypatch):
    monkeypatch.setattr(readings, "BATCH", 4)
    place = tmp_path / "in" / "deep"
    place.mkdir(parents=True)
    for index in range(5):
        Image.new("L", (40, 40)).save(place.parent / f"{index}.png")
    Image.new("L", (40, 40)).save(place / "1.jpeg")
    (place / "notes.txt").write_text("no image")
    (place / ".hidden.png").write_text("no image either")
    assert predict(tmp_path / "in", place / "1.jpeg", "--out", tmp_path / "out") == 0
    made = document(tmp_path / "out")["images"]
    assert len(made) == 6 and described.model.sizes == [4, 2]
    names = [image["picture"] for image in made]
    assert len({*names}) == 6 and {"pictures/1.png", "pictures/1-2.png"} <= {*names}
    assert all((tmp_path / "out" / name).is_file() for name in names)


def test_one_bad_file_does_not_lose_the_others(described, files, tmp_path, capsys):
    cut, text = tmp_path / "cut.png", tmp_path / "text.png"
    cut.write_bytes(files[0].read_bytes()[:-20])
    text.write_text("no image")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    damaged = tmp_path / "damaged.png"  # its header and its end are sound
    Image.fromarray(noise).save(damaged)
    raw = bytearray(damaged.read_bytes())
    raw[1000:1100] = bytes(100)
    damaged.write_bytes(raw)
    assert predict(cut, files[0], damaged, text, *files[1:], "--out", tmp_path / "out") == 1
    made = document(tmp_path / "out")
    assert [image["file"] for image in made["images"]] == [*map(str, files)]
    assert {entry["file"] for entry in made["failed"]} == {*map(str, (cut, text, damaged))}
    assert {file for file in map(str, (cut, text, damaged))} <= {
        *re.findall(
            r"<th scope=\"row\">([^<]*)</th>", (tmp_path / "out" / "report.html").read_text()
        )
    }
    error = capsys.readouterr().err
    assert f"{cut} is truncated; left out" in error
    assert "3 of 6 files could not be read, the others were:" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "nowhere.png does not exist; give files or folders of images"),
        (["empty"], "empty has no image; expected files .png, .jpg, .jpeg, .dcm, .dicom"),
        (["bad.png"], "bad.png is neither PNG, JPEG nor DICOM; left out\ncxrlib: none of 1 files"),
        (["square.png", "--model", "pilon"], "no pretrained model 'pilon'; did you mean 'pylon'?"),
        (["square.png", "--run", "empty"], "empty holds no finished run"),
        (["square.png", "--findings", "mas"], "'mas' is not a finding; did you mean 'Mass'?"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    arguments, message, files, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_text("no image")
    before = {*tmp_path.rglob("*")}
    assert predict(*arguments, "--out", "out") == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""
    assert {*tmp_path.rglob("*")} == before


def test_a_folder_with_something_in_it_is_kept(described, files, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert predict(files[0], "--out", out) == 0  # an empty one is free to use
    kept = {path: path.read_bytes() for path in out.rglob("*.*")}
    assert predict(files[1], "--out", out) == 1
    assert "out exists and is not an empty folder; give a new one, --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == kept


def test_a_failure_half_way_leaves_nothing(described, files, tmp_path):
    def answers():
        yield from readings.read(described, files[:1])
        raise RuntimeError("out of memory")

    before = {*tmp_path.rglob("*")}
    with pytest.raises(RuntimeError, match="out of memory"):
        folder.write(tmp_path / "out", described, answers())
    assert {*tmp_path.rglob("*")} == before


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_escapes_names_and_loads_nothing(described, files, tmp_path):
    evil = tmp_path / '<img src=x onerror="alert(1)">&.png'
    files[0].rename(evil)
    assert predict(evil, "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    tags = Tags(page).tags
    images = [attrs for tag, attrs in tags if tag == "img"]
    assert len(images) == 1 and images[0]["src"].startswith("data:image/jpeg;base64,")
    assert str(evil) in images[0]["alt"] and "maps of Hernia" in images[0]["alt"]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    assert folder.notice(described).replace("'", "&#x27;") in page
    assert "prefers-color-scheme: dark" in page
    (name,) = (image["picture"] for image in document(tmp_path / "out")["images"])
    assert re.fullmatch(r"pictures/[\w-]+\.png", name)
    assert (tmp_path / "out" / name).is_file()


def reading(maps: np.ndarray, height: int, width: int) -> Reading:
    grey = np.full((readings.SIDE,) * 2, 100, np.uint8)
    scores = np.linspace(0, 0.5, 14, dtype=np.float32)
    return Reading(Path("a.png"), height, width, grey, scores, maps.astype(np.float32))


def test_a_maximum_on_the_padding_is_none_of_the_image():
    maps = np.zeros((14, 8, 8))
    maps[4, 0, 3] = 1.0  # above the landscape
    maps[4, 5, 6] = 0.6
    of = reading(maps, 40, 80)
    assert of.peak(4) == (65.0, 35.0)
    assert of.peak(5) is None
    assert [found["box"] for found in of.boxes(4)] == [[60.0, 30.0, 70.0, 40.0]]


def test_boxes_are_those_that_harvest_mines():
    rng = np.random.default_rng(0)
    of = reading(rng.random((14, 8, 8)) ** 6, 80, 80)
    found, highest = harvest.regions(of.maps[13], 0.5)
    assert len(found) > 1
    best_first = np.argsort(-highest)
    boxes = of.boxes(13)
    np.testing.assert_allclose([b["score"] for b in boxes], highest[best_first] / 2, atol=1e-4)
    np.testing.assert_array_equal([b["box"] for b in boxes], found[best_first] * 10)


def test_the_picture_is_coloured_where_the_map_is_high_and_bears_the_notice():
    maps = np.zeros((14, 8, 8))
    maps[13, 2, 2] = 1.0
    of = reading(maps, 64, 64)
    drawn, blank = (np.asarray(picture(of, [13], text)) for text in ("Not for patients.", " "))
    colourful = np.ptp(drawn, axis=2) > 40
    across = np.flatnonzero(colourful.any(axis=0))
    assert across.min() > readings.SIDE  # not in the plain panel
    assert abs(np.median(across) - (readings.SIDE + 8 + readings.SIDE * 2.5 / 8)) < 12
    assert drawn.shape[0] > blank.shape[0] or (drawn != blank).any()
    assert drawn[-19:].max() > 150


def test_the_help_names_every_model(capsys):
    with pytest.raises(SystemExit):
        predict("--help")
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in weights.SHIPPED)
    assert "not a medical device" in told


def test_the_measured_latency_meets_its_bar():
    table = runs.committed("predict_latency.csv", "benchmarks").set_index("quantity")["value"]
    images = table[[name for name in table.index if "image" in name]]
    assert len(images) == 6 and images.max() < 1  # the page says: a fraction of a second
