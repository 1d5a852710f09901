"""The predictions file: what is written is read, what is wrong is refused, rows find their ids."""

import io
import os
import re
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Truth
from cxrlib.findings import FINDINGS, canonical
from cxrlib.predictions import SCHEMA, Predictions

PAGE = Path(__file__).parents[1] / "book" / "predictions.md"
SPELLINGS = (*FINDINGS, "infiltrate", "Pleural Effusion", "pleural thickening", "HERNIA")
quick = settings(deadline=None, max_examples=30)


def arrays(images=4, mapped=2, grid=3, findings=("Mass", "Infiltrate"), seed=0) -> dict:
    """The arrays of a valid file."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"i{index:03d}" for index in rng.permutation(images)])
    return {
        "schema": 1,
        "findings": np.array(findings),
        "image_ids": ids,
        "scores": rng.random((images, len(findings))),
        "map_ids": rng.permutation(ids)[:mapped],
        "maps": rng.random((mapped, len(findings), grid, grid), np.float32),
        "frame": 32,
    }


def made(**changes) -> Predictions:
    """Predictions of the arrays of a valid file, some of them changed."""
    parts = {name: part for name, part in arrays().items() if name != "schema"} | changes
    return Predictions.from_arrays(parts.pop("image_ids"), parts.pop("scores"), **parts)


def stored(folder: Path, without: tuple[str, ...] = (), **changes) -> Path:
    """The file that numpy alone writes of those arrays."""
    path = folder / "p.npz"
    parts = {name: part for name, part in (arrays() | changes).items() if name not in without}
    np.savez_compressed(path, **parts)
    return path


def dataset(ids, boxed=()) -> CXRDataset:
    boxes = pd.DataFrame([(name, 4, 0.1, 0.1, 0.5, 0.5) for name in boxed], columns=BOX_COLUMNS)
    labels = np.zeros((len(ids), 14))
    return CXRDataset("case", np.array(ids), np.array(ids), labels, boxes, 32, np.zeros)


@st.composite
def cases(draw) -> dict:
    findings = draw(st.lists(st.sampled_from(SPELLINGS), min_size=1, unique_by=canonical))
    images = draw(st.integers(1, 6))
    shape = {"mapped": draw(st.integers(0, images)), "grid": draw(st.integers(1, 4))}
    return arrays(images, **shape, findings=findings, seed=draw(st.integers(0, 99)))


@quick
@given(case=cases(), dtype=st.sampled_from([np.float16, np.float32]))
def test_what_numpy_wrote_is_read_column_by_column(tmp_path_factory, case, dtype):
    path = stored(tmp_path_factory.mktemp("f"), **case | {"maps": case["maps"].astype(dtype)})
    read = Predictions.read(path)
    assert read.scores.shape == (len(case["image_ids"]), 14) and read.scores.dtype == np.float32
    assert read.maps.shape[:2] == (len(case["map_ids"]), 14) and read.maps.dtype == dtype
    columns = {canonical(name): index for index, name in enumerate(case["findings"])}
    for index, name in enumerate(FINDINGS):
        assert read.known[index] == (name in columns)
        if name in columns:
            expected = case["scores"][:, columns[name]].astype(np.float32)
            np.testing.assert_array_equal(read.scores[:, index], expected)
            np.testing.assert_array_equal(
                read.maps[:, index], case["maps"][:, columns[name]].astype(dtype)
            )
        else:
            assert np.isnan(read.scores[:, index]).all() and np.isnan(read.maps[:, index]).all()


@quick
@given(case=cases())
def test_what_we_wrote_is_read_unchanged_and_has_no_nan(tmp_path_factory, case):
    folder = tmp_path_factory.mktemp("f")
    first = Predictions.read(stored(folder, **case))
    with open(folder / "again.npz", "wb") as file:
        first.write(file)
    again = Predictions.read(folder / "again.npz")
    for name in ("image_ids", "scores", "map_ids", "known"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    with np.load(folder / "again.npz", allow_pickle=False) as written:
        assert list(written["findings"]) == [FINDINGS[i] for i in np.flatnonzero(first.known)]
        assert np.isfinite(written["scores"]).all()
        assert ("maps" in written.files) == bool(len(case["map_ids"]))
        if "maps" in written.files:
            assert np.isfinite(written["maps"]).all() and again.frame == 32
            np.testing.assert_array_equal(again.maps, first.maps)


def test_the_schema_is_a_schema_and_describes_every_entry():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert list(SCHEMA["properties"]) == list(arrays())
    assert all(len(entry["description"]) > 15 for entry in SCHEMA["properties"].values())
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.M)
    assert rows == list(SCHEMA["properties"])


def test_lists_tensors_and_tables_are_arrays_too():
    case = arrays()
    expected = made()
    weights = torch.from_numpy(case["scores"]).requires_grad_()
    for given_ in (
        made(scores=case["scores"].tolist(), maps=case["maps"].tolist()),
        made(scores=weights, maps=torch.from_numpy(case["maps"])),
        made(image_ids=pd.Series(case["image_ids"]), map_ids=list(case["map_ids"])),
        made(image_ids=case["image_ids"].astype(object), frame=np.int64(32)),
    ):
        np.testing.assert_array_equal(given_.scores, expected.scores)
        np.testing.assert_array_equal(given_.image_ids, expected.image_ids)
        np.testing.assert_allclose(given_.maps, expected.maps, atol=1e-3)
        assert given_.image_ids.dtype.kind == "U" and type(given_.frame) is int
    half = made(scores=torch.full((4, 2), 0.5, dtype=torch.bfloat16))
    assert (half.scores[:, 4] == 0.5).all()


def test_float64_maps_are_stored_as_float16():
    assert made(maps=arrays()["maps"].astype(float)).maps.dtype == np.float16
    assert made(maps=np.ones((2, 2, 3, 3), bool)).maps.dtype == np.float32


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_maps_are_valid(level):
    assert (made(maps=np.full((2, 2, 3, 3), level)).maps[:, 4] == level).all()


def test_one_image_and_no_maps_are_valid(tmp_path):
    alone = Predictions.from_arrays(["a"], np.full((1, 14), 0.5))
    assert alone.known.all() and alone.maps.shape == (0, 14, 0, 0) and alone.frame == 0
    path = stored(tmp_path, ("map_ids", "maps", "frame"))
    assert len(Predictions.read(path).map_ids) == 0
    assert len(Predictions.read(path).aligned(dataset(["i001"], boxed=["i001"])).map_ids) == 0


@quick
@given(case=cases(), seed=st.integers(0, 99), extra=st.integers(0, 3))
def test_rows_and_maps_follow_the_order_of_the_dataset(case, seed, extra):
    rng = np.random.default_rng(seed)
    parts = {name: part for name, part in case.items() if name != "schema"}
    ours = Predictions.from_arrays(parts.pop("image_ids"), parts.pop("scores"), **parts)
    wanted = rng.permutation(ours.image_ids)[: max(1, len(ours.image_ids) - extra)]
    boxed = [name for name in wanted if name in set(ours.map_ids)]
    target = dataset(wanted, boxed)
    aligned = ours.aligned(target)
    np.testing.assert_array_equal(aligned.image_ids, wanted)
    for row, name in enumerate(wanted):
        there = ours.scores[list(ours.image_ids).index(name)]
        np.testing.assert_array_equal(aligned.scores[row], there)
    assert list(aligned.map_ids) == boxed
    truth = Truth(target)
    for pair, image in enumerate(truth.image):
        there = ours.maps[list(ours.map_ids).index(wanted[image]), truth.finding[pair]]
        np.testing.assert_array_equal(aligned.pairs(truth)[pair], there)


def test_images_that_do_not_fit_the_dataset_are_refused():
    ours = made()
    ids, (first, second) = ours.image_ids, ours.map_ids
    assert len(ours.aligned(dataset([])).scores) == 0
    more = dataset([*ids, "x1", "x2", "x3", "x4"])
    with pytest.raises(
        ValueError, match=r"4 \(such as x1, x2, x3\) of the 8 .* are missing .*run the m"
    ):
        ours.aligned(more)
    suffixed = made(image_ids=[f"{name}.png" for name in ids], map_ids=None, maps=None, frame=None)
    with pytest.raises(
        ValueError, match=r"none of the 4 images of 'case' .*'i\d+' and .*'i\d+.png'.*suffix"
    ):
        suffixed.aligned(dataset(ids))
    bare = next(name for name in ids if name not in (first, second))
    with pytest.raises(ValueError, match=rf"boxes but without a map: 1 \(such as {bare}\)"):
        ours.aligned(dataset(ids, boxed=[first, bare]))
    target = dataset(ids, boxed=[first])
    with pytest.raises(ValueError, match=rf"boxes but without a map: 1 \(such as {first}\)"):
        made(map_ids=None, maps=None, frame=None).aligned(target).pairs(Truth(target))


NAN = np.array([[0.5, np.nan]] * 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": NAN}, "4 of 8 scores are NaN or infinite.*left out of findings"),
        ({"scores": np.full((4, 2), np.inf)}, "8 of 8 scores are NaN or inf"),
        ({"scores": np.full((4, 2), -2.5)}, r"scores range from -2.5 to -2.5; .*a sigmoid"),
        ({"scores": np.full((4, 2), 1 + 2**-20)}, r"to 1.00000095;.*np.clip"),
        ({"scores": np.zeros((4, 3))}, r"scores have shape \(4, 3\); 4 images x 2 findings"),
        ({"scores": np.zeros((3, 2))}, r"\(3, 2\); 4 images x 2 findings"),
        ({"scores": np.zeros(4)}, r"\(4,\); 4 images"),
        ({"scores": np.zeros((4, 2, 1))}, r"\(4, 2, 1\); \(N, C\) was expected"),
        ({"scores": [[0.1, 0.2], [0.1]]}, "not one rectangular array"),
        ({"scores": [["a", "b"]] * 4}, "scores are of type <U1; numbers"),
        ({"scores": [[None, 0.1]] * 4}, "scores are of type object"),
        ({"maps": np.full((2, 2, 3, 3), np.nan, np.float16)}, "36 of 36 maps are NaN or infinite"),
        ({"maps": np.full((2, 2, 3, 3), 1e9)}, r"maps range from 1e\+09"),
        ({"maps": np.full((2, 2, 3, 3), 200, np.uint8)}, "maps range from 200 to 200"),
        ({"maps": np.zeros((2, 2, 3, 4))}, r"maps have shape \(2, 2, 3, 4\).*square"),
        ({"maps": np.zeros((2, 2, 9))}, r"\(2, 2, 9\); \(M, C, h, h\) was expected"),
        ({"maps": np.zeros((2, 2, 0, 0))}, r"\(2, 2, 0, 0\); \(M, C, h, h\)"),
        ({"maps": np.zeros((2, 2, 3, 3, 1))}, r"\(M, C, h, h\)"),
        ({"maps": np.zeros((2, 14, 3, 3))}, r"\(2, 14, 3, 3\); 2 images x 2 findings"),
        ({"maps": np.zeros((1, 2, 3, 3))}, "2 images x 2 findings"),
        ({"frame": 0}, "frame = 0; .*an integer of at least 3"),
        ({"frame": -5}, "frame = -5"),
        ({"frame": 2}, "frame = 2; .*map of 3 x 3 cells"),
        ({"frame": 32.5}, "frame = 32.5"),
        ({"maps": None}, "maps missing: map_ids, maps and frame are given together"),
        ({"maps": None, "frame": None}, "maps and frame missing"),
        ({"image_ids": []}, "image_ids are empty; at least one"),
        ({"image_ids": ["i0", "i1", "i1", "i2"]}, r"image_ids: 1 \(such as i1\) given before"),
        ({"image_ids": [0, 1, 2, 3]}, "image_ids are of type integer; strings"),
        ({"image_ids": [b"a", b"b", b"c", b"d"]}, "image_ids are of type bytes; strings"),
        ({"image_ids": ["a", "b", "c", None]}, "image_ids are of type mixed; strings"),
        ({"map_ids": ["i001", "i001"]}, r"map_ids: 1 \(such as i001\) given before"),
        ({"map_ids": ["i001", "i001.png"]}, r"map_ids: 1 \(such as i001.png\) not in image_ids"),
        ({"findings": ["Mass", "Infiltrat"]}, "'Infiltrat' is not a finding; did you mean 'Infilt"),
        ({"findings": ["Infiltrate", "infiltration"]}, "twice, as 'Infiltrate' and as 'infiltrat"),
        ({"findings": []}, "findings are empty; at least one"),
    ],
)
def test_bad_arrays_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(**changes)


HEADER = [
    ({"schema": 2}, "'schema' is 2; expected the integer 1"),
    ({"schema": [1]}, r"'schema' is \[1\]; expected the integer 1"),
    ({"findings": [["Mass"]]}, "'findings' is .*; expected the names of the C findings"),
    ({"findings": [b"Mass", b"Nodule"]}, "'findings' is .*; expected the names"),
    ({"findings": ["Mass", "Mass"]}, "'findings' is .*each once"),
    ({"findings": np.array([], str)}, r"'findings' is \[\]; expected"),
    ({"image_ids": [b"a"]}, r"'image_ids' is \{'dtype': 'bytes8'.*; expected strings \(N,\)"),
    ({"image_ids": [["a"]]}, r"'image_ids' is .*\[1, 1\].*; expected strings \(N,\)"),
    ({"scores": np.zeros((4, 2), int)}, r"'scores' is .*'int64'.*; expected float16, float32 or"),
    ({"scores": 0.5}, r"'scores' is .*'shape': \[\].*; expected"),
    ({"maps": np.zeros((2, 2, 3, 3))}, r"'maps' is .*'float64'.*; expected float16 or float32"),
    ({"maps": np.zeros((2, 2, 9), np.float16)}, r"'maps' is .*\[2, 2, 9\].*\(M, C, h, h\)"),
    ({"frame": 0}, "'frame' is 0; expected a positive integer"),
    ({"frame": 22.5}, "'frame' is 22.5; expected a positive integer"),
    ({"map": 1}, "no array 'map'; did you mean 'maps'"),
    # The header is right, the values are not.
    ({"scores": np.full((4, 2), 7.0)}, "range from 7 to 7"),
    ({"frame": 2}, "frame = 2"),
    ({"findings": ["Mass", "Noodle"]}, "did you mean 'Nodule'"),
    ({"image_ids": np.array([], str), "scores": np.zeros((0, 2))}, "image_ids are empty"),
]


@pytest.mark.parametrize(("changes", "message"), HEADER)
def test_bad_files_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"p\.npz: .*{message}.*; the book's page"):
        Predictions.read(stored(tmp_path, **changes))


@pytest.mark.parametrize("name", list(SCHEMA["properties"]))
def test_a_part_that_is_missing_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=rf"it holds .*, but .*{name}"):
        Predictions.read(stored(tmp_path, (name,)))


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = stored(tmp_path, image_ids=np.array([Trap()] * 4, object))
    with pytest.raises(ValueError, match=r"cannot be read .*not pickled: np.asarray\(image_ids, s"):
        Predictions.read(path)
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_no_archives(tmp_path):
    path = tmp_path / "p.npz"
    for content in (b"", b"scores", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"not an \.npz archive, or one that was cut short"):
            Predictions.read(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(ValueError, match=r"not an \.npz archive"):
        Predictions.read(path.with_suffix(".npy"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"pixels")
    with pytest.raises(ValueError, match=r"no array 'a.png'"):
        Predictions.read(path)
    with zipfile.ZipFile(stored(tmp_path, ("scores",)), "a") as archive:
        archive.writestr("scores.npy", b"pixels")
    with pytest.raises(ValueError, match=r"'scores' is .*'bytes48'.*; expected float16"):
        Predictions.read(path)
    with pytest.raises(FileNotFoundError):
        Predictions.read(tmp_path / "none.npz")


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_says_the_same(tmp_path_factory, data):
    whole = io.BytesIO()
    made().write(whole)
    content = bytearray(whole.getvalue())
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("f") / "p.npz"
    path.write_bytes(content)
    try:
        read = Predictions.read(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:  # a byte that nobody reads, such as a time of change
        np.testing.assert_array_equal(read.scores, made().scores)
        np.testing.assert_array_equal(read.maps, made().maps)


def test_the_examples_of_the_page_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
    ours, plain = (Predictions.read(tmp_path / name) for name in ("predictions.npz", "plain.npz"))
    for read in (ours, plain):
        assert [FINDINGS[i] for i in np.flatnonzero(read.known)] == ["Effusion", "Infiltration"]
        assert read.maps.shape[1:] == (14, 7, 7) and read.frame == 224
    assert ours.scores[0, 2] == pytest.approx(1 / (1 + np.exp(-2.3)))
