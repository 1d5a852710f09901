import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian
from test_datasets_dicom import make

from cxrlib.datasets import folder, images
from cxrlib.findings import FINDINGS, finding_index

HEIGHT, WIDTH = 40, 60
SPLIT = (
    "image,patient,split,Infiltrate,mass\n"
    "a/1.png,p1,train,1,0\n"
    "a/2.png,p1,train,,1\n"
    "b/3.jpg,p2,val,0,0.0\n"
    "b/4.dcm,p3,test,1.0,\n"
    "5.png,p4,test,0,0\n"
)
BOXES = "image,finding,x0,y0,x1,y1\nb/4.dcm,Infiltration,0,0,60,40\n5.png,Mass,30,10,45.5,20\n"


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dcm":
        data = make(pixels(seed), 8, WindowCenter=128, WindowWidth=256)
        assert data.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        data.save_as(path, enforce_file_format=True)
    else:
        Image.fromarray(pixels(seed)).save(path, quality=100)


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "labels.csv").write_text(SPLIT)
    (tmp_path / "boxes.csv").write_text(BOXES)
    for seed, row in enumerate(SPLIT.splitlines()[1:]):
        save(tmp_path / row.split(",")[0], seed)
    return tmp_path


@pytest.fixture
def many(tmp_path):
    """Forty images of twenty patients, without splits and boxes."""
    rows = [f"{number}.png,p{number // 2},{number % 2}\n" for number in range(40)]
    (tmp_path / "labels.csv").write_text("image,patient,Edema\n" + "".join(rows))
    for number in range(40):
        save(tmp_path / f"{number}.png", number)
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_load(mine):
    split = folder.load(mine, 32)
    assert [len(part) for part in (split.train, split.val, split.test)] == [2, 1, 2]
    assert split.notes == ("parts as in labels.csv",)
    labels = {"a/1": [1, 0], "a/2": [np.nan, 1], "b/3": [0, 0], "b/4": [1, np.nan], "5": [0, 0]}
    unknown = [i for i in range(14) if FINDINGS[i] not in ("Infiltration", "Mass")]
    for part in (split.train, split.val, split.test):
        for sample in part:
            found = sample.labels[[finding_index("Infiltration"), finding_index("Mass")]]
            np.testing.assert_array_equal(found, labels[sample.image_id])
            assert sample.labels[unknown].isnan().all()
    sample = split.test[0]
    assert (sample.image_id, sample.patient_id) == ("b/4", "p3")
    np.testing.assert_allclose(sample.boxes, [[0, 32 / 6, 32, 32 * 5 / 6]], rtol=1e-6)
    expected = [[16, 32 / 3, 45.5 / 60 * 32, 16]]
    np.testing.assert_allclose(split.test[1].boxes, expected, rtol=1e-6)
    assert split.test[1].box_findings.tolist() == [finding_index("Mass")]
    assert pickle.loads(pickle.dumps(split.test))[0].image.shape == (1, 32, 32)


def test_every_kind_of_file_gives_the_same_pixels(mine):
    split = folder.load(mine, 60)
    for part, index, seed, tolerance in ((0, 0, 0, 0), (1, 0, 2, 12), (2, 0, 3, 1)):
        found = (split.train, split.val, split.test)[part][index].image[0].numpy() * 255
        assert abs(found[10:50] - pixels(seed)).max() <= tolerance + 0.01
        assert not found[:10].any()
        assert not found[50:].any()


def test_without_a_split_column_patients_are_divided_by_seed(many):
    one, same, other = (folder.load(many, 32, seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in (one.train, one.val, one.test)] == [28, 4, 8]
    assert one.notes == ("test is 4 of 20 patients; val is 10% of the rest; seed 0",)
    assert one.split_hash == same.split_hash != other.split_hash
    assert one.data_hash == other.data_hash
    shares = folder.load(many, 32, val_fraction=0.5, test_fraction=0.5)
    assert [len(part) for part in (shares.train, shares.val, shares.test)] == [10, 10, 20]


@pytest.mark.parametrize(("boxed", "test"), [(1, 4), (3, 4), (7, 7)])
def test_patients_with_boxes_are_in_test(many, boxed, test):
    rows = [f"{2 * patient}.png,Edema,0,0,9,9\n" for patient in range(boxed)]
    (many / "boxes.csv").write_text("image,finding,x0,y0,x1,y1\n" + "".join(rows))
    split = folder.load(many, 32)
    assert {f"p{patient}" for patient in range(boxed)} <= {*split.test.patient_ids}
    assert len({*split.test.patient_ids}) == test
    assert split.notes[0].startswith(
        f"test is {test} of 20 patients, among them all {boxed} with boxes"
    )
    assert len(split.test.boxes) == boxed


def test_without_patients_each_image_is_one(many):
    table = many / "labels.csv"
    rows = [re.sub(r",p\w+", "", row) for row in table.read_text().splitlines()]
    table.write_text("\n".join(rows))
    split = folder.load(many, 32)
    assert len({*split.test.patient_ids}) == len(split.test) == 8
    assert split.notes[1:] == (
        "labels.csv names no patients: each image counts as a patient of its own",
    )


def test_spreadsheets_and_other_spellings_read_the_same(mine):
    before = folder.load(mine, 32)
    for name in ("labels.csv", "boxes.csv"):
        text = (mine / name).read_text().replace("\n", "\r\n").replace("a/", ".\\a\\")
        (mine / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    edit(
        mine / "labels.csv",
        "image,patient,split,Infiltrate,mass",
        "Image, PATIENT,Split,infiltration,Mass ",
    )
    edit(mine / "boxes.csv", "image,finding", "Image,Finding")
    after = folder.load(mine, 32)
    assert (after.data_hash, after.split_hash) == (before.data_hash, before.split_hash)


def test_data_hash_covers_labels_boxes_and_file_sizes(mine):
    hashes = [folder.load(mine, 32).data_hash]
    edit(mine / "labels.csv", "train,1,0", "train,1,")
    hashes.append(folder.load(mine, 32).data_hash)
    edit(mine / "boxes.csv", "45.5", "45")
    hashes.append(folder.load(mine, 32).data_hash)
    Image.new("L", (40, 40)).save(mine / "a/1.png")
    hashes.append(folder.load(mine, 32).data_hash)
    assert len({*hashes}) == 4


LABELS, BOX = "labels.csv", "boxes.csv"
BAD = [
    (LABELS, "image,", "picture,", r"a column of no known meaning \('picture' is not a finding"),
    (
        LABELS,
        "mass",
        "masss",
        r"no known meaning \('masss' .* did you mean 'Mass'.*; name it image",
    ),
    (LABELS, "mass", "Infiltration", "two columns for 'Infiltration'; delete one"),
    (LABELS, "a/2.png", "a/1.png", r"already has a row: row 3 \(a/1.png\); delete one"),
    (LABELS, "a/2.png", "./a//1.jpg", r"but for its suffix, .*: row 3 \(./a//1.jpg\)"),
    (LABELS, "a/2.png", "a/9.png", r"a file that does not exist: row 3 \(a/9.png\); correct the p"),
    (LABELS, "a/2.png", "../2.png", r"a path outside .*: row 3 \(../2.png\); move the file"),
    (LABELS, "a/2.png", "/2.png", r"a path outside .*: row 3 \(/2.png\)"),
    (LABELS, "a/2.png", "", "no 'image': row 3"),
    (LABELS, "p1,train,,1", ",train,,1", r"no 'patient': row 3 \(a/2.png\); correct the table"),
    (LABELS, "p1,train,,1", "p1,,,1", r"no 'split': row 3 \(a/2.png\)"),
    (
        LABELS,
        "p1,train,,1",
        "p1,Test,,1",
        r"a split that is none of \('train', .*: row 3 \(a/2.png",
    ),
    (
        LABELS,
        "p1,train,,1",
        "p1,test,,1",
        r"in another split above: row 3 .*; give all images of a",
    ),
    (
        LABELS,
        "p1,train,,1",
        "p1,train,2,1",
        r"a value of Infiltration that is not 1, 0 or empty: row 3 \(",
    ),
    (LABELS, "p1,train,,1", "p1,train,nan,1", r"is not 1, 0 or empty: row 3 \(a/2.png\); correct"),
    (LABELS, "p1,train,,1", "p1,train,-1,1", r"is not 1, 0 or empty: row 3 \(a/2.png\)"),
    (
        LABELS,
        "p2,val",
        "p2,train",
        r"no image is left for 'val' of .*\(parts as in labels.csv\); add",
    ),
    (BOX, "x0", "left", r"lacks \['x0'\]; it has \['image', 'finding', 'left'"),
    (BOX, "5.png", "6.png", r"without a row in labels.csv: row 3 \(6.png\); add its row"),
    (BOX, "Mass", "Masses", r"unknown label \('Masses' is not .*: row 3 \(5.png\); correct the l"),
    (BOX, "5.png", "a/1.png", r"patient who is not in test: row 3 \(a/1.png\); give the patient s"),
    *(
        (BOX, "30,10,45.5,20", row, rf"{flaw}: row 3 \(5(.png)?\)")
        for flaw, rows in {
            "an empty or inverted box": ["30,10,30,20", "30,10,45,9", "45,10,30,20"],
            "a box that is no number": ["nan,10,45,20", "30,10,x,20", "30,10,inf,20"],
            "a negative corner of a box": ["-1,10,45,20", "30,-0.5,45,20"],
            "a box outside its image": ["30,10,62,20", "30,10,45,42"],
            "no 'y0'": ["30,,45,20"],
        }.items()
        for row in rows
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "flaw"), BAD)
def test_a_wrong_table_is_named_with_its_row_and_mend(mine, name, old, new, flaw):
    edit(mine / name, old, new)
    with pytest.raises(ValueError, match=flaw) as caught:
        folder.load(mine, 32)
    assert str(mine) in str(caught.value)


def test_absent_and_empty_tables(mine):
    (mine / LABELS).write_text("image,split\n5.png,test\n")
    with pytest.raises(ValueError, match=r"has no column of a finding; add one of Atelectasis, C"):
        folder.load(mine, 32)
    (mine / LABELS).write_text(SPLIT.splitlines()[0])
    with pytest.raises(ValueError, match=r"labels.csv has no rows; add one for each image"):
        folder.load(mine, 32)
    (mine / LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=r"labels.csv does not exist; expected a folder w"):
        folder.load(mine, 32)
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; expected a folder with"):
        folder.load(mine / "nowhere", 32)


def test_a_box_table_is_optional_and_may_be_empty(mine):
    (mine / BOX).write_text(BOXES.splitlines()[0])
    empty = folder.load(mine, 32)
    (mine / BOX).unlink()
    none = folder.load(mine, 32)
    assert len(empty.test.boxes) == len(none.test.boxes) == 0
    assert none.test[0].boxes.shape == (0, 4)
    assert none.data_hash == empty.data_hash


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (20_000, 16)])
def test_an_image_of_a_size_out_of_range_is_refused_before_training(mine, size):
    Image.new("L", size).save(mine / "a/1.png")
    message = rf"1 of 5 images .*a/1.png cannot be used \(it is {size[0]} x {size[1]} px; expected"
    with pytest.raises(OSError, match=message):
        folder.load(mine, 32)


@pytest.mark.parametrize("name", ["a/1.png", "b/3.jpg", "b/4.dcm"])
def test_a_damaged_image_is_refused_before_training(mine, name):
    content = (mine / name).read_bytes()
    (mine / name).write_bytes(content[:-30])
    message = rf"1 of . images .*{name} .*truncated.*; export it again, or delete its row from "
    with pytest.raises(OSError, match=message):
        folder.load(mine, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 31}, "image_size is 31; give 32 to 1024 pixels"),
        ({"image_size": 1025}, "image_size is 1025; give 32 to 1024 pixels"),
        ({"val_fraction": 0.0}, "val_fraction is 0.0; give a share between 0 and 1"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0; give a share between 0 and 1"),
        ({"test_fraction": float("nan")}, "test_fraction is nan; give a share"),
        ({"val_fraction": 0.01}, r"no image is left for 'val' .*\(test is 4 of 20 patients; val"),
        ({"test_fraction": 0.01}, "no image is left for 'test'"),
    ],
)
def test_arguments_out_of_range(many, arguments, message):
    with pytest.raises(ValueError, match=message):
        folder.load(many, **{"image_size": 32, **arguments})


@pytest.mark.parametrize("name", ["a/1.png", "b/3.jpg", "b/4.dcm"])
def test_sample_of_one_file(mine, name):
    found = folder.sample(mine / name, 48)
    expected = images.read_pixels(mine / name, 48, pad=True)
    assert found.image.dtype == torch.float32
    assert ((found.image[0] * 255).round() == torch.from_numpy(expected.copy())).all()
    assert found.labels.shape == (14,)
    assert found.labels.isnan().all()
    assert (found.boxes.shape, found.box_findings.dtype) == ((0, 4), torch.int64)
    assert found.image_id == name[2]
    loaded = folder.load(mine, 48)
    same = [one for part in (loaded.train, loaded.val, loaded.test) for one in part]
    assert torch.equal(next(one for one in same if one.image_id == name[:3]).image, found.image)


def test_sample_refuses_what_it_cannot_show(mine):
    with pytest.raises(ValueError, match="image_size is 8; give 32 to 1024 pixels"):
        folder.sample(mine / "5.png", 8)
    with pytest.raises(OSError, match=r"no.png cannot be decoded .*; give a whole PNG, JPEG or D"):
        folder.sample(mine / "no.png", 32)
    with pytest.raises(
        OSError, match=r"labels.csv cannot be decoded \(it is no PNG, JPEG or DICOM"
    ):
        folder.sample(mine / "labels.csv", 32)
