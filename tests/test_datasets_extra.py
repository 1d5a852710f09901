import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.path import Path as Outline

from cxrlib.datasets import extra, nih
from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Truth
from cxrlib.findings import FINDINGS, finding_index

HEADER = "image_id,label,x1024,y1024,w1024,h1024\n"
RSNA_BOXES = HEADER + (
    "00000001_000.png,Lung Opacity,256,512,128.5,64\n00000001_000.png,Lung Opacity,0,0,1024,1024\n"
)
RSNA_CLASS = (
    "image_id,rsna_class\n00000001_000.png,Lung Opacity\n00000002_000.png,Normal\n"
    "00000003_000.png,No Lung Opacity / Not Normal\n"
)
BOXES = HEADER + (
    "00000001_000.png,Pleural Thickening,256,512,256,256\n"
    "00000001_000.png,Mass,0,0,512,512\n"
    "00000001_000.png,Mass,256,256,512,512\n"
    "00000002_000.png,Fracture,10,10,20,20\n"
)


def entry(name, label, x, y, width, height):
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
    box = [x, y, x + width, y + height]
    return {"image_id": name, "label": label, "box_xyxy_1024": box, "polygon_xy_1024": corners}


POLYGONS = [
    entry(*line.split(",")[:2], *map(float, line.split(",")[2:])) for line in BOXES.splitlines()[1:]
]
FILES = {
    "rsna_boxes.csv": RSNA_BOXES,
    "rsna_class.csv": RSNA_CLASS,
    "chestxdet_boxes.csv": BOXES,
    "chestxdet_polygons.json": json.dumps(POLYGONS),
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def dataset(image_ids, size=64):
    ids = np.array(image_ids)
    labels = np.zeros((len(ids), len(FINDINGS)))
    pixels = np.zeros((size, size), np.uint8)
    boxes = pd.DataFrame([[ids[0], 0, 0.0, 0.0, 0.1, 0.1]], columns=BOX_COLUMNS)
    return CXRDataset("demo", ids, ids, labels, boxes, size, lambda name: pixels)


def test_rsna(folder):
    found = extra.rsna(str(folder))
    pneumonia = finding_index("Pneumonia")
    assert found.boxes.to_numpy().tolist() == [
        ["00000001_000", pneumonia, 0.25, 0.5, 384.5 / 1024, 0.5625],
        ["00000001_000", pneumonia, 0, 0, 1, 1],
    ]
    assert found.classes.to_dict() == {
        "00000001_000": "Lung Opacity",
        "00000002_000": "Normal",
        "00000003_000": "No Lung Opacity / Not Normal",
    }


@pytest.mark.parametrize("size", [64, 100])
def test_chestxdet(folder, size):
    found = extra.chestxdet(folder, size)
    assert found.boxes["finding"].map(lambda index: FINDINGS[index]).tolist() == [
        "Pleural_Thickening",
        "Mass",
        "Mass",
    ]
    assert found.unused == {"Fracture": 1}
    masks = pickle.loads(pickle.dumps(found.masks))("00000001_000")
    assert (masks.dtype, masks.shape) == (bool, (14, size, size))
    half, quarter = size // 2, size // 4
    union = np.zeros((size, size), bool)  # of two boxes that overlap
    union[:half, :half] = union[quarter : 3 * quarter, quarter : 3 * quarter] = True
    assert (masks[finding_index("Mass")] == union).all()
    assert masks[finding_index("Pleural_Thickening")].sum() == quarter**2
    assert masks.any(axis=(1, 2)).sum() == 2
    assert not found.masks("00000002_000").any()
    assert not found.masks("00000009_000").any()


def test_marks_of_spreadsheets_change_nothing(folder):
    before = extra.chestxdet(folder, 64).boxes, extra.rsna(folder).boxes
    for name, text in FILES.items():
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    after = extra.chestxdet(folder, 64).boxes, extra.rsna(folder).boxes
    for one, other in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(one, other)


def read(folder, name):
    return extra.rsna(folder) if name.startswith("rsna") else extra.chestxdet(folder, 64)


BAD_BOXES = {
    "-1,512,128.5,64": "a negative corner of a box",
    "256,512,-1,64": "an empty or inverted box",
    "256,512,0,64": "an empty or inverted box",
    "256,512,wide,64": "a box that is no number",
    "256,512,nan,64": "a box that is no number",
    "inf,512,128.5,64": "a box that is no number",
    "256,512,128.5,514": "a box outside its image",
}


@pytest.mark.parametrize(
    ("name", "old", "new", "flaw"),
    [
        ("rsna_boxes.csv", "w1024", "width", r"lacks \['w1024'\]; .*; restore it"),
        (
            "rsna_boxes.csv",
            "Lung Opacity",
            "Opacity",
            r"unknown label \('Opacity' is not 'Lung Opacity'\): row 2 \(00000001_000\)",
        ),
        ("rsna_boxes.csv", "00000001_000", "00000002_000", "not 'Lung Opacity' in .*: row 2 "),
        ("rsna_boxes.csv", "00000001_000", "00000009_000", "not 'Lung Opacity' in .*: row 2 "),
        ("rsna_class.csv", "00000002_000", "00000001_000", "already has a row: row 3 .*; delete"),
        ("rsna_class.csv", "Normal", "normal", r"unknown label .*is not one of Normal, .*: row 3 "),
        *(("rsna_boxes.csv", "256,512,128.5,64", *bad) for bad in BAD_BOXES.items()),
        ("chestxdet_boxes.csv", "Mass", "Maß", r"unknown label .*: row 3 \(00000001_000\)"),
        ("chestxdet_boxes.csv", "Mass", "Nodule", "do not list the same findings of the same"),
        ("chestxdet_boxes.csv", "Fracture,10,", "Fracture,-10,", "a negative corner.*: row 5 "),
        ("chestxdet_boxes.csv", "Fracture,10,", "Fracture,1010,", "outside its image: row 5 "),
        ("chestxdet_polygons.json", "]}]", "", r"cannot be read \(.*\); restore it"),
        ("chestxdet_polygons.json", '"label"', '"name"', "entry 1 has no image_id, label and out"),
        ("chestxdet_polygons.json", "[[256.0, ", "[[1025, ", "entry 1 has no .* in 1024 px"),
        ("chestxdet_polygons.json", "[[256.0, ", "[[NaN, ", "entry 1 has no .* in 1024 px"),
        ("chestxdet_polygons.json", "[[256.0, 512.0], ", "[[256.0], ", "entry 1 has no image_id"),
    ],
)
def test_a_wrong_file_is_named_with_its_row_and_mend(folder, name, old, new, flaw):
    edit(folder / name, old, new)
    with pytest.raises(ValueError, match=f"^{re.escape(str(folder / name))}.*{flaw}"):
        read(folder, name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_layout(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{folder} holds no {name}.*; expected a folder w"
    ):
        read(folder, name)


def test_with_truth(folder):
    found = extra.chestxdet(folder, 64)
    before = dataset(["00000001_000", "00000002_000"])
    after = extra.with_truth(before, found.boxes, found.masks)
    assert (after.image_ids == before.image_ids).all()
    sample = after[0]
    assert sample.boxes.tolist() == [[16, 32, 32, 48], [0, 0, 32, 32], [16, 16, 48, 48]]
    assert sample.masks.shape == (14, 64, 64)
    assert not after[1].masks.any()
    truth = Truth(after)
    covered = truth.masks(np.arange(len(truth)), 8)
    assert covered.sum(dim=(1, 2)).tolist() == [16 + 16 - 4, 4]
    plain = extra.with_truth(after, found.boxes)
    assert plain[0].masks is None
    assert len(before.boxes) == 1


def test_with_truth_refuses_images_that_are_not_there(folder):
    boxes = extra.rsna(folder).boxes
    with pytest.raises(
        ValueError,
        match=r"^boxes on 1 images that are not among the 1 of 'demo', such as 00000001_000; keep",
    ):
        extra.with_truth(dataset(["00000002_000"]), boxes)


def test_filling_agrees_with_an_independent_test_of_points():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = int(rng.integers(4, 40))
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 30)))
        radii = rng.uniform(0.05, 0.7, len(angles)) * size  # a star, which may leave the frame
        polygon = size / 2 + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
        y, x = np.indices((size, size)).reshape(2, -1) + 0.5
        inside = Outline(polygon).contains_points(np.stack([x, y], 1)).reshape(size, size)
        assert (extra.fill(polygon, size) == inside).all()
        assert (extra.fill(polygon[::-1], size) == inside).all()


def test_the_released_rsna(shared):
    found = extra.rsna(shared / "nih-mini" / "extra")
    assert (len(found.boxes), found.boxes["image_id"].nunique()) == (196, 126)
    assert found.classes.value_counts().to_dict() == {
        "No Lung Opacity / Not Normal": 289,
        "Lung Opacity": 126,
        "Normal": 124,
    }


def test_the_released_chestxdet(shared):
    found = extra.chestxdet(shared / "nih-mini" / "extra", 256)
    assert found.unused == {"Calcification": 2, "Diffuse Nodule": 9, "Fracture": 34}
    assert found.boxes["finding"].map(lambda index: FINDINGS[index]).value_counts().to_dict() == {
        "Consolidation": 137,
        "Effusion": 94,
        "Fibrosis": 34,
        "Cardiomegaly": 23,
        "Pleural_Thickening": 22,
        "Nodule": 21,
        "Emphysema": 18,
        "Atelectasis": 11,
        "Pneumothorax": 5,
        "Mass": 3,
    }
    for image_id, boxes in found.boxes.groupby("image_id"):
        masks = torch.from_numpy(found.masks(image_id))
        for finding, rows in boxes.groupby("finding"):
            y, x = torch.nonzero(masks[finding], as_tuple=True)
            drawn = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]) / 256
            corners = rows[["x0", "y0", "x1", "y1"]].to_numpy()
            box = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
            grown = (drawn.numpy() - box) * [-256, -256, 256, 256]
            # Further in where a tip is too thin to hold the centre of a pixel.
            assert (grown <= 0.5).all()


def area(polygon):
    x, y = polygon.T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


@pytest.mark.parametrize(("size", "error"), [(64, 2e-3), (256, 1e-4), (512, 1e-4)])
def test_outlines_keep_their_area_at_every_size(shared, size, error):
    outlines = extra.chestxdet(shared / "nih-mini" / "extra", size).masks.polygons.values()
    polygons = [polygon * size for each in outlines for _, polygon in each]
    drawn = sum(extra.fill(polygon, size).sum() for polygon in polygons)
    assert drawn == pytest.approx(sum(map(area, polygons)), rel=error)


def test_the_released_truth_on_real_images(shared):
    test = nih.load(shared / "nih-mini", 64).test
    found = extra.chestxdet(shared / "nih-mini" / "extra", 64)
    ours = found.boxes[found.boxes["image_id"].isin(test.image_ids)]
    truth = extra.with_truth(test, ours, found.masks)
    assert len(truth) == 814
    assert 0 < len(Truth(truth)) <= len(ours)
    with pytest.raises(ValueError, match=r"not among the 814 of 'nih'"):
        extra.with_truth(test, found.boxes)
