import io
import re

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxrlib.datasets import dicom, images

NATIVE = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
RAMP = np.arange(48 * 32, dtype=np.uint16).reshape(48, 32)
"""0 to 1,535, one pixel each."""


def noise(bits=12, signed=False, seed=0, shape=(48, 32)):
    low = -(2 ** (bits - 1)) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
    return np.random.default_rng(seed).integers(low, low + 2**bits, shape, kind)


def make(stored, bits=12, syntax=ExplicitVRLittleEndian, frames=None, **elements):
    """A radiograph of these stored values; ``frames`` are its compressed pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3"
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * stored.itemsize, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    pixels = encapsulate(frames) if frames else stored.astype(stored.dtype.newbyteorder(order))
    data.add_new("PixelData", "OB" if frames or stored.itemsize == 1 else "OW", bytes(pixels))
    data["PixelData"].is_undefined_length = bool(frames)
    for name, value in elements.items():
        setattr(data, name, value)
    return data


def to_bytes(data):
    file = io.BytesIO()
    syntax = data.file_meta.TransferSyntaxUID
    data.save_as(
        file,
        enforce_file_format=True,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
    )
    return file.getvalue()


def read(data):
    content = data if isinstance(data, bytes) else to_bytes(data)
    assert dicom.is_dicom(content)
    return dicom.grey(io.BytesIO(content))


def stretched(values):
    values = values.astype(float)
    return np.rint(255 * (values - values.min()) / (values.max() - values.min())).astype(np.uint8)


def look_up(entries, first=0, bits=16, vr="US", count=None):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count or len(entries), first, bits])
    item.add_new("LUTData", vr, entries if vr == "US" else entries.astype("<u2").tobytes())
    return Sequence([item])


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless])
@pytest.mark.parametrize(
    ("bits", "signed"), [(8, False), (8, True), (10, False), (12, False), (12, True), (16, True)]
)
def test_every_lossless_syntax_and_depth_is_the_same_grey(syntax, bits, signed):
    stored = noise(bits, signed)
    compressed = syntax == RLELossless
    data = make(stored, bits, ExplicitVRLittleEndian if compressed else syntax)
    if compressed:
        data.compress(RLELossless)
    found = read(data)
    assert found.dtype == np.uint8
    assert (found == stretched(stored)).all()
    assert dicom.shape(io.BytesIO(to_bytes(data))) == (48, 32)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_jpeg_inside_dicom():
    smooth = (RAMP // 6).astype(np.uint8)
    jpeg = encode(Image.fromarray(smooth), "JPEG", quality=98)
    found = read(make(smooth, 8, JPEGBaseline8Bit, [jpeg], WindowCenter=128, WindowWidth=256))
    assert abs(found.astype(int) - smooth).max() <= 3
    lossless = encode(Image.fromarray(RAMP), "JPEG2000", irreversible=False, no_jp2=True)
    assert (read(make(RAMP, 16, JPEG2000Lossless, [lossless])) == stretched(RAMP)).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (2.5, -1000)])
@pytest.mark.parametrize("signed", [False, True])
def test_a_window_is_that_of_pydicom(function, slope, intercept, signed):
    stored = noise(12, signed)
    window = {"WindowCenter": [300.5, 9], "WindowWidth": [901, 7], "VOILUTFunction": function}
    if slope:
        window |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    data = make(stored, 12, **{name: value for name, value in window.items() if value})
    shown = apply_windowing(apply_modality_lut(stored, data), data)  # over the range of 12 bits
    ends = apply_modality_lut(np.array([-2048, 2047]) if signed else np.array([0, 4095]), data)
    expected = 255 * (shown - ends[0]) / (ends[1] - ends[0])
    assert abs(read(data) - expected).max() <= 0.5 + 1e-9
    data.PhotometricInterpretation = "MONOCHROME1"
    assert abs(read(data) - (255 - expected)).max() <= 0.5 + 1e-9


def test_a_window_by_hand():
    data = make(RAMP, 12, WindowCenter=500, WindowWidth=256)
    found = read(data).ravel()
    assert (
        found[[0, 372, 373, 499, 500, 626, 627, 1535]] == [0, 0, 1, 127, 128, 254, 255, 255]
    ).all()


def test_a_negative_slope_reverses_the_greys():
    rescale = {"RescaleSlope": -1, "RescaleIntercept": 1535}
    assert (read(make(RAMP, **rescale)) == 255 - stretched(RAMP)).all()
    data = make(RAMP, WindowCenter=500, WindowWidth=256)
    turned = make(RAMP[::-1, ::-1].copy(), WindowCenter=500, WindowWidth=256, **rescale)
    assert (read(turned) == read(data)).all()


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_voi_lut_comes_before_the_window(vr):
    entries = (np.arange(1536) ** 2 // 40).astype(np.uint16)[::-1].copy()
    data = make(RAMP, WindowCenter=500, WindowWidth=256)
    data.VOILUTSequence = look_up(entries if vr == "OW" else entries.tolist(), vr=vr)
    reference = apply_voi_lut(RAMP, data)
    assert (read(data) == stretched(reference)).all()
    assert read(data)[0, 0] == 255


def test_a_voi_lut_reaches_from_its_first_value_to_its_last():
    data = make(RAMP)
    data.VOILUTSequence = look_up([0, 10, 20, 30], first=1000)
    found = read(data).ravel()
    assert (found[[0, 1000, 1001, 1002, 1003, 1535]] == [0, 0, 85, 170, 255, 255]).all()


def test_a_voi_lut_of_bytes_may_have_many_entries():
    data = make(RAMP)
    data.VOILUTSequence = look_up((np.arange(1536) // 6).tolist(), bits=8)
    assert (read(data) == np.rint(RAMP // 6)).all()
    packed = (np.arange(1536) // 6).astype(np.uint8).tobytes()
    data.VOILUTSequence[0].add_new("LUTData", "OW", packed)
    assert (read(data) == np.rint(RAMP // 6)).all()


def test_a_voi_lut_of_negative_values():
    stored = noise(12, signed=True)
    data = make(stored)
    data.VOILUTSequence = look_up(list(range(4096)), first=-2048)
    assert (read(data) == np.rint((stored + 2048.0) / 4095 * 255)).all()


def test_a_modality_lut_comes_before_the_window():
    data = make(RAMP, WindowCenter=32768, WindowWidth=65536)
    data.ModalityLUTSequence = look_up(list(range(0, 65535, 42)))
    expected = apply_modality_lut(RAMP, data) / 65535 * 255
    assert abs(read(data) - expected).max() <= 0.5


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": 300},
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 300, "WindowWidth": 0},
        {"WindowCenter": 300, "WindowWidth": -5},
        {"WindowCenter": [], "WindowWidth": []},
        {"WindowCenter": 60000, "WindowWidth": 10},
    ],
)
def test_without_a_window_that_shows_anything_the_range_is_full(window):
    assert (read(make(RAMP + 100, **window)) == stretched(RAMP)).all()


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("value", "signed"), [(0, False), (4095, False), (-2048, True)])
def test_padding_is_black_and_takes_no_part(kind, value, signed):
    stored = (RAMP + 500).astype(np.int16 if signed else np.uint16)
    stored[:5] = value
    data = make(stored, PhotometricInterpretation=kind)
    data.add_new("PixelPaddingValue", "US", value % 2**16)
    found, inner = read(data), stretched(stored[5:])
    assert (found[:5] == 0).all()
    assert (found[5:] == (inner if kind == "MONOCHROME2" else 255 - inner)).all()


def test_padding_may_be_a_range():
    data = make(RAMP, PixelPaddingRangeLimit=1400, PixelPaddingValue=4095)
    found = read(data).ravel()
    assert (found[1400:] == 0).all()
    assert (found[:1400] == stretched(RAMP.ravel()[:1400])).all()


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_an_image_of_one_value_is_black(kind):
    assert not read(make(np.full((40, 40), 7, np.uint16), PhotometricInterpretation=kind)).any()


def test_bits_above_those_stored_are_no_part_of_the_image():
    overlaid = RAMP | (np.uint16(1) << 12)
    overlaid[:20] = RAMP[:20]
    assert (read(make(overlaid)) == stretched(RAMP)).all()


def colour(data):
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.PlanarConfiguration = 0


def palette(data):
    data.PhotometricInterpretation = "PALETTE COLOR"


def drop_pixels(data):
    del data.PixelData


def no_size(data):
    data.Rows = 0


def report(data):
    for name in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        del data[name]


def slope_zero(data):
    data.RescaleSlope, data.RescaleIntercept = 0, 5


def short_table(data):
    data.VOILUTSequence = look_up([1, 2, 3], count=9)


def all_padding(data):
    data.PixelPaddingValue, data.PixelPaddingRangeLimit = 0, 4095


REFUSED = {
    colour: r"RGB x 3; expected \('MONOCHROME1', 'MONOCHROME2'\): export it as grey",
    palette: r"PALETTE COLOR x 1; expected",
    drop_pixels: "truncated or holds no pixel data; export it again",
    no_size: r"truncated or holds no image \(no Rows, no Columns\)",
    report: r"truncated or holds no image \(no Rows, no Columns\)",
    slope_zero: r"its rescale is 0.0 x \+ 5.0",
    short_table: "look-up table has 3 of 9 entries",
    all_padding: "every pixel is padding",
    lambda data: setattr(data, "NumberOfFrames", 3): "has 3 frames; expected one: export each",
    lambda data: setattr(data, "BitsStored", 7): "stores 7 of 16 bits, .* expected 8 to 16 bits",
    lambda data: setattr(data, "BitsStored", 17): "stores 17 of 16 bits",
    lambda data: setattr(data, "HighBit", 15): "12 of 16 bits, the highest at 15; .* lowest at 0",
    lambda data: setattr(data, "BitsAllocated", 32): "12 of 32 bits",
    lambda data: setattr(data, "Rows", 49): "truncated: .*before its pixels do",
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_is_no_grey_image_is_refused(tmp_path, change):
    data = make(RAMP)
    change(data)
    path = tmp_path / "a.dcm"
    path.write_bytes(to_bytes(data))
    message = rf"^{re.escape(str(path))} cannot be decoded \(.*{REFUSED[change]}.*\); call X$"
    with pytest.raises(OSError, match=message):
        images.read_grey(path, "call X")


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (JPEGLSLossless, "JPEG-LS Lossless"),
        (JPEGLosslessSV1, "JPEG Lossless, Non-Hierarchical, First-Order"),
        (HTJ2KLossless, "High-Throughput JPEG 2000"),
    ],
)
def test_a_missing_decoder_is_named_before_decoding(monkeypatch, syntax, name):
    # Whatever is installed beside, as for someone who has installed this library alone.
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    content = io.BytesIO(to_bytes(make(RAMP, syntax=syntax, frames=[b"compressed"])))
    message = rf"{name}.*\({syntax}\), .* no decoder is installed; run: .* pip install pylibjpeg "
    with pytest.raises(ValueError, match=message):
        dicom.shape(content)


def test_an_unknown_syntax_is_named():
    mpeg = UID("1.2.840.10008.1.2.4.100")
    content = io.BytesIO(to_bytes(make(RAMP, syntax=mpeg, frames=[b"film"])))
    with pytest.raises(ValueError, match=r"MPEG2.*which pydicom does not decode; export it as Exp"):
        dicom.shape(content)


@pytest.mark.parametrize("syntax", [JPEG2000, JPEGBaseline8Bit, RLELossless])
def test_damaged_compressed_pixels_are_named(syntax):
    data = make((RAMP // 6).astype(np.uint8), 8, syntax, [b"no such image here"])
    with pytest.raises(ValueError, match=r"its pixels .*damaged: .*; if the file is whole, run: p"):
        read(data)


def outcome(path):
    try:
        return images.read_grey(path)
    except (OSError, ValueError):
        return None


def samples():
    native = [make(RAMP, syntax=syntax, WindowCenter=700, WindowWidth=900) for syntax in NATIVE]
    rle = make(RAMP)
    rle.compress(RLELossless)
    codestream = encode(Image.fromarray(RAMP), "JPEG2000", no_jp2=True)
    return [*native, rle, make(RAMP, 16, JPEG2000Lossless, [codestream])]


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("data", samples(), ids=lambda data: data.file_meta.TransferSyntaxUID.name)
def test_a_truncated_file_is_an_error_never_another_image(tmp_path, data):
    path = tmp_path / "a.dcm"
    content = to_bytes(data)
    path.write_bytes(content)
    whole = images.read_grey(path)
    ends = np.random.default_rng(0).integers(0, len(content), 150)
    for end in [*ends, len(content) - 1]:
        path.write_bytes(content[:end])
        found = outcome(path)
        assert found is None or (found == whole).all(), end


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data", samples(), ids=lambda data: data.file_meta.TransferSyntaxUID.name)
def test_damaged_bytes_raise_nothing_else(tmp_path, data):
    path = tmp_path / "a.dcm"
    content = to_bytes(data)
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        for place in random.integers(132, min(len(content), 700), 4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        found = outcome(path)
        assert found is None or found.dtype == np.uint8
