import gzip
import re

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from cxrlib.datasets import vindr
from cxrlib.findings import FINDINGS, finding_index

COLUMNS = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
HEALTHY = [f"h{number:02}" for number in range(16)]


def line(image_id, name, reader, box=",,,"):
    return f"{image_id},{name},0,R{reader},{box}\n"


def unread(image_id, *readers):
    return "".join(line(image_id, "No finding", reader) for reader in readers)


KAGGLE = (
    COLUMNS
    + line("a", "Cardiomegaly", 1, "10,20,40,44")
    + line("a", "Cardiomegaly", 2, "12,20,40,44")
    + line("a", "Pleural effusion", 2, "0,0,64.0,48")
    + unread("a", 3)
    + line("b", "Nodule/Mass", 1, "1,2,3,4")
    + line("b", "Nodule/Mass", 1, "5,6,7,8")
    + line("b", "Other lesion", 2, "1,2,3,4")
    + unread("b", 3)
    + line("c", "Aortic enlargement", 1, "1,2,3,4")
    + unread("c", 2, 3)
    + "".join(unread(name, 1, 2, 3) for name in HEALTHY)
)
CLASSES = [*vindr.OTHERS[:11], *vindr.OTHERS[12:], *vindr.OURS, vindr.EITHER, vindr.NO_FINDING]
"""The 28 columns of an image table, which has one of the two spellings of other diseases."""


@pytest.fixture
def kaggle(tmp_path):
    (tmp_path / "train.csv").write_text(KAGGLE)
    return tmp_path


def image_row(image_id, reader, *names):
    values = ",".join(str(int(name in names)) for name in CLASSES)
    return f"{image_id},{reader}{values}\n"


@pytest.fixture
def physionet(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    train = "image_id,rad_id," + ",".join(CLASSES) + "\n"
    train += image_row("a", "R1,", "Pneumonia", "Edema") + image_row("a", "R2,", "Pneumonia")
    train += image_row("a", "R3,", "No finding")
    for name in HEALTHY:
        train += "".join(image_row(name, f"R{reader},", "No finding") for reader in (4, 5, 6))
    (folder / "image_labels_train.csv").write_text(train)
    test = "image_id," + ",".join(CLASSES) + "\n"
    test += image_row("t", "", "Pulmonary fibrosis", "Nodule/Mass", "Tuberculosis")
    test += image_row("u", "", "No finding")
    (folder / "image_labels_test.csv").write_text(test)
    (folder / "annotations_test.csv").write_text(
        "image_id,class_name,x_min,y_min,x_max,y_max\nt,Pulmonary fibrosis,8.5,0,32,24\n"
        "t,Nodule/Mass,1,2,3,4\nt,Emphysema,1,2,3,4\nu,No finding,,,,\n"
    )
    return tmp_path


def write_dicom(path, height=48, width=64, grey=90):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns, data.SamplesPerPixel = height, width, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    pixels = np.full((height, width), grey, np.uint8)
    pixels[: height // 2] = 0
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "train").mkdir()
    for name in ["a", "b", "c", *HEALTHY]:
        write_dicom(tmp_path / "train" / f"{name}.dicom")
    return tmp_path


@pytest.fixture
def test_images(images):
    (images / "test").mkdir()
    write_dicom(images / "test" / "t.dcm")
    Image.new("L", (40, 60), 50).save(images / "test" / "u.png")
    return images


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def labels_of(tables, image_id):
    row = tables.images["image_id"].tolist().index(image_id)
    return dict(zip(FINDINGS, tables.labels[row].tolist(), strict=True))


def unknown(labels):
    return {name for name, value in labels.items() if np.isnan(value)}


NO_CLASS = {"Edema", "Emphysema", "Pneumonia", "Hernia"}
CORNERS = ["x0", "y0", "x1", "y1"]


def test_vinbigdata_union(kaggle):
    found = vindr.read_tables(str(kaggle))
    assert sorted(found.images["image_id"]) == ["a", "b", "c", *HEALTHY]
    assert set(found.images["split"]) == {""}
    assert found.labels.dtype == np.float32
    a, b, c = (labels_of(found, name) for name in "abc")
    assert (a["Cardiomegaly"], a["Effusion"], a["Mass"], a["Atelectasis"]) == (1, 1, 0, 0)
    assert unknown(a) == unknown(c) == NO_CLASS
    assert unknown(b) == NO_CLASS | {"Mass", "Nodule"}
    assert set(labels_of(found, "h00").values()) == {0}
    assert found.boxes[CORNERS].to_numpy().tolist() == [
        [10, 20, 40, 44],
        [12, 20, 40, 44],
        [0, 0, 64, 48],
    ]
    assert found.boxes.index.tolist() == [2, 3, 4]
    assert [FINDINGS[index] for index in found.boxes["finding"]] == [
        "Cardiomegaly",
        "Cardiomegaly",
        "Effusion",
    ]
    assert found.unused == {"Nodule/Mass": 2, "Other lesion": 1, "Aortic enlargement": 1}


def test_vinbigdata_majority(kaggle):
    found = vindr.read_tables(kaggle, "majority")
    a, b, c = (labels_of(found, name) for name in "abc")
    assert (a["Cardiomegaly"], a["Effusion"]) == (1, 0)
    assert unknown(a) == NO_CLASS
    assert (b["Mass"], b["Nodule"]) == (0, 0)  # one reader's two boxes are one opinion
    assert unknown(b) == NO_CLASS
    assert set(c.values()) == {0}  # two of three saw nothing
    assert found.boxes.index.tolist() == [2, 3]
    assert found.unused["findings too few readers marked"] == 1


def test_physionet(physionet):
    found = vindr.read_tables(physionet)
    assert found.images["split"].value_counts().to_dict() == {"train": 17, "test": 2}
    a, t = labels_of(found, "a"), labels_of(found, "t")
    assert (a["Pneumonia"], a["Edema"], a["Emphysema"]) == (1, 1, 0)
    assert unknown(a) == {"Hernia"}
    assert (t["Fibrosis"], t["Pneumonia"]) == (1, 0)
    assert unknown(t) == {"Mass", "Nodule", "Hernia"}
    assert set(labels_of(found, "u").values()) == set(labels_of(found, "h03").values()) == {0}
    assert found.boxes.to_numpy().tolist() == [["t", finding_index("Fibrosis"), 8.5, 0, 32, 24]]
    assert found.unused == {"Nodule/Mass": 1, "findings too few readers marked": 1}
    fewer = labels_of(vindr.read_tables(physionet, "majority"), "a")
    assert (fewer["Pneumonia"], fewer["Edema"]) == (1, 0)


@pytest.mark.parametrize("layout", ["kaggle", "physionet"])
def test_marks_of_spreadsheets_and_gzip_change_nothing(request, layout):
    folder = request.getfixturevalue(layout)
    before = vindr.read_tables(folder)
    for path in [*folder.rglob("*.csv")]:
        text = b"\xef\xbb\xbf" + path.read_text().replace("\n", "\r\n").encode()
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text))
        path.unlink()
    after = vindr.read_tables(folder)
    assert before.images.equals(after.images)
    assert before.boxes.equals(after.boxes)
    np.testing.assert_array_equal(before.labels, after.labels)


HOME = "restore it from https://physionet.org"
BOX = "10,20,40,44"


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        ("rad_id", "reader", rf"lacks \['rad_id'\]; it has .*; {HOME}"),
        ("x_min", "x", rf"lacks \['x_min'\]; {HOME}"),
        ("Cardiomegaly", "Cardiomegally", r"unknown label \('Cardiomegally' .*: row 2 \(a\); corr"),
        (BOX, "-1,20,40,44", rf"a negative corner of a box: row 2 \(a\); {HOME}"),
        (BOX, "10,20,,44", rf"a box that is no number: row 2 \(a\); {HOME}"),
        (BOX, "10,20,nan,44", r"a box that is no number: row 2 \(a\)"),
        (BOX, "10,20,inf,44", r"a box that is no number: row 2 \(a\)"),
        (BOX, "40,20,10,44", rf"an empty or inverted box: row 2 \(a\); {HOME}"),
        (BOX, "10,20,40,20", r"an empty or inverted box: row 2 \(a\)"),
        ("Other lesion,0,R2,1,2,3,4", "Other lesion,0,R2,1,2,1,4", r"inverted box: row 8 \(b\)"),
        (unread("a", 3), "", r"an image without 3 readers: row 2 \(a\).*; " + HOME),
        (unread("a", 3), unread("a", 3, 4), r"an image without 3 readers: row 2 \(a\)"),
        (unread("a", 3), unread("a", 3, 1), r"a reader who marks a finding and none: row 2 \(a\)"),
    ],
)
def test_a_wrong_table_is_named_with_its_row_and_mend(kaggle, old, new, flaw):
    edit(kaggle / "train.csv", old, new)
    with pytest.raises(ValueError, match=f"^{re.escape(str(kaggle / 'train.csv'))}.*{flaw}"):
        vindr.read_tables(kaggle)


@pytest.mark.parametrize(
    ("name", "old", "new", "flaw"),
    [
        ("image_labels_train.csv", "Pneumonia", "pneumonia", rf"lacks \['Pneumonia'\].*; {HOME}"),
        ("image_labels_train.csv", "a,R1,0", "a,R1,2", "TOKEN"),
        ("image_labels_train.csv", "a,R2", "a,R1", r"already has a row: row 3 \(a\); delete one"),
        ("image_labels_train.csv", "a,R2", "z,R2", r"not 3 readers: row 2 \(a\).*; " + HOME),
        ("image_labels_test.csv", "u,", "t,", r"already has a row: row 3 \(t\); delete one row"),
        ("image_labels_test.csv", "u,", "a,", r"of the training part: row 3 \(a\); delete it"),
        ("annotations_test.csv", "t,Emph", "x,Emph", r"image_labels_test.csv lacks: row 4 \(x\)"),
        ("annotations_test.csv", "Emphysema", "Emphysem", r"unknown label .*: row 4 \(t\)"),
        ("annotations_test.csv", "8.5,0,32", "8.5,-1,32", r"a negative corner .* row 2 \(t\)"),
    ],
)
def test_a_wrong_table_of_physionet(physionet, name, old, new, flaw):
    path = physionet / "annotations" / name
    if flaw == "TOKEN":  # the columns are many: put a 2 under Pneumonia
        row = image_row("a", "R1,", "Pneumonia", "Edema")
        old, new, flaw = row, row.replace(",1", ",2"), rf"not 0 or 1: row 2 \(a\); {HOME}"
    edit(path, old, new)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*{flaw}"):
        vindr.read_tables(physionet)


def test_a_missing_table_is_named_with_the_layout(tmp_path, physionet):
    (physionet / "annotations" / "annotations_test.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no annotations_test.csv.*; expected a fo"):
        vindr.read_tables(physionet)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"holds no train.csv or .*as VinBigData has it; get"
    ):
        vindr.read_tables(tmp_path / "empty")


def seed_with(folder, image_id, part):
    """A seed that puts an image into a part, and its split."""
    for seed in range(100):
        split = vindr.load(folder, 32, seed=seed)
        if image_id in getattr(split, part).image_ids:
            return seed, split
    raise AssertionError(f"no seed puts {image_id} into {part}")


def test_load_vinbigdata(kaggle, images):
    seed, split = seed_with(kaggle, "a", "test")
    assert [len(part) for part in (split.train, split.val, split.test)] == [13, 2, 4]
    assert split.notes == (
        f"test is 20% of the images, seed {seed}; val is 10% of the other images, seed {seed}",
        "no patients are published: each image counts as a patient of its own",
        "boxes not used: 1 of Aortic enlargement, 2 of Nodule/Mass, 1 of Other lesion, "
        "0 of findings in train and val",
    )
    sample = split.test[split.test.image_ids.tolist().index("a")]  # 8 black rows above
    assert sample.boxes.tolist() == [[5, 14, 20, 26], [6, 14, 20, 26], [0, 4, 32, 28]]
    assert sample.image[0, 17:27].min() == sample.image.max() > 0.1
    assert sample.image[0, :15].max() == 0
    assert sample.patient_id == "a"
    again = vindr.load(kaggle, 32, seed=seed)
    assert (again.split_hash, again.data_hash) == (split.split_hash, split.data_hash)
    assert vindr.load(kaggle, 32, seed=seed, readers="majority").data_hash != split.data_hash


def test_boxes_of_training_images_are_not_used(kaggle, images):
    _, split = seed_with(kaggle, "a", "train")
    assert not len(split.test.boxes) + len(split.train.boxes) + len(split.val.boxes)
    assert split.notes[-1].endswith(", 3 of findings in train and val")


def test_load_physionet(physionet, test_images):
    split = vindr.load(physionet, 32)
    assert [len(part) for part in (split.train, split.val, split.test)] == [15, 2, 2]
    assert split.notes[0] == "test is the official one; val is 10% of the other images, seed 0"
    assert split.test.image_ids.tolist() == ["t", "u"]
    assert split.test[0].boxes.tolist() == [[4.25, 4, 16, 16]]
    assert split.test[1].boxes.shape == (0, 4)


def test_a_box_outside_its_image_is_named(physionet, test_images):
    edit(physionet / "annotations" / "annotations_test.csv", "8.5,0,32,24", "8.5,0,66,24")
    with pytest.raises(
        ValueError, match=r"annotations_test.csv: .* a box outside its image: row 2 \(t\); restore"
    ):
        vindr.load(physionet, 32)


def test_absent_and_damaged_images_are_named(physionet, test_images):
    (physionet / "train" / "a.dicom").write_bytes(b"")
    with pytest.raises(OSError, match=r"^1 of 19 images cannot be used: .*a.dicom is empty; rest"):
        vindr.load(physionet, 32)
    (physionet / "test" / "t.dcm").unlink()
    with pytest.raises(
        OSError, match=r"^1 of 1 images .*: t has no PNG.*; restore .* delete its r"
    ):
        vindr.load(physionet, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 2048}, "image_size is 2048; give 32 to 1024 pixels"),
        ({"val_fraction": float("nan")}, "val_fraction is nan; give a share between 0 and 1"),
        ({"val_fraction": 0.01}, "no image is left for 'val' .*; add .*, or change val_frac"),
        ({"readers": "all"}, "readers is 'all'; give one of union, majority"),
    ],
)
def test_arguments_out_of_range(kaggle, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        vindr.load(kaggle, **{"image_size": 32, **arguments})


@pytest.mark.parametrize(
    ("readers", "boxes", "positive", "unknown_masses"),
    [
        ("union", 19_708, [186, 2_300, 1_032, 613, 96, 353, 1_617, 1_981], 826),
        ("majority", 15_619, [62, 1_817, 634, 245, 58, 121, 1_017, 882], 405),
    ],
)
def test_the_full_vinbigdata_table(shared, tmp_path, readers, boxes, positive, unknown_masses):
    source = shared / "nih-metadata" / "vinbigdata-train.csv.gz"
    (tmp_path / "train.csv.gz").symlink_to(source)
    found = vindr.read_tables(tmp_path, readers)
    assert found.labels.shape == (15_000, 14)
    assert len(found.boxes) == boxes
    assert len(found.boxes) + sum(found.unused.values()) == 36_096
    counts = [
        int((found.labels[:, index] == 1).sum())
        for index, name in enumerate(FINDINGS)
        if name not in NO_CLASS | {"Mass", "Nodule"}
    ]
    assert counts == positive
    assert np.isnan(found.labels[:, finding_index("Mass")]).sum() == unknown_masses
    assert (np.nan_to_num(found.labels, nan=1) == 0).all(axis=1).sum() >= 10_606
