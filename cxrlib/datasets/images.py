"""Image files: found by stem, checked before training, decoded to one size of 8-bit grey.

A file is a PNG (8 or 16 bits), a JPEG or a DICOM, told by its first bytes and not by its name. Its
sides are 16 to 19,999 px and its area at most 89 million px, from which on Pillow warns of a
decompression bomb; other sizes are refused from the header, before anything is decoded.
"""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from cxrlib.checks import told
from cxrlib.datasets import dicom
from cxrlib.datasets.base import Original
from cxrlib.datasets.square import square
from cxrlib.progress import track

MIN_SIDE, MAX_SIDE, MAX_AREA = 16, 19_999, 89_478_485
"""Limits of the sides (pixels) and of their product."""

_FOLDERS = ("images", "images_[0-9][0-9][0-9]", "images_[0-9][0-9][0-9]/images")
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_ENDS = {b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}
_CHUNK = 256  # files a thread checks at a time: 112,120 images make 438 tasks, not 112,120
_FLAWS = (
    OSError,
    SyntaxError,
    ValueError,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Files(NamedTuple):
    """The state of the files of some images.

    Attributes:
        image_ids: (N,) strings.
        sizes: int64 (N,), bytes.
        mtimes: int64 (N,), times of change, nanoseconds.
    """

    image_ids: np.ndarray
    sizes: np.ndarray
    mtimes: np.ndarray


def find_images(data_dir: Path | str, folders: Sequence[str] = _FOLDERS) -> dict[str, str]:
    """Path of each PNG, JPEG and DICOM below a folder, by stem.

    Args:
        data_dir: the folder.
        folders: patterns of those within it to look into; by default ``images/``,
            ``images_001/images/`` and so on.

    Raises:
        ValueError: two files have one stem.
    """
    places = [place for pattern in folders for place in sorted(Path(data_dir).glob(pattern))]
    paths: dict[str, str] = {}
    for entry in chain.from_iterable(map(os.scandir, filter(Path.is_dir, places))):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in SUFFIXES and not stem.startswith("."):
            if stem in paths:
                raise ValueError(f"{paths[stem]} and {entry.path} are one image; delete one")
            paths[stem] = entry.path
    return paths


def verify(image_ids: Sequence[str] | np.ndarray, paths: Mapping[str, str], mend: str) -> Files:
    """Check that each image exists and is a whole PNG, JPEG or DICOM.

    All are checked by their headers, PNG and JPEG also by their last bytes, DICOM by its length.

    Args:
        image_ids: (N,) images to check.
        paths: file of each image, from :func:`find_images`.
        mend: what to do about bad files, for the message.

    Returns:
        the size and the time of change of each file.

    Raises:
        OSError: gives the number of bad files, the first few with what is wrong, and the mend.
    """
    files = [paths.get(image_id) for image_id in image_ids]
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(8) as pool:
        results = chain.from_iterable(pool.map(lambda chunk: [*map(inspect, chunk)], chunks))
        found = [*track(results, "checking image files", total=len(files))]
    bad = [
        f"{path or image_id} {flaw}"
        for image_id, path, (*_, flaw) in zip(image_ids, files, found, strict=True)
        if flaw
    ]
    if bad:
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise OSError(
            f"{len(bad)} of {len(files)} images cannot be used: {'; '.join(bad[:5])}{more}; {mend}"
        )
    sizes, mtimes = np.array([state for *state, _ in found], np.int64).reshape(-1, 2).T
    return Files(np.asarray(image_ids, str), sizes, mtimes)


def image_shape(path: Path | str, mend: str = "restore it") -> tuple[int, int]:
    """Height and width of an image in pixels, from its header alone.

    Args:
        path: PNG, JPEG or DICOM.
        mend: what to do about a bad file, for the message.

    Raises:
        OSError: the file is no such image or of a size out of range; names it and the mend.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.new("L", (64, 48)).save(path)
    >>> image_shape(path)
    (48, 64)
    """
    with _opened(path, mend) as file:
        return _shape(file)


def read_grey(path: Path | str, mend: str = "restore it") -> np.ndarray:
    """Decode one radiograph to 8-bit grey, bone bright.

    A 16-bit PNG is scaled by the fewest of 8, 10, 12, 14 or 16 bits that hold its greatest value:
    detectors give 10 to 14 bits, and many programs store these in 16 without scaling them up.
    What a DICOM shows is told by :func:`cxrlib.datasets.dicom.grey`.

    Args:
        path: PNG or JPEG (grey, colour or with transparency, which is ignored), or DICOM.
        mend: what to do about a bad file, for the message.

    Returns:
        uint8 (H, W).

    Raises:
        OSError: the file cannot be decoded; the message names it, the flaw and the mend.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.fromarray(np.full((16, 20), 4095, np.uint16)).save(path)
    >>> read_grey(path)[0, 0], read_grey(path).shape
    (np.uint8(255), (16, 20))
    """
    with _opened(path, mend) as file:
        if _starts_dicom(file):
            _shape(file)
            file.seek(0)
            return dicom.grey(file)
        with _pillow(file) as image:
            _in_range(image.height, image.width)
            return _grey(image)


def read_pixels(
    path: Path | str, image_size: int, mend: str = "restore it", *, pad: bool = False
) -> np.ndarray:
    """Decode one radiograph to 8-bit grey and resize it, bilinear with antialiasing.

    Args:
        path: see :func:`read_grey`.
        image_size: side of the result, pixels.
        mend: what to do about a bad file, for the message.
        pad: pad an oblong image with black, centred, to a square; else it is refused.

    Returns:
        uint8 (image_size, image_size).

    Raises:
        OSError: the file cannot be decoded; the message names it and the mend.
        ValueError: the image is not square, and not to be padded.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.new("RGBA", (64, 32), "white").save(path)
    >>> read_pixels(path, 4, pad=True)[:, 0].tolist()
    [36, 223, 223, 36]
    """
    grey = read_grey(path, mend)  # (H, W)
    height, width = grey.shape
    if height != width and not pad:
        raise ValueError(
            f"{path} is {width} x {height} px, but the official images are square and "
            f"their boxes lie in a square frame; {mend}, or resize it uncropped"
        )
    return square(grey, image_size)


@dataclass(frozen=True)
class Reader:
    """Reads by name; a class, not a closure, so that loader processes can be sent it."""

    paths: Mapping[str, str]
    image_size: int
    mend: str
    pad: bool = False
    frame: int | None = None  # side of all originals, whatever the size of the stored files

    def __call__(self, image_id: str) -> np.ndarray:
        """The pixels of an image, uint8 (image_size, image_size)."""
        return read_pixels(self.paths[image_id], self.image_size, self.mend, pad=self.pad)

    def original(self, image_id: str) -> Original:
        """The file of an image and its size, from its header alone."""
        path, frame = self.paths[image_id], self.frame
        return Original(path, *((frame, frame) if frame else image_shape(path, self.mend)))


@contextmanager
def _opened(path: Path | str, mend: str) -> Iterator[BinaryIO]:
    """Open a file, and name it and the mend in whatever goes wrong with it."""
    try:
        with open(path, "rb") as file:
            yield file
    except _FLAWS as error:
        raise OSError(f"{path} cannot be decoded ({told(error)}); {mend}") from error


def _starts_dicom(file: BinaryIO) -> bool:
    head = file.read(132)
    file.seek(0)
    return dicom.is_dicom(head)


def _shape(file: BinaryIO) -> tuple[int, int]:
    """Height and width from the header; refuses a size out of range."""
    if _starts_dicom(file):
        return _in_range(*dicom.shape(file))
    with _pillow(file) as image:
        return _in_range(image.height, image.width)


def _pillow(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        raise ValueError("it is no PNG, JPEG or DICOM, or its first bytes are damaged") from None


def _in_range(height: int, width: int) -> tuple[int, int]:
    short, long = sorted((height, width))
    if short < MIN_SIDE or long > MAX_SIDE or height * width > MAX_AREA:
        raise ValueError(
            f"it is {width} x {height} px; expected sides of {MIN_SIDE} to {MAX_SIDE} px and "
            f"{MAX_AREA} px in all: resize it uncropped"
        )
    return height, width


def _grey(image: Image.Image) -> np.ndarray:
    if not image.mode.startswith("I"):  # "I" and "I;16" hold 16 bits, which convert("L") clips
        return np.asarray(image.convert("L"))
    values = np.asarray(image)
    bits = max(8, -(-int(values.max()).bit_length() // 2) * 2)  # rounded up to even
    return np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)


def inspect(path: str | None) -> tuple[int, int, str]:
    """Size of a file in bytes, when it was changed, and what is wrong with it, if anything."""
    if path is None:
        return 0, 0, "has no PNG, JPEG or DICOM file"
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            flaw = "" if _starts_dicom(file) else _flaw(file, state.st_size)
            file.seek(0)
            if not flaw:
                _shape(file)
            return state.st_size, state.st_mtime_ns, flaw
    except OSError as error:
        return 0, 0, f"cannot be read ({error.strerror or error})"
    except _FLAWS as error:
        return 0, 0, f"cannot be used ({told(error)})"


def _flaw(file: BinaryIO, size: int) -> str:
    head = file.read(8)
    if not head:
        return "is empty"
    ends = [end for start, end in _ENDS.items() if head.startswith(start)]
    if not ends:
        return "is neither PNG, JPEG nor DICOM"
    file.seek(max(0, size - 4096))
    return "" if file.read().rstrip(b"\0").endswith(ends[0]) else "is truncated"
