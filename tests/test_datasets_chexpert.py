import gzip
import json
import re

import numpy as np
import pytest
from PIL import Image

from cxrlib.datasets import chexpert, ham
from cxrlib.findings import FINDINGS, finding_index

COLUMNS = [
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]
HEADER = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *COLUMNS]) + "\n"
FIRST, SECOND = "train/patient00001/study1/view1_frontal", "train/patient00002/study1/view1_frontal"
LAST = "valid/patient00102/study1/view1_frontal"


def row(part, patient, labels, study=1, view="view1_frontal", release="CheXpert-v1.0/"):
    kind = "Lateral," if view.endswith("lateral") else "Frontal,AP"
    values = ",".join(labels.get(name, "") for name in COLUMNS)
    return (
        f"{release}{part}/patient{patient:05}/study{study}/{view}.jpg,Female,68,{kind},{values}\n"
    )


TRAIN = (
    row("train", 1, {"Cardiomegaly": "1.0", "Edema": "-1.0", "Pleural Effusion": "0.0"})
    + row("train", 1, {"Lung Opacity": "1.0", "Pneumothorax": "1.0"}, study=2)
    + row("train", 2, {"No Finding": "1.0", "Support Devices": "1.0"})
    + row("train", 2, {"No Finding": "1.0"}, view="view2_lateral")
    + "".join(row("train", patient, {"Pneumonia": "1.0"}) for patient in range(3, 21))
)
ZEROS = dict.fromkeys(COLUMNS, "0.0")
VALID = row("valid", 101, {**ZEROS, "Atelectasis": "1.0"}) + row("valid", 102, ZEROS)
BOXES = {
    f"{FIRST}.jpg": {"Cardiomegaly": [[10, 20, 40, 44]], "edema": [[0, 0, 5, 5], [20, 4, 60, 40]]},
    f"{LAST}.jpg": {"Pleural_Effusion": [[1, 2, 3, 4]], "Enlarg_Cardiomediastinum": [[1, 2, 3, 4]]},
    "train/patient00002/study1/view2_lateral.jpg": {"Edema": [[1, 2, 3, 4]]},
    "train/patient00003/study1/view1_frontal.jpg": {"Fracture": [[1, 2, 3, 4]]},
    "train/patient00004/study1/view1_frontal.jpg": {},
}


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "train.csv").write_text(HEADER + TRAIN)
    (tmp_path / "valid.csv").write_text(HEADER + VALID)
    return tmp_path


@pytest.fixture
def folder(tables):
    for part in ("train", "valid"):
        for line in (tables / f"{part}.csv").read_text().splitlines()[1:]:
            path = tables / line.split(",")[0].removeprefix("CheXpert-v1.0/")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (64, 48), 90).save(path)
    return tables


@pytest.fixture
def boxes(tmp_path):
    return write_boxes(tmp_path, BOXES)


def write_boxes(folder, content):
    path = folder / "boxes.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def known(labels):
    return {name: value for name, value in zip(FINDINGS, labels, strict=True) if value == value}


def test_views_are_those_of_the_tables(folder):
    edited = (folder / "train.csv").read_text().replace("Frontal,AP", "Frontal,PA", 1)
    (folder / "train.csv").write_text(edited)
    columns = [line.split(",") for line in (folder / "valid.csv").read_text().splitlines()]
    lines = [",".join(line[:4] + line[5:]) + "\n" for line in columns]
    (folder / "valid.csv").write_text("".join(lines))
    split = chexpert.load(folder, 32)
    seen = dict(zip(split.train.image_ids, split.train.views, strict=True))
    seen |= dict(zip(split.val.image_ids, split.val.views, strict=True))
    assert seen.pop(FIRST) == "PA"
    assert {*seen.values()} == {"AP"}
    assert {*split.test.views} == {""}


def test_read_tables(tables):
    found = chexpert.read_tables(str(tables))
    assert found.images.iloc[0].tolist() == [FIRST, "patient00001", "train", f"{FIRST}.jpg", "AP"]
    assert found.images["split"].value_counts().to_dict() == {"train": 21, "valid": 2}
    assert (found.lateral, found.release) == (1, "CheXpert-v1.0/")
    assert found.labels.dtype == np.float32
    blank = dict.fromkeys(
        ["Atelectasis", "Effusion", "Pneumonia", "Pneumothorax", "Consolidation"], 0
    )
    assert known(found.labels[0]) == {"Cardiomegaly": 1} | blank
    assert known(found.labels[1])["Pneumothorax"] == 1
    assert known(found.labels[2]) == blank | {"Cardiomegaly": 0, "Edema": 0}
    assert known(found.labels[-2])["Atelectasis"] == 1
    unknown = np.isnan(found.labels).all(axis=0)
    assert [name for name, flag in zip(FINDINGS, unknown, strict=True) if flag] == [
        "Infiltration",
        "Mass",
        "Nodule",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
        "Hernia",
    ]


@pytest.mark.parametrize(("uncertain", "value"), [("nan", np.nan), ("zero", 0.0), ("one", 1.0)])
def test_uncertain_labels(tables, uncertain, value):
    labels = chexpert.read_tables(tables, uncertain).labels
    np.testing.assert_equal(labels[0, finding_index("Edema")], np.float32(value))
    assert (labels == -1).sum() == 0


def test_an_unknown_choice_for_uncertain_labels(tables):
    with pytest.raises(ValueError, match="uncertain is 'ones'; give one of nan, zero, one"):
        chexpert.read_tables(tables, "ones")


def test_marks_of_spreadsheets_and_gzip_change_nothing(tables):
    before = chexpert.read_tables(tables)
    for path in [*tables.glob("*.csv")]:
        text = path.read_text().replace("\n", "\r\n")
        path.with_name(f"{path.name}.gz").write_bytes(
            gzip.compress(b"\xef\xbb\xbf" + text.encode())
        )
        path.unlink()
    after = chexpert.read_tables(tables)
    assert before.images.equals(after.images)
    np.testing.assert_array_equal(before.labels, after.labels)


HOME = "restore it from https://stanfordmlgroup"


@pytest.mark.parametrize(
    ("name", "old", "new", "flaw"),
    [
        ("train.csv", "Path,", "Paths,", r"lacks \['Path'\]; it has \['Paths', 'Sex'.*; " + HOME),
        ("valid.csv", ",Edema", ",Oedema", rf"lacks \['Edema'\]; {HOME}"),
        (
            "train.csv",
            f"CheXpert-v1.0/{FIRST}.jpg",
            "view1_frontal.jpg",
            r"a name unlike CheXpert-v1.0/train/patient00001.*: row 2 \(view1_fro.*; restore it$",
        ),
        (
            "train.csv",
            "patient00001/study2",
            "patient00001/study1",
            r"an image that already has a row: row 3 \(CheXpert.*; delete one row",
        ),
        (
            "valid.csv",
            "patient00102",
            "patient00002",
            r"a patient who is also in .*train.csv: row 3 \(patient00002\); delete the rows",
        ),
        ("train.csv", "-1.0", "2.0", r"a 'Edema' that is not 1, 0, -1 or blank: row 2 .*; " + HOME),
        ("train.csv", "-1.0", "u", r"a 'Edema' that is not 1, 0, -1 or blank: row 2 "),
    ],
)
def test_a_wrong_table_is_named_with_its_row_and_mend(tables, name, old, new, flaw):
    edit(tables / name, old, new)
    with pytest.raises(ValueError, match=f"^{re.escape(str(tables / name))}.*{flaw}"):
        chexpert.read_tables(tables)


@pytest.mark.parametrize("name", ["train.csv", "valid.csv"])
def test_a_missing_table_is_named_with_the_layout(tables, name):
    (tables / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{tables} holds no {name}.*; expected a folder"):
        chexpert.read_tables(tables)


def test_load(folder):
    split = chexpert.load(folder, 32)
    assert [len(part) for part in (split.train, split.val, split.test)] == [19, 2, 2]
    assert split.notes == (
        "val is 10% of the patients of train.csv, seed 0; test is the official valid images",
        "1 lateral views left out",
    )
    assert split.test.image_ids.tolist()[-1] == LAST
    image = split.test[1].image[0]
    assert image.shape == (32, 32)
    assert image[5:27].min() == image[5:27].max() == 90 / 255  # 48 of 64 rows, the rest is black
    assert image[:3].max() == image[-3:].max() == 0
    again = chexpert.load(folder, 32)
    assert (again.split_hash, again.data_hash) == (split.split_hash, split.data_hash)
    assert chexpert.load(folder, 32, seed=1).split_hash != split.split_hash
    assert chexpert.load(folder, 32, uncertain="one").data_hash != split.data_hash


def test_the_official_test_table_is_the_test_part(folder):
    # As released: no folder in front, and no columns but the path and the labels.
    line = row("test", 201, ZEROS, release="").replace("Female,68,Frontal,AP,", "")
    header = ",".join(["Path", *COLUMNS])
    (folder / "test_labels.csv").write_text(f"{header}\n{line}")
    path = folder / "test/patient00201/study1/view1_frontal.jpg"
    path.parent.mkdir(parents=True)
    Image.new("L", (40, 50)).save(path)
    split = chexpert.load(folder, 32)
    assert split.test.patient_ids.tolist() == ["patient00201"]
    assert split.notes[-1] == "2 frontal images of valid.csv left out, being of no part"


def test_load_with_boxes(folder, boxes):
    split = chexpert.load(folder, 32, boxes=boxes)
    assert split.test.image_ids.tolist() == [FIRST, LAST]
    assert not {f"patient{number:05}" for number in (1, 2, 3, 4)} & {
        *split.train.patient_ids,
        *split.val.patient_ids,
    }
    assert len(split.train) + len(split.val) == 16
    assert split.notes[-3:] == (
        "boxes.json.gz: 4 of 7 boxes are used, on 2 images; not used are 1 on 1 lateral views, "
        "1 of Enlarged_Cardiomediastinum, 1 of Fracture",
        "4 frontal images of train.csv left out, their patients being in the box file",
        "1 frontal images of valid.csv left out, being of no part",
    )
    sample = split.test[0]  # 64 x 48 px: 8 black rows above
    assert sample.boxes.tolist() == [[5, 14, 20, 26], [0, 4, 2.5, 6.5], [10, 6, 30, 24]]
    assert [FINDINGS[found] for found in sample.box_findings] == ["Cardiomegaly", "Edema", "Edema"]


def test_a_box_covers_what_it_was_drawn_around(folder, tmp_path):
    pixels = np.zeros((48, 64), np.uint8)
    pixels[12:36, 20:52] = 200
    Image.fromarray(pixels).save(folder / f"{FIRST}.jpg", quality=100)
    boxes = write_boxes(tmp_path, {f"{FIRST}.jpg": {"Edema": [[20, 12, 52, 36]]}})
    sample = chexpert.load(folder, 64, boxes=boxes).test[0]
    x0, y0, x1, y1 = sample.boxes[0].int().tolist()
    bright = sample.image[0] > 0.4
    assert bright[y0:y1, x0:x1].all()
    assert bright.sum() == (y1 - y0) * (x1 - x0)


def test_boxes_need_the_full_size_images(folder, boxes):
    for name in ("train.csv", "valid.csv"):
        path = folder / name
        path.write_text(path.read_text().replace("CheXpert-v1.0/", "CheXpert-v1.0-small/"))
    assert len(chexpert.load(folder, 32).test) == 2
    with pytest.raises(
        ValueError, match=r"full-size images, but .*train.csv is of CheXpert-v1.0-small, .*; give"
    ):
        chexpert.load(folder, 32, boxes=boxes)


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        ({f"{FIRST}.jpg": {"Edma": [[1, 2, 3, 4]]}}, r"unknown label .*'Edema'\?.*: row 1 "),
        (
            {f"{FIRST}.jpg": {"Mass": [[1, 2, 3, 4]]}, "a.jpg": {}},
            r"a name unlike .* row 2 \(a.jpg",
        ),
        ({f"{FIRST}.jpg": {"Mass": [[1, 2, 3]]}}, r"cannot be read \(a box has 3 numbers, not 4\)"),
        ({f"{FIRST}.jpg": {"Mass": [5]}}, r"cannot be read \(it is not \{image: "),
        ([FIRST], r"cannot be read \(it is not \{image: "),
        ({f"{FIRST}.jpg": {"Mass": [[1, 2, "x", 4]]}}, "a box that is no number: row 1 "),
        ({f"{FIRST}.jpg": {"Mass": [[1, 2, None, 4]]}}, "a box that is no number: row 1 "),
        ({f"{FIRST}.jpg": {"Mass": [[1, -2, 3, 4]]}}, "a negative corner of a box: row 1 "),
        ({f"{FIRST}.jpg": {"Mass": [[3, 2, 1, 4]]}}, "an empty or inverted box: row 1 "),
        ({f"{FIRST}.jpg": {"Mass": [[1, 2, 3, 2]]}}, "an empty or inverted box: row 1 "),
        ({f"{FIRST}.jpg": {"Mass": [[1, 2, 66, 4]]}}, "a box outside its image: row 1 .*full-size"),
        ({f"{FIRST}.jpg": {"Mass": [[1, 48, 9, 49]]}}, "a box outside its image: row 1 "),
        (
            {f"{FIRST.replace('00001', '00099')}.jpg": {"Mass": [[1, 2, 3, 4]]}},
            "an image without a row in .*; add its row",
        ),
    ],
)
def test_wrong_boxes(folder, tmp_path, content, flaw):
    path = write_boxes(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*{flaw}"):
        chexpert.load(folder, 32, boxes=path)


def test_a_pixel_too_far_is_rounding(folder, tmp_path):
    path = write_boxes(tmp_path, {f"{FIRST}.jpg": {"Mass": [[1, 2, 65, 49]]}})
    corners = chexpert.load(folder, 32, boxes=path).test.boxes[["x1", "y1"]]
    assert corners.to_numpy().tolist() == [[1, 56 / 64]]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": {}, "a": {}}'])
def test_an_unreadable_box_file_is_named(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"boxes.json cannot be read \(.*\); restore it from"):
        ham.read_ham(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere is no file; give the JSON of the boxes"):
        ham.read_ham(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 31}, "image_size is 31; give 32 to 1024 pixels"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0; give a share between 0 and 1"),
        (
            {"val_fraction": 0.01},
            "no image is left for 'val' .*; add .*, or change val_frac",
        ),
    ],
)
def test_arguments_out_of_range(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        chexpert.load(folder, **{"image_size": 32, **arguments})


def test_bad_images_are_refused_before_training(folder):
    (folder / f"{FIRST}.jpg").unlink()
    (folder / f"{SECOND}.jpg").write_bytes(b"")
    with pytest.raises(OSError, match=r"^2 of 23 images cannot be used: .*; restore it") as caught:
        chexpert.load(folder, 32)
    assert "patient00001/study1/view1_frontal.jpg cannot be read" in str(caught.value)
    assert "patient00002/study1/view1_frontal.jpg is empty" in str(caught.value)


def test_the_released_boxes(shared):
    found = ham.read_ham(shared / "nih-metadata" / "HAM_CheXpert_BBoxes.json.gz")
    names = found.boxes["finding"].map(lambda index: FINDINGS[index])
    assert names.value_counts().to_dict() == {
        "Effusion": 1_619,
        "Edema": 1_066,
        "Atelectasis": 659,
        "Cardiomegaly": 598,
        "Consolidation": 363,
        "Pneumonia": 335,
        "Pneumothorax": 292,
    }
    assert found.boxes["image_id"].nunique() == 1_932
    assert found.boxes["image_id"].str.split("/").str[1].nunique() == 1_832
    assert len(found.patients) == 2_202
    assert found.note == (
        "HAM_CheXpert_BBoxes.json.gz: 4932 of 6101 boxes are used, on 1932 images; not used are "
        "453 on 272 lateral views, 369 of Enlarged_Cardiomediastinum, 347 of Fracture"
    )
