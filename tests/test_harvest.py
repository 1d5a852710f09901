import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

import cxrlib
from cxrlib import cli, datasets, runs
from cxrlib.checkpoints import Trained, best_checkpoint, load_model, read_checkpoint
from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split
from cxrlib.datasets.export import export
from cxrlib.datasets.images import Reader
from cxrlib.findings import FINDINGS
from cxrlib.harvest import COLUMNS, harvest, harvest_model, regions
from cxrlib.harvest_files import Harvest, in_pixels
from cxrlib.metrics.regions import region_boxes, upsample
from cxrlib.models import create_model
from cxrlib.models.base import Output
from cxrlib.models.lse_lba import LSELBAParameters
from cxrlib.models.mining_stages import fit_stages
from cxrlib.phantom import dataset as phantom
from cxrlib.predictions import Predictions
from cxrlib.training import fit

SIDE = 64
PARAMETERS = LSELBAParameters(
    preset="smoke",
    dataset="phantom",
    data_dir=None,
    run_dir=None,
    seed=3,
    image_size=SIDE,
    epochs=1,
    batch_size=4,
    learning_rate=None,
    accelerator="cpu",
    num_workers=0,
    r0=5.0,
)
TINY = {"encoder": "resnet18", "width": 16}
SHAPES = {"square": (40, 40), "portrait": (80, 40), "landscape": (30, 60)}


class Brightness(nn.Module):
    """The pixels are the map of every finding; the first pixel's own is its probability."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        maps = images.expand(-1, 14, -1, -1)
        return Output(torch.logit(images[:, 0, 0, :1].expand(-1, 14)), maps)


@pytest.fixture
def noise() -> CXRDataset:
    """Seven images of noise, of which one has no finding and one only an unknown one."""
    rng = np.random.default_rng(0)
    pixels = {f"{k}": rng.integers(1, 255, (SIDE, SIDE), np.uint8) for k in range(7)}
    labels = np.zeros((7, 14))
    labels[[0, 1, 1, 2, 3, 5], [3, 0, 13, 7, 7, 4]] = 1
    labels[6] = np.nan
    box = pd.DataFrame([["1", 0, 0.0, 0.0, 0.5, 0.5]], columns=BOX_COLUMNS)
    return CXRDataset("noise", [*pixels], [*pixels], labels, box, SIDE, pixels.__getitem__)


def finish(split: Split, params: dict, folder, train) -> None:
    """A run with this model, as a notebook makes it."""
    run = runs.start("attention_mining", PARAMETERS, params, split)
    train(run.workspace)
    found = Predictions.from_arrays(split.test.image_ids, np.zeros((len(split.test), 14)))
    results = {"classification": {}, "localization": {}, "controls": {}}
    run.finish(results, {"train": 1.0}, found).rename(folder)


@pytest.fixture(scope="module")
def split() -> Split:
    return phantom.load(SIDE, n_train=12, n_val=4, n_test=6, seed=3, prevalence=0.3)


@pytest.fixture(scope="module")
def run(split, tmp_path_factory):
    """A finished run of attention mining."""
    place = tmp_path_factory.mktemp("runs")
    params = {
        "dataset": "phantom",
        "image_size": SIDE,
        "batch_size": 4,
        "seed": 3,
        "phantom": {"n_train": 12, "n_val": 4, "n_test": 6, "prevalence": 0.3},
    }

    def train(folder):
        torch.manual_seed(0)
        model = create_model("attention_mining", steps=1, **TINY)
        fit_stages(model, split, folder, epochs=1, mining_epochs=1, batch_size=4, accelerator="cpu")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        finish(split, params, place / "run", train)
    return place / "run"


@pytest.fixture(scope="module")
def folder(split, tmp_path_factory):
    """The phantom as files, three of them made oblong."""
    place = tmp_path_factory.mktemp("data")
    export(split, place)
    (place / "boxes.csv").unlink()
    for name, (height, width) in zip(split.train.image_ids, SHAPES.values(), strict=False):
        with Image.open(place / f"{name}.png") as image:
            oblong = image.resize((width, height))
        oblong.save(place / f"{name}.png")
    return place


def test_regions_are_those_of_the_box_protocols():
    rng = np.random.default_rng(1)
    for share in (0.6, 0.7, 0.9):
        map_ = upsample(rng.random((9, 9)), 48)
        boxes, peaks = regions(map_, share)
        assert sorted(boxes.tolist()) == sorted(region_boxes(map_, [share]).tolist())
        assert len(boxes) > 2
        inside = [map_[y0:y1, x0:x1].max() for x0, y0, x1, y1 in boxes]
        assert (peaks <= inside).all() and peaks.max() == map_.max()


def test_the_threshold_itself_belongs_to_a_region():
    map_ = np.array([[0.0, 0.5, 1.0, 0.25]], np.float32)
    assert regions(map_, 0.5)[0].tolist() == [[1, 0, 3, 1]]
    assert regions(map_, 1.0)[0].tolist() == [[2, 0, 3, 1]]
    assert regions(map_, 0.25)[0].tolist() == [[1, 0, 4, 1]]


def test_a_peak_is_that_of_its_own_region_not_of_its_box():
    ring = np.full((5, 5), 6.0, np.float32)
    ring[1:4, 1:4], ring[2, 2] = 0, 9
    boxes, peaks = regions(ring, 0.5)
    found = dict(zip(map(tuple, boxes.tolist()), peaks.tolist(), strict=True))
    assert found == {(0, 0, 5, 5): 6.0, (2, 2, 3, 3): 9.0}


def test_maps_that_say_nothing_have_no_region():
    for nothing in (np.full((4, 4), 0.7, np.float32), np.full((4, 4), np.nan, np.float32)):
        boxes, peaks = regions(nothing, 0.5)
        assert boxes.shape == (0, 4) and peaks.shape == (0,)


def test_a_model_is_asked_batch_by_batch_and_says_the_same(noise):
    model = Brightness()
    streamed = harvest_model(model, noise, 0.9, batch_size=2, accelerator="cpu")
    assert model.sizes == [2, 2, 1]  # of 7 images 5 have a finding
    pixels = torch.from_numpy(np.stack([noise.read_pixels(name) for name in noise.image_ids]))
    output = model((pixels / 255)[:, None])
    scores = output.logits.sigmoid()
    made = Predictions.from_arrays(
        noise.image_ids, scores, map_ids=noise.image_ids, maps=output.maps, frame=SIDE
    )
    pd.testing.assert_frame_equal(streamed, harvest(made, noise, 0.9))
    present = np.argwhere(noise.labels == 1)
    pairs = streamed[["image_id", "finding"]].drop_duplicates().to_numpy()
    assert pairs.tolist() == [[noise.image_ids[image], finding] for image, finding in present]
    whole = harvest_model(Brightness(), noise, 0.9, batch_size=7, accelerator="cpu")
    pd.testing.assert_frame_equal(streamed, whole)


def test_the_score_is_probability_times_peak(noise):
    boxes = harvest_model(Brightness(), noise, 1.0, batch_size=4, accelerator="cpu")
    for image_id, found in boxes.groupby("image_id"):
        pixels = noise.read_pixels(image_id) / 255
        np.testing.assert_allclose(found["score"], pixels[0, 0] * pixels.max(), rtol=1e-5)
        corners = (found[["x0", "y0", "x1", "y1"]] * SIDE).to_numpy(int)
        assert all(pixels[y0:y1, x0:x1].max() == pixels.max() for x0, y0, x1, y1 in corners)


def test_only_images_with_a_map_are_harvested(noise):
    maps = np.random.default_rng(0).random((2, 14, 8, 8))
    made = Predictions.from_arrays(
        noise.image_ids, np.full((7, 14), 0.5), map_ids=["5", "1"], maps=maps, frame=SIDE
    )
    boxes = harvest(made, noise)
    assert boxes["image_id"].unique().tolist() == ["1", "5"]
    fifth = regions(upsample(made.maps[0, 4], SIDE), 0.5)[0] / SIDE
    mined = boxes.loc[boxes["image_id"] == "5", BOX_COLUMNS[2:]].to_numpy()
    np.testing.assert_array_equal(mined, fifth)


def test_a_part_without_findings_has_no_boxes(noise):
    boxes = harvest_model(Brightness(), noise.subset(np.array([4, 6])), batch_size=2)
    assert len(boxes) == 0 and [*boxes] == COLUMNS


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(noise, share):
    with pytest.raises(ValueError, match=r"share = .*; a share of a map's range, above 0 to 1"):
        harvest_model(Brightness(), noise, share, batch_size=2)


@pytest.mark.parametrize("cache", [True, False])
def test_corners_are_on_the_original_image(tmp_path, cache):
    """Bright rectangles whose corners the square's pixels hold exactly are found where they are."""
    shapes = {"square": (64, 64), "portrait": (128, 64), "landscape": (96, 192), "odd": (128, 63)}
    drawn = {
        "square": (8, 4, 20, 12),
        "portrait": (8, 20, 24, 60),
        "landscape": (30, 9, 90, 60),
        "odd": (10, 20, 30, 60),
    }
    rows = ["image,patient,split,Mass"]
    for index, (name, shape) in enumerate(shapes.items()):
        pixels = np.full(shape, 50, np.uint8)
        x0, y0, x1, y1 = drawn[name]
        pixels[y0:y1, x0:x1] = 250
        (tmp_path / "sub").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "sub" / f"{name}.png")
        rows.append(f"sub/{name}.png,{index},{('train', 'train', 'val', 'test')[index]},1")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    split = datasets.load("folder", str(tmp_path), SIDE, cache=cache)
    run = Trained(Brightness(), {"batch_size": 2}, "key")
    made = Harvest.of_run(run, split, share=0.6, folder=tmp_path, accelerator="cpu")
    assert made.boxes["image_id"].tolist() == [f"sub/{name}" for name in shapes]
    assert made.images["file"].tolist() == [f"sub/{name}.png" for name in shapes]
    assert [*zip(made.images["height"], made.images["width"], strict=True)] == [*shapes.values()]
    corners = made.boxes[["x0", "y0", "x1", "y1"]].to_numpy().tolist()
    assert corners == [list(map(float, box)) for box in drawn.values()]


def test_what_lies_on_the_padding_is_cut_off():
    boxes = pd.DataFrame(
        [
            ["tall", 4, 0.0, 0.0, 0.5, 1.0, 0.5],  # the left half: 10 px of padding, 10 of image
            ["tall", 4, 0.0, 0.0, 0.25, 1.0, 0.5],  # padding alone
            ["wide", 5, 0.0, 0.25, 1.0, 1.0, 0.5],  # from the image's upper edge through its lower
        ],
        columns=COLUMNS,
    )
    images = pd.DataFrame(
        {"image_id": ["wide", "tall"], "height": [20, 40], "width": [40, 20]},
    )
    found = in_pixels(boxes, images)
    assert found.to_numpy().tolist() == [
        ["tall", "Mass", 0, 0, 10, 40, 0.5],
        ["wide", "Nodule", 0, 0, 40, 20, 0.5],
    ]


def test_chestxray14_is_in_its_frame_and_the_phantom_in_its_size(split):
    with_frame = Reader({"a": "nih/images/a.png"}, SIDE, "mend", frame=1024)
    labels, nothing = np.ones((1, 14)), pd.DataFrame(columns=BOX_COLUMNS)
    pixels = {"a": np.arange(SIDE**2, dtype=np.uint32).reshape(SIDE, SIDE).astype(np.uint8)}
    one = CXRDataset(
        "nih",
        ["a"],
        ["a"],
        labels,
        nothing,
        SIDE,
        pixels.__getitem__,
        read_original=with_frame.original,
    )
    run = Trained(Brightness(), {"batch_size": 2}, "key")
    whole = Split(one, one.subset(np.zeros(0, int)), one.subset(np.zeros(0, int)), "hash")
    made = Harvest.of_run(run, whole, "train", folder="nih", accelerator="cpu")
    (image,) = made.to_coco()["images"]
    expected = {"id": 1, "part": "train", "file_name": "images/a.png"}
    assert image == expected | {"height": 1024, "width": 1024}
    assert made.boxes["x1"].max() == 1024
    phantom_made = Harvest.of_run(run, split, "test", accelerator="cpu")
    size = {"file_name": f"{split.test.image_ids[0]}.png", "height": SIDE, "width": SIDE}
    assert phantom_made.to_coco()["images"][0] == {"id": 1, "part": "test"} | size


def harvested(run, folder, out, *more) -> tuple[pd.DataFrame, dict]:
    outputs = ["--csv", str(out / "boxes.csv"), "--coco", str(out / "boxes.json")]
    place = ["--dataset", "folder", "--data-dir", str(folder)]
    assert cli.main(["harvest", str(run), *place, *outputs, *more]) == 0
    names = ["image_id", "run", "data_hash", "split_hash"]
    table = pd.read_csv(out / "boxes.csv", dtype=dict.fromkeys(names, str))
    return table, json.loads((out / "boxes.json").read_text())


def test_the_command_writes_a_table_and_a_document_that_pycocotools_loads(
    run, folder, split, tmp_path, capsys
):
    table, document = harvested(run, folder, tmp_path / "new")
    boxed = table["image_id"].nunique()
    images = sum(map(len, split.parts.values()))
    assert capsys.readouterr().out == f"{len(table)} boxes on {boxed} of {images} images\n"
    assert len(table) > boxed > 5
    coco = COCO(str(tmp_path / "new" / "boxes.json"))
    assert len(coco.getImgIds()) == images and len(coco.getAnnIds()) == len(table)
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == [*FINDINGS]
    assert coco.getCatIds(catNms=["Mass"]) == [5] and min(coco.getAnnIds()) == 1
    results = coco.loadRes(document["annotations"])
    evaluation = COCOeval(coco, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)  # every box is found where it is
    for row, annotation in zip(table.itertuples(), document["annotations"], strict=True):
        (image,) = coco.loadImgs(annotation["image_id"])
        assert image["file_name"] == f"{row.image_id}.png" and image["part"] == row.part
        assert coco.loadCats(annotation["category_id"])[0]["name"] == row.finding
        x, y, w, h = annotation["bbox"]
        assert [x, y, x + w, y + h] == pytest.approx([row.x0, row.y0, row.x1, row.y1], rel=1e-5)
        assert annotation["area"] == pytest.approx(w * h) and annotation["iscrowd"] == 0
        assert annotation["score"] == pytest.approx(row.score, rel=1e-5)
        assert 0 <= x < x + w <= image["width"] and 0 <= y < y + h <= image["height"]
        assert 0 < annotation["score"] <= 1
    sizes = {image["file_name"]: (image["height"], image["width"]) for image in document["images"]}
    for file, size in sizes.items():
        with Image.open(folder / file) as image:
            assert size == image.size[::-1]
    assert set(SHAPES.values()) < set(sizes.values())


def test_boxes_are_of_findings_that_are_present_and_know_their_origin(run, folder, split, tmp_path):
    table, document = harvested(run, folder, tmp_path, "--share", "0.7", "--part", "train")
    labels = dict(zip(split.train.image_ids, split.train.labels, strict=True))
    pairs = {(row.image_id, FINDINGS.index(row.finding)) for row in table.itertuples()}
    assert pairs and pairs <= {(i, f) for i in labels for f in np.flatnonzero(labels[i] == 1)}
    data = datasets.load("folder", str(folder), SIDE)
    key = json.loads((run / "environment.json").read_text())["key"]
    provenance = {
        "run": key,
        "model": "AttentionMining",
        "dataset": "folder",
        "data_hash": data.data_hash,
        "split_hash": data.split_hash,
        "image_size": SIDE,
        "share": 0.7,
        "version": cxrlib.__version__,
    }
    assert [*table] == [*COLUMNS, "part", *provenance]
    assert (table[[*provenance]] == list(provenance.values())).all(axis=None)
    assert {**document["info"], "description": ""} == provenance | {"description": ""}
    wider, _ = harvested(run, folder, tmp_path, "--share", "0.2", "--part", "train")
    area = [((t["x1"] - t["x0"]) * (t["y1"] - t["y0"])).sum() for t in (table, wider)]
    assert area[0] < area[1]


def test_the_runs_own_dataset_is_as_in_the_run(run, split, tmp_path):
    out = tmp_path / "boxes.json"
    command = ["harvest", str(run), "--dataset", "phantom", "--coco", str(out)]
    assert cli.main(command) == 0
    info = json.loads(out.read_text())["info"]
    assert (info["data_hash"], info["split_hash"]) == (split.data_hash, split.split_hash)


def test_the_model_of_a_run_answers_as_it_did(run, split):
    opened = load_model(run)
    assert not opened.model.training and opened.params["image_size"] == SIDE
    stored = torch.load(run / "step_1" / "best.ckpt", weights_only=True)
    again = create_model("attention_mining", **stored["hyper_parameters"]).eval()
    again.load_state_dict(stored["state_dict"])
    images = torch.rand(2, 1, SIDE, SIDE)
    assert torch.equal(opened.model(images).maps, again(images).maps)


def test_any_model_of_the_library_is_opened(split, tmp_path):
    torch.manual_seed(0)
    model = create_model("lse_lba", r0=2.0, width=4, levels=1, growth=4, layers=1)
    fit(model, split, tmp_path, epochs=1, batch_size=8, accelerator="cpu")
    opened = read_checkpoint(best_checkpoint(tmp_path))
    images = torch.rand(2, 1, SIDE, SIDE)
    assert opened.hparams == model.hparams
    torch.testing.assert_close(opened(images), model(images))  # memory formats differ


def test_the_last_step_is_the_one_with_the_greatest_number(tmp_path):
    for step in (0, 2, 10):
        (tmp_path / f"step_{step}").mkdir()
        (tmp_path / f"step_{step}" / "best.ckpt").touch()
    assert best_checkpoint(tmp_path).parent.name == "step_10"
    (tmp_path / "best.ckpt").touch()
    assert best_checkpoint(tmp_path) == tmp_path / "best.ckpt"


def test_pretrained_weights_are_not_fetched(tmp_path):
    model = create_model("attention_mining", steps=0, **TINY)
    arguments = {**model.hparams, "pretrained": True, "encoder": "resnet18"}
    stored = {"model_class": "AttentionMining", "hyper_parameters": arguments}
    torch.save({**stored, "state_dict": model.state_dict()}, tmp_path / "best.ckpt")
    opened = read_checkpoint(tmp_path / "best.ckpt")
    assert opened.hparams.pretrained is False
    assert all(map(torch.equal, opened.parameters(), model.parameters()))


class Hostile:
    def __reduce__(self):
        return (print, ("code was executed",))


def refused(arguments, capsys) -> str:
    assert cli.main(["harvest", *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("cxrlib: ")
    return captured.err


@pytest.mark.parametrize("damage", ["hostile", "cut", "other model", "other weights"])
def test_a_checkpoint_that_is_no_model_is_refused(run, tmp_path, capsys, damage):
    place = shutil.copytree(run, tmp_path / "run")
    path = place / "step_1" / "best.ckpt"
    stored = torch.load(path, weights_only=True)
    if damage == "hostile":
        torch.save({**stored, "more": Hostile()}, path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "other model":
        torch.save({**stored, "model_class": "Unknown"}, path)
    else:
        torch.save({**stored, "hyper_parameters": {**TINY, "steps": 2}}, path)
    command = [place, "--dataset", "phantom", "--csv", tmp_path / "a.csv"]
    error = refused(command, capsys)
    assert f"{path} is damaged or was written by another version of cxrlib" in error
    assert error.count("\n") == 1 and not (tmp_path / "a.csv").exists()


def test_what_cannot_work_is_refused_before_the_work(run, folder, tmp_path, capsys):
    place = ["--dataset", "folder", "--data-dir", folder]
    csv = ["--csv", tmp_path / "a.csv"]
    (tmp_path / "file").touch()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metrics.json").touch()
    nowhere = [tmp_path / "no run", "--dataset", "folder", "--data-dir", "nowhere"]
    for arguments, message in (
        ([run, *place], "nothing to write; give --csv boxes.csv, --coco boxes.json or both"),
        ([*nowhere, "--coco", "a.csv"], "a.csv does not end in .json; give such a name"),
        ([*nowhere, "--csv", "a.json"], "a.json does not end in .csv; give such a name"),
        ([*nowhere, "--coco", tmp_path / "file" / "a.json"], "choose another place with --coco"),
        ([*nowhere, *csv, "--share", "1.5"], "share = 1.5; a share of a map's range, above 0 to"),
        ([*nowhere, *csv], "no run holds no finished run, which has a metrics.json; give the"),
        ([tmp_path / "train", *place, *csv], "has neither best.ckpt nor step_<t>/best.ckpt"),
        ([run, "--dataset", "folder", *csv], "dataset 'folder' needs data_dir"),
        ([run, *place, *csv, "-p", "fold", "1"], "dataset 'folder' has no option 'fold'"),
    ):
        assert message in refused(arguments, capsys)
    assert not (tmp_path / "a.csv").exists()


def test_labels_without_any_finding_are_refused(run, folder, tmp_path, capsys):
    place = shutil.copytree(folder, tmp_path / "data")
    table = pd.read_csv(place / "labels.csv")
    table.loc[table["split"] == "val", [*FINDINGS]] = 0
    table.to_csv(place / "labels.csv", index=False)
    command = [run, "--dataset", "folder", "--data-dir", place, "--csv", tmp_path / "a.csv"]
    count = (table["split"] == "val").sum()
    expected = f"none of the {count} images of 'val' is labelled with a finding; boxes are mined"
    assert expected in refused([*command, "--part", "val"], capsys)
    assert cli.main(["harvest", *map(str, command)]) == 0
    assert set(pd.read_csv(tmp_path / "a.csv")["part"]) == {"train", "test"}
