"""One DICOM file as the grey image that a viewer shows: bone bright, 8 bits.

Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT and window). The files
are parsed and decompressed by pydicom; the grey scale is applied here, to a table of the stored
values rather than to each pixel, because pydicom 3.0 wraps around in VOI LUTs of 8-bit entries and
inverts windows over a negative rescale slope.

All functions take an open file, and their errors tell the flaw and its mend, but not the file's
name: :mod:`cxrlib.datasets.images` puts it in front.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

DECODERS = "python -m pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
"""Installs decoders for every kind of JPEG compression; pydicom finds them by itself."""

_GREY = ("MONOCHROME1", "MONOCHROME2")
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"  # ends compressed pixel data
_TAIL = 65_536  # bytes in which it is looked for, since padding may follow


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of DICOM.

    >>> is_dicom(bytes(128) + b"DICM")
    True
    """
    return head[128:132] == b"DICM"


def shape(file: BinaryIO) -> tuple[int, int]:
    """Height and width in pixels, after every check that needs no decoding.

    Args:
        file: a DICOM file, open at its start.

    Raises:
        ValueError: it is no single grey image of 8 to 16 bits, is truncated, or is compressed in a
            way no installed decoder reads.
    """
    with _plainly():
        header = dcmread(file, stop_before_pixels=True)
        _refuse(header)
        _refuse_truncated(file, header)
        return int(header.Rows), int(header.Columns)


def grey(file: BinaryIO) -> np.ndarray:
    """Decode, and apply the grey scale that the file asks for.

    The modality LUT or rescale comes first. Then the first VOI LUT, over the range of its entries,
    else the first window, else the full range of the pixels: the last also where the window is
    invalid or makes all pixels one grey. MONOCHROME1 is inverted. Padding pixels take no part in
    the range and become black, and so does an image of one value.

    Args:
        file: a DICOM file, open at its start.

    Returns:
        uint8 (H, W), bone bright.

    Raises:
        ValueError: as :func:`shape`, or the pixels or the grey scale are damaged.
    """
    with _plainly():
        data = dcmread(file)
        _refuse(data)
        stored = _decode(data)  # (H, W)
        padding = _padding(stored, data)
        present = stored[~padding] if padding.any() else stored
        if not present.size:
            raise ValueError("every pixel is padding (PixelPaddingValue); export it again")
        low, high = int(present.min()), int(present.max())
        greys = _shown(np.arange(low, high + 1), data)  # at most 65,536
        table = np.rint(255 * greys).astype(np.uint8)
        return np.where(padding, np.uint8(0), table[stored.clip(low, high).astype(np.int32) - low])


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn the dozen kinds of error that damaged files cause in pydicom into ValueError."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"it is damaged: {error!r}") from error


def _refuse(header: Dataset) -> None:
    """Raise if this is no single grey image of 8 to 16 bits that can be decompressed."""
    if not (header.get("Rows") and header.get("Columns")):
        raise ValueError("it is truncated or holds no image (no Rows, no Columns); export it again")
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise ValueError(f"it has {frames} frames; expected one: export each as a file of its own")
    kind, samples = header.get("PhotometricInterpretation"), header.get("SamplesPerPixel", 1)
    if kind not in _GREY or samples != 1:
        raise ValueError(f"its pixels are {kind} x {samples}; expected {_GREY}: export it as grey")
    allocated, stored = header.get("BitsAllocated"), header.get("BitsStored")
    high = header.get("HighBit", (stored or 0) - 1)
    if allocated not in (8, 16) or not stored or not 8 <= stored <= allocated or high != stored - 1:
        raise ValueError(
            f"it stores {stored} of {allocated} bits, the highest at {high}; expected 8 to 16 bits "
            "in 8 or 16, the lowest at 0: export it again"
        )
    _refuse_undecodable(header.file_meta.TransferSyntaxUID)


def _refuse_undecodable(syntax: UID) -> None:
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise ValueError(
            f"its transfer syntax is {syntax.name} ({syntax}), which pydicom does not decode; "
            "export it as Explicit VR Little Endian"
        ) from None
    if not available:
        raise ValueError(
            f"it is compressed as {syntax.name} ({syntax}), for which no decoder is installed; "
            f"run: {DECODERS}"
        )


def _refuse_truncated(file: BinaryIO, header: Dataset) -> None:
    """Raise if the file, read up to its pixels, ends before they do."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return  # zlib has checked it whole
    start, size = file.tell(), file.seek(0, os.SEEK_END)
    if start == size:
        raise ValueError("it is truncated or holds no pixel data; export it again")
    if syntax.is_compressed:
        file.seek(max(start, size - _TAIL))
        whole = _DELIMITER in file.read()
    else:
        prefix = 8 if syntax.is_implicit_VR else 12
        whole = size - start - prefix >= header.Rows * header.Columns * header.BitsAllocated // 8
    if not whole:
        raise ValueError(f"it is truncated: it ends at byte {size}, before its pixels do")


def _decode(data: Dataset) -> np.ndarray:
    syntax = data.file_meta.TransferSyntaxUID
    if "PixelData" not in data:
        raise ValueError("it is truncated or holds no pixel data; export it again")
    try:
        return pixel_array(data)
    except Exception as error:
        mend = f"; if the file is whole, run: {DECODERS}" if syntax.is_compressed else ""
        flaw = " ".join(str(error).split())  # pydicom breaks lines
        raise ValueError(f"its pixels ({syntax.name}) are damaged: {flaw}{mend}") from error


def _padding(stored: np.ndarray, data: Dataset) -> np.ndarray:
    """Which pixels are no part of the image: bool (H, W)."""
    if (value := data.get("PixelPaddingValue")) is None:
        return np.zeros(stored.shape, bool)
    ends = np.array([value, data.get("PixelPaddingRangeLimit", value)])
    # Many files give a negative value by its 16 bits, read as unsigned.
    low, high = sorted(ends.astype(np.int16 if stored.dtype.kind == "i" else np.uint16).tolist())
    return (stored >= low) & (stored <= high)


def _shown(levels: np.ndarray, data: Dataset) -> np.ndarray:
    """Grey of each stored value: (n,) integers -> (n,) 0 to 1."""
    values = _modality(levels, data)
    shown = _voi(values, data)
    if np.ptp(shown) == 0:
        shown = _stretch(values)
    return 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" and np.ptp(shown) else shown


def _modality(levels: np.ndarray, data: Dataset) -> np.ndarray:
    if sequence := data.get("ModalityLUTSequence"):
        return _look_up(levels, *_table(sequence[0], data))
    slope, intercept = _first(data, "RescaleSlope", 1), _first(data, "RescaleIntercept", 0)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise ValueError(f"its rescale is {slope} x + {intercept}; export it again")
    return levels * slope + intercept


def _voi(values: np.ndarray, data: Dataset) -> np.ndarray:
    """Grey of each value by VOI LUT or window, 0 to 1; all zero where the file gives neither."""
    if sequence := data.get("VOILUTSequence"):
        first, entries = _table(sequence[0], data)
        return _look_up(values, first, _stretch(entries))
    centre, width = _first(data, "WindowCenter", np.nan), _first(data, "WindowWidth", np.nan)
    function = str(data.get("VOILUTFunction") or "LINEAR").upper()
    if function == "LINEAR":  # C.11.2.1.2.1
        centre, width = centre - 0.5, width - 1
    if not (np.isfinite(centre) and np.isfinite(width) and width > 0):
        return np.zeros(values.shape)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    return ((values - centre) / width + 0.5).clip(0, 1)


def _first(data: Dataset, name: str, default: float) -> float:
    """The first of an element's values; most windows have several."""
    value: Any = data.get(name)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return default if value in (None, "") else float(value)


def _table(item: Dataset, data: Dataset) -> tuple[int, np.ndarray]:
    """A look-up table: the value its first entry is for, and its entries (n,)."""
    count, first, _ = item.LUTDescriptor
    count = count % 2**16 or 2**16
    entries = item.LUTData
    if isinstance(entries, bytes):
        order = "<" if data.original_encoding[1] else ">"
        entries = np.frombuffer(entries, f"{order}u2" if len(entries) >= 2 * count else "u1")
    entries = np.atleast_1d(np.asarray(entries, float))[:count]
    if len(entries) < count:
        raise ValueError(f"its look-up table has {len(entries)} of {count} entries; export again")
    return int(first), entries


def _look_up(values: np.ndarray, first: int, entries: np.ndarray) -> np.ndarray:
    return entries[(np.rint(values) - first).clip(0, len(entries) - 1).astype(int)]


def _stretch(values: np.ndarray) -> np.ndarray:
    """From the least to the greatest as 0 to 1; zeros if these are one."""
    return (values - values.min()) / (np.ptp(values) or 1)
