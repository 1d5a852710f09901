import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from test_datasets_dicom import RAMP, make, to_bytes

from cxrlib.datasets import boxes, images


def saved(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def png_header(width, height):
    """A PNG that says it is of this size, and holds no pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def dicom_header(width, height):
    return to_bytes(make(RAMP, syntax=RLELossless, frames=[b"ab"], Rows=height, Columns=width))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.dcm"])
@pytest.mark.parametrize("shape", [(16, 16), (48, 32), (200, 333)])
def test_shape_and_pixels_of_every_kind(tmp_path, name, shape):
    grey = np.linspace(0, 255, shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    path = tmp_path / name
    if name.endswith("dcm"):
        path.write_bytes(to_bytes(make(grey, 8)))
    else:
        Image.fromarray(grey).save(path, quality=100)
    assert images.image_shape(path) == shape
    found = images.read_grey(path)
    assert found.dtype == np.uint8
    assert abs(found.astype(int) - grey).max() <= (3 if name == "a.jpg" else 0)


def test_the_name_of_a_file_tells_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(to_bytes(make(RAMP)))
    assert images.image_shape(tmp_path / "a.jpg") == RAMP.shape
    saved(tmp_path / "b.png", RAMP.astype(np.uint8)).rename(tmp_path / "b.dcm")
    assert (images.read_grey(tmp_path / "b.dcm") == RAMP.astype(np.uint8)).all()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("header", [png_header, dicom_header])
@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 100), (100, 20_000), (1, 1), (15, 400), (9_460, 9_460)]
)
def test_a_size_out_of_range_is_refused_from_the_header(tmp_path, header, width, height):
    path = tmp_path / "a.dcm"
    path.write_bytes(header(width, height))
    message = rf"a.dcm cannot be decoded \(it is {width} x {height} px; expected sides of 16 to 199"
    for read in (images.image_shape, images.read_grey):
        with pytest.raises(OSError, match=message):
            read(path)


@pytest.mark.parametrize("header", [png_header, dicom_header])
def test_a_size_in_range_passes_the_header(tmp_path, header):
    path = tmp_path / "a.png"
    path.write_bytes(header(4_000, 19_999))
    assert images.image_shape(path) == (19_999, 4_000)
    with pytest.raises(OSError, match=r"a.png cannot be decoded"):
        images.read_grey(path)


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(19_999, 19_999))
    with pytest.raises(OSError, match=r"a.png cannot be decoded \(.*decompression bomb"):
        images.image_shape(path)


@pytest.mark.parametrize("size", [(0, 40), (40, 0), (0, 0)])
def test_images_without_pixels_are_refused(tmp_path, size):
    for header in (png_header, dicom_header):
        (tmp_path / "a.png").write_bytes(header(*size))
        with pytest.raises(OSError, match=r"a.png cannot be decoded"):
            images.read_grey(tmp_path / "a.png")


@pytest.mark.parametrize("bits", range(1, 17))
def test_the_depth_of_a_16_bit_png_is_that_of_its_greatest_value(tmp_path, bits):
    values = np.linspace(0, 2**bits - 1, 20 * 20).reshape(20, 20).astype(np.uint16)
    top = 2 ** max(8, bits + bits % 2) - 1
    found = images.read_grey(saved(tmp_path / "a.png", values))
    assert abs(found - values / top * 255).max() <= 0.5
    assert found.max() >= 127 or bits < 7


def test_a_black_16_bit_png(tmp_path):
    assert not images.read_grey(saved(tmp_path / "a.png", np.zeros((20, 20), np.uint16))).any()


def edges(profile):
    """Where a blurred strip begins and ends: its middle, less and more half its width."""
    width = profile.sum()
    middle = (np.arange(len(profile)) + 0.5) @ profile / width
    return np.array([middle - width / 2, middle + width / 2])


@pytest.mark.parametrize("axis", [0, 1])
def test_square_boxes_cover_the_same_pixels_after_padding_and_resizing(tmp_path, axis):
    random = np.random.default_rng(axis)
    for _ in range(300):
        shape = random.integers(16, 300, 2)
        size = int(random.integers(32, 200))
        low, high = np.sort(random.choice(shape[axis] + 1, 2, replace=False))
        strip = np.zeros(shape, np.uint8)
        strip.swapaxes(0, axis)[low:high] = 255
        pixels = images.read_pixels(saved(tmp_path / "a.png", strip), size, pad=True)
        line = pixels.swapaxes(0, axis)[:, size // 2] / 255  # the middle is never padding
        corners = np.array([[0, low, shape[1], high], [low, 0, high, shape[0]]])[[axis]]
        box = boxes.square_boxes(corners, shape[:1], shape[1:])[0] * size
        assert abs(edges(line) - box[[1, 3] if axis == 0 else [0, 2]]).max() <= 0.5
        assert (box >= 0).all()
        assert (box <= size + 1e-9).all()


def test_the_frame_of_an_image_is_where_its_pixels_are(tmp_path):
    random = np.random.default_rng(2)
    for _ in range(100):
        height, width = random.integers(32, 100, 2)
        path = saved(tmp_path / "a.png", np.full((height, width), 255, np.uint8))
        side = int(max(height, width))
        pixels = images.read_pixels(path, side, pad=True)
        corners = np.array([[0, 0, width, height]])
        box = boxes.square_boxes(corners, np.array([height]), np.array([width]))[0] * side
        rows, columns = np.nonzero(pixels)
        ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(ends, box, atol=1e-9)
        assert (pixels == 255).sum() == height * width


def test_an_oblong_image_is_padded_or_refused(tmp_path):
    path = saved(tmp_path / "a.png", RAMP.astype(np.uint8))
    with pytest.raises(ValueError, match=r"a.png is 32 x 48 px, but the official images are squ"):
        images.read_pixels(path, 48)
    with pytest.raises(ValueError, match=r"a.png is 32 x 48 px"):
        images.Reader({"a": str(path)}, 48, "mend")("a")
    read = pickle.loads(pickle.dumps(images.Reader({"a": str(path)}, 48, "mend", pad=True)))
    found = read("a")
    assert found.shape == (48, 48)
    assert (found[:, 8:40] == RAMP.astype(np.uint8)).all()
    assert not found[:, :8].any()
    assert not found[:, 40:].any()


def test_find_and_verify_know_dicom(tmp_path):
    (tmp_path / "images").mkdir()
    content = to_bytes(make(RAMP))
    for name in ("a.dcm", "b.DICOM"):
        (tmp_path / "images" / name).write_bytes(content)
    saved(tmp_path / "images" / "c.png", RAMP.astype(np.uint8))
    paths = images.find_images(tmp_path)
    assert sorted(paths) == ["a", "b", "c"]
    assert images.verify(["a", "b"], paths, "mend").sizes.tolist() == [len(content)] * 2
    (tmp_path / "images" / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.\w+ and .*a\.\w+ are one image; delete one"):
        images.find_images(tmp_path)


def verified(path, content):
    path.write_bytes(content)
    images.verify(["a"], {"a": str(path)}, "call X")


@pytest.mark.parametrize("cut", [140, 300, -500, -2])
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_truncated_dicom_is_found_by_its_header(tmp_path, cut):
    message = r"^1 of 1 images cannot be used: .*a cannot be used \(it .*\); call X$"
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        with pytest.raises(OSError, match=message):
            verified(tmp_path / "a", to_bytes(make(RAMP, syntax=syntax))[:cut])
    data = make(RAMP)
    data.compress(RLELossless)
    with pytest.raises(OSError, match=message):
        verified(tmp_path / "a", to_bytes(data)[:cut])


def test_a_missing_decoder_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    with pytest.raises(OSError, match=r"a cannot be used \(it is compressed as JPEG-LS .*; run: p"):
        verified(tmp_path / "a", to_bytes(make(RAMP, syntax=JPEGLSLossless, frames=[b"ab"])))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_bytes_raise_nothing_else(tmp_path, kind):
    path = tmp_path / "a"
    Image.fromarray(RAMP.astype(np.uint8)).save(path, kind)
    content = path.read_bytes()
    random = np.random.default_rng(3)
    for _ in range(500):
        damaged = bytearray(content[: random.integers(8, len(content) + 1)])
        for place in random.integers(8, len(damaged) + 1, 3).clip(max=len(damaged) - 1):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            found = images.read_pixels(path, 32, pad=True)
        except (OSError, ValueError) as error:
            assert str(path) in str(error)
        else:
            assert found.shape == (32, 32)
