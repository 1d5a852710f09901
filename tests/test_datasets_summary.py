import io
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.datasets import summary
from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split
from cxrlib.datasets.sheet import contact_sheet
from cxrlib.findings import FINDINGS, NO_FINDING

SIDE = 32
CYAN = (0, 229, 255)


def read_pixels(image_id: str) -> np.ndarray:
    """Every image is of one grey, which its name gives."""
    return np.full((SIDE, SIDE), int(image_id[-2:]), np.uint8)


def make(ids, patients, labels, boxes=(), views=None) -> CXRDataset:
    table = pd.DataFrame(list(boxes), columns=BOX_COLUMNS)
    return CXRDataset("toy", ids, patients, labels, table, SIDE, read_pixels, views=views)


def labels_of(*findings: str | None) -> np.ndarray:
    return np.array([[name == finding for name in FINDINGS] for finding in findings], np.float32)


def whole(test: CXRDataset) -> Split:
    """A split with this test part and one image without finding in each other part."""
    others = (make([f"{part}00"], [part], labels_of(None)) for part in ("train", "val"))
    return Split(*others, test, data_hash="0123", notes=("made here",))


def random_split(seed: int) -> Split:
    random = np.random.default_rng(seed)
    n, findings = int(random.integers(3, 60)), int(random.integers(1, 15))
    ids = np.array([f"i{index:03}" for index in range(n)])
    labels = random.choice([0, 0, 1, np.nan], (n, 14)) * np.where(
        np.arange(14) < findings, 1, np.nan
    )
    views = random.choice(["PA", "AP", ""], n)
    start = random.random((n // 2, 2)) / 2
    rows = np.column_stack([start, start + random.random((n // 2, 2)) / 2])
    boxes = [(random.choice(ids[-n // 3 :]), random.integers(14), *row) for row in rows.tolist()]
    data = make(ids, [f"p{index // 2}" for index in range(n)], labels, boxes, views)
    cut = sorted(random.integers(0, n - n // 3, 2))
    return Split(*map(data.subset, np.split(np.arange(n), cut)), data_hash="")


def plain_row(part: CXRDataset, chosen: list[int], finding: int | None, boxed: bool) -> list:
    """Images, patients, boxes, boxed images, boxed patients and median box, by plain loops."""
    patient = dict(zip(part.image_ids, part.patient_ids, strict=True))
    row = [len(chosen), len({part.patient_ids[index] for index in chosen})]
    if not boxed:
        return [*row, None, None, None, None]
    found = [b for b in part.boxes.itertuples() if finding is None or b.finding == finding]
    areas = sorted((b.x1 - b.x0) * (b.y1 - b.y0) * 100 for b in found)
    names = {b.image_id for b in found}
    middle = (areas[(len(areas) - 1) // 2] + areas[len(areas) // 2]) / 2 if areas else None
    return [*row, len(found), len(names), len({patient[name] for name in names}), middle]


@pytest.mark.parametrize("seed", range(40))
def test_counts_are_those_of_plain_loops(seed):
    split = random_split(seed)
    table = summary.counts(split).set_index(["kind", "name", "part"])
    assert table.index.is_unique
    both = np.concatenate([part.labels for part in split.parts.values()])
    known = [f for f in range(14) if not np.isnan(both[:, f]).all()]
    for name, part in split.parts.items():
        every = range(len(part))
        expected = {("all", "all"): plain_row(part, [*every], None, True)}
        for index, finding in enumerate(FINDINGS):
            has = [i for i in every if part.labels[i, index] == 1]
            expected["finding", finding] = plain_row(part, has, index, True)
            unknown = sum(np.isnan(part.labels[i, index]) for i in every)
            assert table.loc[("finding", finding, name), "unknown"] == unknown
        none = [i for i in every if known and all(part.labels[i, f] == 0 for f in known)]
        expected["finding", NO_FINDING] = plain_row(part, none, None, False)
        unsure = [i for i in every if i not in none and not (part.labels[i] == 1).any()]
        assert table.loc[("finding", NO_FINDING, name), "unknown"] == len(unsure)
        for view in {v for p in split.parts.values() for v in p.views.tolist()}:
            seen = [i for i in every if part.views[i] == view]
            expected["view", view or "unknown"] = plain_row(part, seen, None, False)
        here = table.xs(name, level="part").drop(columns="unknown")
        assert set(here.index) == set(expected)
        for key, row in expected.items():
            found = [None if pd.isna(value) else value for value in here.loc[key]]
            assert found == pytest.approx(row), (name, key)


def test_counts_are_in_the_order_of_the_findings_and_of_how_frequent_views_are():
    test = make(["a01", "b02", "c03"], [*"123"], labels_of("Mass", None, None), (), ["AP", "", ""])
    table = summary.counts(whole(test))
    assert table["name"].tolist()[::3] == ["all", *FINDINGS, NO_FINDING, "unknown", "AP"]
    assert table["part"].tolist() == ["train", "val", "test"] * 18


def test_findings_without_any_label_do_not_hide_what_has_none():
    nothing = np.full(14, np.nan)
    mass, clear, unsure = nothing.copy(), nothing.copy(), nothing.copy()
    mass[[4, 5]], clear[[4, 5]], unsure[4] = 1, 0, 0
    test = make([*"abcd"], [*"1234"], [mass, clear, unsure, nothing])
    split = Split(test.subset([]), test.subset([]), test, data_hash="")
    assert summary.has_findings(split, test)[:, -1].tolist() == [False, True, False, False]
    empty = test.subset([3])
    assert not summary.has_findings(Split(empty, empty, empty, data_hash=""), empty).any()


def test_text():
    boxes = [("a01", 4, 0, 0, 0.5, 0.5), ("a01", 4, 0.5, 0.5, 0.6, 0.6), ("b02", 5, 0, 0, 1, 1)]
    labels = labels_of("Mass", "Nodule", None)
    labels[2, 0] = np.nan
    test = make(["a01", "b02", "c03"], ["1", "1", "2"], labels, boxes, ["PA", "AP", "PA"])
    split = whole(test)
    lines = summary.text(split).splitlines()
    assert lines[:6] == [
        "toy, images of 32 px",
        "train: 1 images of 1 patients",
        "val:   1 images of 1 patients",
        "test:  3 images of 2 patients",
        f"data 0123, split {split.split_hash}",
        "made here",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines[6:] if line}
    assert rows["finding"][:4] == ["train", "val", "test", "unknown"]
    assert rows["finding"][4:] == ["boxes", "boxed", "images", "median", "box"]
    assert rows["Mass"] == ["0", "0", "1", "0", "2", "1", "13.0", "%"]
    assert rows["Nodule"] == ["0", "0", "1", "0", "1", "1", "100.0", "%"]
    assert rows["Atelectasis"] == ["0", "0", "0", "1", "0", "0", "-"]
    assert rows["No"] == ["Finding", "1", "1", "0", "1", "-", "-", "-"]
    assert rows["PA"] == ["0", "0", "2"]
    assert rows["unknown"] == ["1", "1", "0"]
    assert max(map(len, lines)) <= 100


def test_counts_of_112120_images_take_no_time():
    random = np.random.default_rng(0)
    n = 112_120
    boxes = [(f"{index:08}", index % 14, 0.1, 0.1, 0.2, 0.2) for index in range(n - 5000, n)]
    data = make(
        [f"{index:08}" for index in range(n)],
        [str(index // 4) for index in range(n)],
        random.random((n, 14)) < 0.05,
        boxes,
        random.choice(["PA", "AP"], n),
    )
    split = Split(*map(data.subset, np.split(np.arange(n), [80_000, 90_000])), data_hash="")
    start = time.perf_counter()
    summary.counts(split)
    assert time.perf_counter() - start < 3


def drawn(split: Split) -> np.ndarray:
    file = io.BytesIO()
    contact_sheet(split).savefig(file)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def texts(split: Split) -> list[str]:
    return [text.get_text() for text in contact_sheet(split).axes[0].texts]


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = 72 + 318 * row + 44, 12 + 264 * column
    return sheet[top : top + 256, left : left + 256]


def cyan(pixels: np.ndarray) -> np.ndarray:
    return abs(pixels - CYAN).max(axis=-1) < 60


def test_contact_sheet_shows_one_image_of_each_patient_those_with_boxes_first():
    ids = ["a10", "b20", "c30", "d40"]
    boxes = [("c30", 4, 0.25, 0.5, 0.75, 0.875), ("c30", 5, 0.1, 0.1, 0.2, 0.2)]
    test = make(ids, [*"1123"], labels_of("Mass", "Mass", "Mass", None), boxes)
    sheet = drawn(whole(test))
    assert sheet.shape == (72 + 3 * 318 + 12, 1600, 3)
    greys = [
        cell(sheet, *place)[20, 20].tolist() for place in ((0, 0), (0, 1), (0, 2), (1, 1), (2, 0))
    ]
    assert greys == [[30] * 3, [10] * 3, [255] * 3, [255] * 3, [40] * 3]
    rows, columns = np.nonzero(cyan(cell(sheet, 0, 0)))
    assert abs(np.array([rows.min(), rows.max()]) - (128, 224)).max() <= 2
    assert abs(np.array([columns.min(), columns.max()]) - (64, 192)).max() <= 2
    assert not cyan(cell(sheet, 0, 0))[132:220, 68:188].any()
    nodule = cyan(cell(sheet, 1, 0))
    assert nodule[24:28, 24:53].any()
    assert cyan(sheet).sum() == len(rows) + nodule[:60, :60].sum()
    assert texts(whole(test)) == [
        "toy, test: 4 images of 3 patients",
        "Up to 6 patients of each finding, boxed images first; cyan: boxes of the finding",
        *("Mass: labelled images 3, patients 2, boxed images 1", "c30", "a10"),
        *("Nodule: labelled images 0, patients 0, boxed images 1", "c30"),
        *("No finding: labelled images 1, patients 1", "d40"),
    ]


def test_contact_sheet_shows_images_of_256_px_pixel_by_pixel():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    test = make(["a01"], ["1"], labels_of("Edema")).reading(lambda image_id: noise)
    assert (cell(drawn(whole(test)), 0, 0) == noise[..., None]).all()


def test_contact_sheet_has_at_most_six_images_in_a_row():
    ids = [f"a{index:02}" for index in range(9)]
    test = make(ids, ids, labels_of(*["Pleural_Thickening"] * 9))
    assert texts(whole(test))[2:] == [
        "Pleural thickening: labelled images 9, patients 9, boxed images 0",
        *ids[:6],
    ]


def test_contact_sheet_shows_boxes_that_the_labels_do_not_know_of():
    test = make(["a01", "b02"], [*"12"], labels_of("Mass", "Mass"), [("b02", 5, 0, 0, 1, 1)])
    mass, nodule = texts(whole(test))[2:5], texts(whole(test))[5:]
    assert mass == ["Mass: labelled images 2, patients 2, boxed images 0", "a01", "b02"]
    assert nodule == ["Nodule: labelled images 0, patients 0, boxed images 1", "b02"]


def test_contact_sheet_where_no_label_is_known():
    test = make(["a01"], ["1"], np.full((1, 14), np.nan))
    assert drawn(Split(test, test, test, data_hash="")).shape == (72 + 12, 1600, 3)


def test_long_names_and_dollar_signs_are_shown_as_they_are():
    long, odd = f"train/{'x' * 60}/view01", "$a$_{02"
    test = make([long, odd], [*"12"], labels_of(None, None))
    names = texts(whole(test))[-2:]
    assert names == [f"…{long[-39:]}", odd]
    assert drawn(whole(test)).shape[1] == 1600
