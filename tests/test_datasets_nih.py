import gzip
import pickle
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrlib.datasets import images, nih
from cxrlib.findings import finding_index

NEW = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)
TABLE, BOXES = "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"
TRAIN, TEST = "train_val_list.txt", "test_list.txt"
NAMES = [f"{patient:08}_{visit:03}.png" for patient in range(1, 13) for visit in range(2)]
"""Twelve patients of two images; the last four images, of patients 11 and 12, are the test set."""
LABELS = ["No Finding", "Mass|Nodule", "Infiltration"]
FILES = {
    TABLE: NEW
    + "".join(
        f"{name},{LABELS[row % 3]},{row % 2},{row // 2 + 1},57,M,PA,2682,2749,0.14,0.14\n"
        for row, name in enumerate(NAMES)
    ),
    TRAIN: "\n".join(NAMES[:-4]),  # the official lists end without a newline
    TEST: "\n".join(NAMES[-4:]) + "\n",
    BOXES: "Image Index,Finding Label,Bbox x,Bbox y,Bbox w,Bbox h\n"
    f"{NAMES[-4]},Infiltrate,256,512,128.5,64\n{NAMES[-1]},Mass,0,0,1024,1024\n",
}


def write_tables(folder):
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def edit(folder, name, old, new):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def pixels(side=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


@pytest.fixture
def tables(tmp_path):
    return write_tables(tmp_path)


@pytest.fixture
def folder(tables):
    (tables / "images").mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(pixels(seed=seed)).save(tables / "images" / name)
    return tables


def test_read_tables(tables):
    found = nih.read_tables(str(tables))
    assert found.path == tables / TABLE
    assert [*found.images.columns] == ["image_id", "patient_id", "split", "view"]
    assert found.images["image_id"].tolist() == [name.removesuffix(".png") for name in NAMES]
    assert found.images["patient_id"].tolist() == [str(row // 2 + 1) for row in range(24)]
    assert found.images["split"].tolist() == ["train_val"] * 20 + ["test"] * 4
    assert found.labels.dtype == np.float32
    assert np.flatnonzero(found.labels[1]).tolist() == [4, 5]
    assert found.boxes.to_numpy().tolist() == [
        ["00000011_000", finding_index("Infiltration"), 0.25, 0.5, 384.5 / 1024, 0.5625],
        ["00000012_001", finding_index("Mass"), 0, 0, 1, 1],
    ]


def test_views_are_those_of_the_table(folder):
    edit(
        folder,
        TABLE,
        f"{NAMES[-1]},Infiltration,1,12,57,M,PA",
        f"{NAMES[-1]},Infiltration,1,12,57,M,AP",
    )
    edit(
        folder,
        TABLE,
        f"{NAMES[-2]},Mass|Nodule,0,12,57,M,PA",
        f"{NAMES[-2]},Mass|Nodule,0,12,57,M,",
    )
    assert nih.load(folder, 32).test.views.tolist() == ["PA", "PA", "", "AP"]
    edit(folder, TABLE, "View Position", "Of no use")
    assert set(nih.load(folder, 32).train.views) == {""}


def append(path, line):
    path.write_text(path.read_text().rstrip() + f"\n{line}\n")


def test_images_of_absent_archives_are_left_out_and_counted(folder):
    """Archive 12 starts with 00028173_003; a part of an archive is damage, not absence."""
    whole = nih.load(folder, 32)
    for name, listed in (("00028173_003.png", TRAIN), ("00030000_000.png", TEST)):
        append(folder / TABLE, f"{name},Mass,0,{int(name[:8])},57,M,PA")
        append(folder / listed, name)
    append(folder / BOXES, "00030000_000.png,Mass,1,1,100,100")
    with pytest.raises(OSError, match=r"2 of \d+ images cannot be used: 00028173_003 has no"):
        nih.load(folder, 32)
    (folder / "images_001").mkdir()
    (folder / "images").rename(folder / "images_001" / "images")
    some = nih.load(folder, 32)
    assert some.notes == (*whole.notes, "only archives 1 of 12 are there: 2 images left out")
    assert some.split_hash == whole.split_hash
    assert len(some.test.boxes) == len(whole.test.boxes)
    (folder / "images_001" / "images" / NAMES[0]).unlink()
    with pytest.raises(OSError, match=f"1 of 2. images cannot be used: {NAMES[0][:-4]} has no"):
        nih.load(folder, 32)


def use_older_headers(folder):
    new = (folder / TABLE).read_text().splitlines()
    (folder / TABLE).unlink()
    (folder / "Data_Entry_2017.csv").write_text("".join(f"{line},\n" for line in new))
    _, *rows = (folder / BOXES).read_text().splitlines()
    rows = [f"{row},,,\n" for row in rows]
    (folder / BOXES).write_text(f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{''.join(rows)}")


def use_the_older_box_header_alone(folder):
    (folder / BOXES).write_text(
        FILES[BOXES].replace("Bbox x,Bbox y,Bbox w,Bbox h", "Bbox [x,y,w,h],,,")
    )


def compress(folder):
    for name in FILES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()


def save_as_spreadsheets_do(folder):
    for name in FILES:
        text = (folder / name).read_text().replace("\n", "\r\n")
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode())


def list_other_suffixes(folder):
    for name in (TRAIN, TEST):
        (folder / name).write_text(FILES[name].replace(".png", ".jpg"))


@pytest.mark.parametrize(
    "change",
    [
        use_older_headers,
        use_the_older_box_header_alone,
        compress,
        save_as_spreadsheets_do,
        list_other_suffixes,
    ],
)
def test_every_spelling_reads_the_same(tables, change):
    before = nih.read_tables(tables)
    change(tables)
    after = nih.read_tables(tables)
    pd.testing.assert_frame_equal(before.images, after.images)
    pd.testing.assert_frame_equal(before.boxes, after.boxes)
    assert (before.labels == after.labels).all()


@pytest.mark.parametrize("row", ["-0.9,-0.9,10,10", "1000,1000,24.9,24.9"])
def test_a_box_may_stand_out_by_less_than_a_pixel(tables, row):
    edit(tables, BOXES, "0,0,1024,1024", row)
    corners = nih.read_tables(tables).boxes[["x0", "y0", "x1", "y1"]].to_numpy()
    assert (corners >= 0).all()
    assert (corners <= 1).all()


HOME = "restore it from https://nihcc.app.box.com/v/ChestXray-NIHCC"
BAD_TABLES = [
    (
        TABLE,
        "Finding Labels",
        "Labels",
        r"lacks \['Finding Labels'\]; it has \['Image Index', 'L",
        HOME,
    ),
    (TABLE, "Patient ID", "Patient", r"lacks \['Patient ID'\]", HOME),
    (BOXES, "Bbox y", "y0", r"lacks \['y'\]; it has ", HOME),
    (
        TABLE,
        "Mass|Nodule",
        "Mass|Noduel",
        r"1 row\(s\) with an unknown label \('Noduel' is not a finding; did you mean 'Nodule'\?"
        r".*\): row 3 \(00000001_001\)",
        "correct the label",
    ),
    (TABLE, ",Mass|Nodule,", ",,", r"no 'Finding Labels': row 3 \(00000001_001.png\)", HOME),
    (TABLE, ",0,1,57", ",0,,57", r"no 'Patient ID': row 2 \(00000001_000.png\)", HOME),
    (
        TABLE,
        NAMES[1],
        NAMES[0],
        r"an image that already has a row: row 3 \(00000001_000\)",
        "delete one row",
    ),
    (
        TRAIN,
        NAMES[1],
        "00000099_000.png",
        rf"an image without a row in .*{TABLE}: row 2 \(00000099_000\)",
        "add its row, or delete it here",
    ),
    (
        TEST,
        NAMES[-4],
        NAMES[0],
        rf"an image that is also in .*{TRAIN}: row 1 \(00000001_000\)",
        "delete it from one list",
    ),
    (
        BOXES,
        "Infiltrate",
        "Infiltrates",
        r"unknown label \('Infiltrates' .* row 2",
        "correct the l",
    ),
    (BOXES, "Infiltrate", "No Finding", r"unknown label \('No Finding' .* row 2", "correct the l"),
    (BOXES, NAMES[-1], "0_0.png", rf"without a row in .*{TABLE}: row 3 \(0_0\)", "delete them"),
    (BOXES, "256,512,128.5,64", "256,,128,64", r"no 'y': row 2", HOME),
    (BOXES, "256,512,128.5,64", "256,512", r"no 'w': row 2", HOME),
    *(
        (
            BOXES,
            "256,512,128.5,64",
            row,
            r"a box outside the 1024 px frame.*: row 2 \(0+11_000\)",
            HOME,
        )
        for row in (
            "-2,512,128,64",
            "256,-2,128,64",
            "256,512,0,64",
            "256,512,128,-4",
            "256,512,770,64",
            "256,1000,128,26",
            "nan,512,128,64",
            "256,512,inf,64",
            "256,512,wide,64",
        )
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "flaw", "mend"), BAD_TABLES)
def test_a_wrong_table_is_named_with_its_row_and_mend(tables, name, old, new, flaw, mend):
    edit(tables, name, old, new)
    with pytest.raises(ValueError, match=f"^{re.escape(str(tables / name))}.*{flaw}.*; {mend}"):
        nih.read_tables(tables)


def test_a_row_in_neither_list_is_named(tables):
    edit(tables, TRAIN, NAMES[3] + "\n", "")
    neither = (
        rf"{TABLE}: 1 row\(s\) with an image in neither {TRAIN} nor {TEST}: row 5 \(00000002_001"
    )
    with pytest.raises(ValueError, match=neither):
        nih.read_tables(tables)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_layout(tables, name):
    (tables / name).unlink()
    stem = name.split("_v2020")[0].split(".")[0]
    with pytest.raises(FileNotFoundError, match=rf"{tables} holds no {stem}.* expected a folder w"):
        nih.read_tables(tables)


@pytest.mark.parametrize("name", [TABLE, BOXES])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00binary"])
def test_an_unreadable_table_is_named(tables, name, content):
    (tables / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read \(.*\); {HOME}"):
        nih.read_tables(tables)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_download_is_named(tables, name):
    compress(tables)
    path = tables / f"{name}.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf"{name}.gz cannot be read \(.*\); {HOME}"):
        nih.read_tables(tables)


def test_two_tables_are_refused(tables):
    shutil.copy(tables / TABLE, tables / "Data_Entry_2017.csv")
    with pytest.raises(ValueError, match=rf"2 files .*: Data_Entry_2017.csv, {TABLE}; keep one"):
        nih.read_tables(tables)


def test_data_dir_must_be_a_folder(tables):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; expected .*nihcc\.app"):
        nih.load(tables / "nowhere", 64)
    with pytest.raises(
        NotADirectoryError, match=f"{TEST} is a file; expected a folder with Data_E"
    ):
        nih.load(tables / TEST, 64)


def test_load(folder):
    split = nih.load(folder, 32)
    assert [len(part) for part in (split.train, split.val, split.test)] == [18, 2, 4]
    assert split.notes == ("official lists; val is 10% of the train_val patients, seed 0",)
    sample = split.test[0]
    assert sample.image.shape == (1, 32, 32)
    assert (sample.image_id, sample.patient_id) == ("00000011_000", "11")
    assert sample.boxes.tolist() == [[8, 16, 384.5 / 32, 18]]
    assert sample.box_findings.tolist() == [finding_index("Infiltration")]
    expected = Image.fromarray(pixels(seed=20)).resize((32, 32), Image.Resampling.BILINEAR)
    assert (sample.image[0] * 255).round().to(torch.uint8).tolist() == np.asarray(expected).tolist()
    assert pickle.loads(pickle.dumps(split.train))[0].image.shape == (1, 32, 32)


def test_load_is_determined_by_its_seed(folder):
    one, same, other = (nih.load(folder, 32, seed=seed) for seed in (3, 3, 4))
    assert one.split_hash == same.split_hash
    assert one.data_hash == same.data_hash == other.data_hash
    assert one.split_hash != other.split_hash
    assert one.train.image_ids.tolist() == same.train.image_ids.tolist()
    assert other.test.image_ids.tolist() == one.test.image_ids.tolist()


def test_data_hash_covers_labels_boxes_and_file_sizes(folder):
    hashes = {nih.load(folder, 32).data_hash}
    edit(folder, TABLE, "Mass|Nodule", "Mass")
    hashes.add(nih.load(folder, 32).data_hash)
    edit(folder, BOXES, "128.5", "128")
    hashes.add(nih.load(folder, 32).data_hash)
    Image.fromarray(pixels(50)).save(folder / "images" / NAMES[0])
    hashes.add(nih.load(folder, 32).data_hash)
    assert len(hashes) == 4


def test_limit_train_keeps_patients_together_and_is_nested(folder):
    small, large = (nih.load(folder, 32, val_fraction=0.5, limit_train=n) for n in (6, 8))
    assert [len(part) for part in (small.train, small.val, small.test)] == [6, 1, 4]
    assert len(set(small.train.patient_ids)) == 3
    assert set(small.train.image_ids) < set(large.train.image_ids)
    assert small.notes[-1] == "limit_train 6: 6 train, 1 val images"
    assert len(nih.load(folder, 32, limit_train=1000).train) == 18


def test_the_cache_changes_no_sample_and_is_shared_by_all_limits(folder, tmp_path, monkeypatch):
    place = tmp_path / "cache"
    monkeypatch.setenv("CXRLIB_CACHE", str(place))
    direct = nih.load(folder, 32, cache=False)
    assert not place.exists()
    nih.load(folder, 32, limit_train=4)
    cached = nih.load(folder, 32)
    monkeypatch.setattr(images, "read_pixels", None)
    assert len(nih.load(folder, 32, limit_train=8).train) == 8
    monkeypatch.undo()
    assert len([*place.iterdir()]) == 1
    assert (cached.data_hash, cached.split_hash) == (direct.data_hash, direct.split_hash)
    for part, plain in ((cached.train, direct.train), (cached.test, direct.test)):
        for index in range(len(part)):
            assert torch.equal(part[index].image, plain[index].image)
            assert torch.equal(part[index].boxes, plain[index].boxes)


def test_only_the_images_in_use_must_exist(folder):
    used = nih.load(folder, 32, limit_train=4)
    keep = {*used.train.image_ids, *used.val.image_ids, *used.test.image_ids}
    for path in (folder / "images").iterdir():
        path.unlink() if path.stem not in keep else None
    assert nih.load(folder, 32, limit_train=4).data_hash == used.data_hash


def test_boxed_patients_are_left_out_of_train_and_val(folder):
    edit(folder, BOXES, NAMES[-1], NAMES[0])
    split = nih.load(folder, 32)
    assert not {"1"} & {*split.train.patient_ids, *split.val.patient_ids}
    assert "2 train_val images left out because their patients have boxes" in split.notes
    assert len(split.test.boxes) == 1


def test_a_patient_in_both_lists_is_refused(folder):
    edit(folder, TEST, "\n", f"\n{NAMES[0]}\n")
    edit(folder, TRAIN, f"{NAMES[0]}\n", "")
    with pytest.raises(ValueError, match=r"1 patients are in both .* 'test', such as 1; split by"):
        nih.load(folder, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 31}, "image_size is 31; give 32 to 1024 pixels"),
        ({"image_size": 1025}, "image_size is 1025; give 32 to 1024 pixels"),
        ({"val_fraction": 0.0}, "val_fraction is 0.0; give a share between 0 and 1"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0; give a share between 0 and 1"),
        ({"val_fraction": float("nan")}, "val_fraction is nan; give a share"),
        ({"limit_train": 0}, "limit_train is 0; give a number of images, or None for all"),
        ({"val_fraction": 0.01}, rf"left for 'val': .*{TRAIN} lists too few .*change val_fraction"),
        ({"val_fraction": 0.99}, rf"left for 'train': .*{TRAIN} lists too few .*change val_fract"),
    ],
)
def test_arguments_out_of_range(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        nih.load(folder, **{"image_size": 32, **arguments})


def test_an_empty_list_is_an_empty_part(folder):
    (folder / TRAIN).write_text("\n".join(NAMES))
    (folder / TEST).write_text("")
    with pytest.raises(ValueError, match=rf"no image is left for 'test': .*{TEST} lists too few"):
        nih.load(folder, 32)


def test_images_are_found_in_the_official_folders(folder):
    before = nih.load(folder, 32)
    for row, name in enumerate(NAMES):
        place = folder / f"images_{row % 12 + 1:03}" / "images"
        place.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).rename(place / name.replace(".png", ".PNG"))
    (place / "._00000001_000.png").write_bytes(b"left by macOS")
    assert nih.load(folder, 32).data_hash == before.data_hash


def test_an_image_found_twice_is_refused(folder):
    Image.fromarray(pixels()).save(folder / "images" / "00000001_000.jpg")
    with pytest.raises(ValueError, match=r"00000001_000\.\w+ and .*000\.\w+ are one image; delete"):
        nih.load(folder, 32)


def test_png_and_jpeg_of_any_size_share_the_frame_of_the_boxes(folder):
    large = Image.fromarray(pixels(8)).resize((1024, 1024), Image.Resampling.BICUBIC)
    large.save(folder / "images" / NAMES[-4])
    png = nih.load(folder, 64).test[0]
    (folder / "images" / NAMES[-4]).unlink()
    large.resize((512, 512)).save(folder / "images" / "00000011_000.jpg", quality=95)
    jpeg = nih.load(folder, 64).test[0]
    assert png.boxes.tolist() == jpeg.boxes.tolist() == [[16, 32, 384.5 / 16, 36]]
    torch.testing.assert_close(png.image, jpeg.image, atol=0.03, rtol=0)


DAMAGES = {
    "has no PNG, JPEG or DICOM file": [None],
    "is empty": [lambda whole: b""],
    "is neither PNG, JPEG nor DICOM": [lambda whole: b"<html>" + whole],
    "is truncated": [lambda whole: whole[:-20], lambda whole: whole[:-20] + bytes(5000)],
}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    ("flaw", "damage"), [(flaw, damage) for flaw, each in DAMAGES.items() for damage in each]
)
def test_bad_image_files_are_refused_before_training(folder, flaw, damage, suffix):
    for name in NAMES[-3:]:
        path = folder / "images" / name
        with Image.open(path) as image:
            image.load()
        path.unlink()
        if damage is not None:
            path = path.with_suffix(suffix)
            image.save(path)
            path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(OSError, match=r"^3 of 24 images cannot be used: ") as caught:
        nih.load(folder, 32)
    message = str(caught.value)
    assert message.count(flaw) == 3
    assert "00000012_001" in message
    assert f"delete its row from {folder / TABLE}" in message
    assert "restore it from https://nihcc.app.box.com" in message


def test_many_bad_files_make_one_short_message(folder):
    shutil.rmtree(folder / "images")
    with pytest.raises(OSError, match=r"24 of 24 images .*; and 19 more; restore") as caught:
        nih.load(folder, 32)
    assert str(caught.value).count("has no PNG") == 5


def test_a_folder_in_place_of_an_image_is_named(folder):
    (folder / "images" / NAMES[0]).unlink()
    (folder / "images" / NAMES[0]).mkdir()
    with pytest.raises(OSError, match=rf"{NAMES[0]} cannot be read \("):
        nih.load(folder, 32)


def test_padding_after_a_jpeg_is_no_damage(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels()).save(path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(100))
    found = images.verify(["a"], {"a": str(path)}, "mend")
    assert found.image_ids.tolist() == ["a"]
    assert found.sizes.tolist() == [size + 100]
    assert found.mtimes.tolist() == [path.stat().st_mtime_ns]
    assert [len(column) for column in images.verify([], {}, "mend")] == [0, 0, 0]


def test_a_file_damaged_inside_is_named_when_decoded(folder):
    path = folder / "images" / NAMES[-1]
    content = bytearray(path.read_bytes())
    content[60:-20] = bytes(len(content) - 80)
    path.write_bytes(content)
    test = nih.load(folder, 32, cache=False).test
    mend = rf"{NAMES[-1]} cannot be decoded \(.*\); {HOME}, or delete its row"
    with pytest.raises(OSError, match=mend):
        test[3]
    with pytest.raises(OSError, match=mend):
        nih.load(folder, 32)


def test_an_oblong_image_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels()[:30]).save(path)
    with pytest.raises(ValueError, match=r"a\.png is 40 x 30 px, .*square frame; .*, or resize it"):
        images.read_pixels(path, 32)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_every_kind_of_8_bit_png_is_the_same_grey(tmp_path, mode):
    grey = Image.fromarray(pixels())
    grey.convert(mode).save(tmp_path / "a.png")
    found = images.read_pixels(tmp_path / "a.png", 40)
    assert found.dtype == np.uint8
    assert (found == pixels()).all()


def test_transparency_is_ignored(tmp_path):
    image = Image.fromarray(pixels()).convert("RGBA")
    image.putalpha(7)
    image.save(tmp_path / "a.png")
    assert (images.read_pixels(tmp_path / "a.png", 40) == pixels()).all()


def test_16_bit_png_is_scaled_not_clipped(tmp_path):
    Image.fromarray(pixels().astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert (images.read_pixels(tmp_path / "a.png", 40) == pixels()).all()


def test_colour_jpeg(tmp_path):
    Image.fromarray(np.full((40, 40), 99, np.uint8)).convert("RGB").save(tmp_path / "a.jpeg")
    assert (images.read_pixels(tmp_path / "a.jpeg", 32) == 99).all()


def test_reducing_averages_every_pixel(tmp_path):
    checks = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "a.png")
    assert abs(images.read_pixels(tmp_path / "a.png", 64).astype(int) - 128).max() <= 1


def test_the_full_official_tables(shared):
    start = time.perf_counter()
    found = nih.read_tables(shared / "nih-metadata")
    assert time.perf_counter() - start < 5
    parts = found.images.groupby("split")["patient_id"].agg([len, "nunique", set])
    assert parts["len"].to_dict() == {"test": 25_596, "train_val": 86_524}
    assert parts["nunique"].to_dict() == {"test": 2_797, "train_val": 28_008}
    assert not parts["set"]["test"] & parts["set"]["train_val"]
    assert found.labels.shape == (112_120, 14)
    assert found.labels[:, finding_index("Hernia")].sum() == 227
    assert len(found.boxes) == 984
    assert found.images.set_index("image_id")["split"][found.boxes["image_id"]].eq("test").all()


def test_real_images(shared):
    split = nih.load(shared / "nih-mini", 64)
    assert (len(split.train) + len(split.val), len(split.test)) == (1_246, 814)
    assert len(split.test.boxes) == 601
    assert len(split.notes) == 1
    index = split.test.image_ids.tolist().index(split.test.boxes["image_id"][0])
    sample = split.test[index]
    assert sample.image.shape == (1, 64, 64)
    assert 0.05 < sample.image.std() < 0.5
    assert sample.labels[sample.box_findings].eq(1).all()
