"""Image files: found by stem, checked before training, decoded to one size of 8-bit grey."""

import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from cxrlib.progress import track

_FOLDERS = ("images", "images_[0-9][0-9][0-9]", "images_[0-9][0-9][0-9]/images")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_ENDS = {b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}
_CHUNK = 256  # files a thread checks at a time: 112,120 images make 438 tasks, not 112,120


def find_images(data_dir: Path | str) -> dict[str, str]:
    """Path of each PNG and JPEG in ``images/`` or ``images_001/images/`` and so on, by stem.

    Raises:
        ValueError: two files have one stem.
    """
    folders = [place for pattern in _FOLDERS for place in sorted(Path(data_dir).glob(pattern))]
    paths: dict[str, str] = {}
    for entry in chain.from_iterable(map(os.scandir, filter(Path.is_dir, folders))):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in _SUFFIXES and not stem.startswith("."):
            if stem in paths:
                raise ValueError(f"{paths[stem]} and {entry.path} are one image; delete one")
            paths[stem] = entry.path
    return paths


def verify(
    image_ids: Sequence[str] | np.ndarray, paths: Mapping[str, str], mend: str
) -> np.ndarray:
    """Check that each image exists and is a whole PNG or JPEG, by its first and last bytes.

    Args:
        image_ids: (N,) images to check.
        paths: file of each image, from :func:`find_images`.
        mend: what to do about bad files, for the message.

    Returns:
        int64 (N,), the size of each file, bytes.

    Raises:
        OSError: gives the number of bad files, the first few with what is wrong, and the mend.
    """
    files = [paths.get(image_id) for image_id in image_ids]
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(8) as pool:
        results = chain.from_iterable(pool.map(lambda chunk: [*map(_inspect, chunk)], chunks))
        found = [*track(results, "checking image files", total=len(files))]
    bad = [
        f"{path or image_id} {flaw}"
        for image_id, path, (_, flaw) in zip(image_ids, files, found, strict=True)
        if flaw
    ]
    if bad:
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise OSError(
            f"{len(bad)} of {len(files)} images cannot be used: {'; '.join(bad[:5])}{more}; {mend}"
        )
    return np.array([size for size, _ in found], np.int64)


def read_pixels(path: Path | str, image_size: int, mend: str = "restore it") -> np.ndarray:
    """Decode one radiograph to 8-bit grey and resize it, bilinear with antialiasing.

    Args:
        path: a square PNG or JPEG: grey (8 or 16 bit), colour or with transparency.
        image_size: side of the result, pixels.
        mend: what to do about a bad file, for the message.

    Returns:
        uint8 (image_size, image_size).

    Raises:
        OSError: the file cannot be decoded; the message names it and the mend.
        ValueError: the image is not square.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.new("RGBA", (64, 64), "white").save(path)
    >>> read_pixels(path, 2).tolist()
    [[255, 255], [255, 255]]
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            grey = _grey(image)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise OSError(f"{path} cannot be decoded ({error}); {mend}") from error
    if grey.width != grey.height:
        raise ValueError(
            f"{path} is {grey.width} x {grey.height} px, but the official images are square and "
            f"their boxes lie in a square frame; {mend}, or resize it uncropped"
        )
    return np.asarray(grey.resize((image_size, image_size), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Reader:
    """Reads by name; a class, not a closure, so that loader processes can be sent it."""

    paths: Mapping[str, str]
    image_size: int
    mend: str

    def __call__(self, image_id: str) -> np.ndarray:
        """The pixels of an image, uint8 (image_size, image_size)."""
        return read_pixels(self.paths[image_id], self.image_size, self.mend)


def _grey(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):  # "I" and "I;16" hold 16 bits, which convert("L") clips
        return image.convert("L")
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))


def _inspect(path: str | None) -> tuple[int, str]:
    if path is None:
        return 0, "has no PNG or JPEG under images/ or images_*/images/"
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(8)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4096))
            return size, _flaw(head, file.read())
    except OSError as error:
        return 0, f"cannot be read ({error.strerror})"


def _flaw(head: bytes, tail: bytes) -> str:
    if not head:
        return "is empty"
    ends = [end for start, end in _ENDS.items() if head.startswith(start)]
    if not ends:
        return "is neither PNG nor JPEG"
    return "" if tail.rstrip(b"\0").endswith(ends[0]) else "is truncated"
