"""Decoded images, kept: one memory-mapped array for each folder and size, in the user's cache.

A store is a folder. ``pixels.npy`` has a row per image. ``index.jsonl`` says which image a row
holds, which state of its file it was made from, and the checksum of its pixels. ``seal.json`` says
what ``pixels.npy`` looked like when it was last known to be whole.

An image is stored once its line is in the index, so a kill loses only the images being decoded.
Where the seal does not fit, as after a kill or a damage, every row is compared with its checksum,
and only the bad ones are decoded again. So are files that changed, into the rows they had: a store
never goes stale, and never holds an image twice, whichever parts of a folder are loaded.
"""

import itertools
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import filelock
import joblib
import numpy as np

from cxrlib.datasets.base import CXRDataset, Split
from cxrlib.datasets.images import Files
from cxrlib.datasets.rows import Rows, npy_header
from cxrlib.files import cache_dir, digest, explain_os_error, write_atomic, write_json
from cxrlib.progress import track

VERSION = 1
"""Changes with every change of the pixels that a file gives: the rows are then made anew."""

_CHUNK = 256  # images handed to the threads at a time, which bounds the memory they fill


class Entry(NamedTuple):
    """What the index says of an image."""

    row: int
    mark: str  # the state of the file
    crc: int  # of the pixels


def cached(split: Split, source: Path, files: Files) -> Split:
    """The same split, with its images read from the cache; see :func:`stored`."""
    read = stored(split.train, source, files)
    parts = {name: getattr(split, name).reading(read) for name in ("train", "val", "test")}
    return replace(split, **parts)


def stored(dataset: CXRDataset, source: Path, files: Files) -> Rows:
    """A reader of images from the cache; those it lacks are decoded now, by all cores.

    An image takes image_size² bytes. Of several processes that lack the same images one decodes
    them, while the others wait.

    Args:
        dataset: gives the name, the size, and the reader that decodes an image.
        source: the folder of the release; each has its own store.
        files: the images to hold, from :func:`cxrlib.datasets.images.verify`. An image whose file
            has another size or time of change than it had is decoded again.

    Raises:
        OSError: the disk is too small, the cache cannot be written, or an image cannot be decoded.
            What was decoded so far is kept, and the next call goes on from there.
        ValueError: the dataset's reader refuses an image.
    """
    store = Store(dataset.name, dataset.image_size, source)
    states = zip(files.sizes.tolist(), files.mtimes.tolist(), strict=True)
    marks = [f"{VERSION}:{size}:{mtime}" for size, mtime in states]
    wanted = dict(zip(files.image_ids.tolist(), marks, strict=True))
    if (entries := store.holding(wanted)) is None:
        with store.locked():
            if (entries := store.holding(wanted)) is None:
                entries = store.fill(dataset, wanted)
    rows = np.array([entries[image_id].row for image_id in wanted], int)
    return Rows(store.pixels, files.image_ids, rows)


class Store:
    """The files of the cache of one folder at one size.

    Args:
        name: of the dataset.
        image_size: H = W of the rows, pixels.
        source: the folder of the release.
    """

    def __init__(self, name: str, image_size: int, source: Path) -> None:
        self.source = str(source.resolve())
        self.folder = cache_dir() / f"{name}-{image_size}-{digest(self.source)}"
        self.pixels = self.folder / "pixels.npy"
        self._index = self.folder / "index.jsonl"
        self._seal = self.folder / "seal.json"
        self._size = image_size
        self._start = len(npy_header(0, image_size, image_size))

    def holding(self, wanted: dict[str, str]) -> dict[str, Entry] | None:
        """The index, if the pixels are whole and hold all of ``wanted`` (image -> mark)."""
        entries = self._read_index() if self._sealed() else {}
        return None if _lacking(entries, wanted) else entries

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Work on the files alone; waits, and says so, while another process does.

        Raises:
            OSError: the place cannot be written.
        """
        lock = filelock.FileLock(self.folder / ".lock")
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                print(f"waiting for another process that fills {self.folder}", file=sys.stderr)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def fill(self, dataset: CXRDataset, wanted: dict[str, str]) -> dict[str, Entry]:
        """Decode what the store lacks of ``wanted`` (image -> mark); returns the index."""
        entries = self._sound()
        todo = _lacking(entries, wanted)
        self._refuse_small_disk(sum(image_id not in entries for image_id in todo))
        taken = {entry.row for entry in entries.values()}
        free = (row for row in itertools.count() if row not in taken)
        with self._writing():
            self._seal.unlink(missing_ok=True)
            self.write_index(entries)
            self.pixels.touch()
        # Streams, not a memory map: a disk that fills up is then an error, not a crash.
        with open(self.pixels, "r+b", 0) as pixels, open(self._index, "ab", 0) as index:
            images = track(_decode(dataset, todo), "caching images", len(todo))
            for image_id, image in zip(todo, images, strict=True):
                row = entries[image_id].row if image_id in entries else next(free)
                data = image.tobytes()
                entries[image_id] = Entry(row, wanted[image_id], zlib.crc32(data))
                with self._writing():
                    pixels.seek(self._offset(row))
                    _write(pixels, data)
                    _write(index, _line(image_id, entries[image_id]))
        self.seal(entries)
        return entries

    def write_index(self, entries: dict[str, Entry]) -> None:
        """Write the index anew, without lines that were replaced or damaged."""
        lines = b"".join(_line(image_id, entry) for image_id, entry in entries.items())
        write_atomic(self._index, lambda file: file.write(lines))

    def seal(self, entries: dict[str, Entry]) -> None:
        """Write the number of rows, and what the pixels look like now that they are whole."""
        count = 1 + max((entry.row for entry in entries.values()), default=-1)
        with self._writing(), open(self.pixels, "r+b", 0) as pixels:
            _write(pixels, npy_header(count, self._size, self._size))
            os.fsync(pixels.fileno())  # a power cut must not leave a seal without the pixels
        write_json(self._seal, self._state())

    def _sealed(self) -> bool:
        try:
            return json.loads(self._seal.read_text()) == self._state()
        except (OSError, ValueError):
            return False

    def _state(self) -> dict[str, str | int]:
        stat = self.pixels.stat()
        return {"source": self.source, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}

    def _read_index(self) -> dict[str, Entry]:
        """The last whole line of each image."""
        lines = self._index.read_bytes().split(b"\n") if self._index.is_file() else []
        whole = (text for line in lines if _crc(text := line[9:]) == line[:8])
        return {image_id: Entry(*rest) for image_id, *rest in map(json.loads, whole)}

    def _sound(self) -> dict[str, Entry]:
        """The index without images whose pixels were damaged or not wholly written."""
        entries = self._read_index()
        if self._sealed() or not self.pixels.is_file():
            return entries if self.pixels.is_file() else {}
        with open(self.pixels, "rb") as file:
            items = track(entries.items(), "checking the image cache", len(entries))
            return {name: entry for name, entry in items if self._fits(file, entry)}

    def _fits(self, file: BinaryIO, entry: Entry) -> bool:
        file.seek(self._offset(entry.row))
        return zlib.crc32(file.read(self._size**2)) == entry.crc

    def _offset(self, row: int) -> int:
        return self._start + row * self._size**2

    def _refuse_small_disk(self, images: int) -> None:
        needed, free = images * self._size**2, shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"caching {images} images of {self._size} x {self._size} px needs "
                f"{needed / 1e9:.2f} GB in {self.folder}, where {free / 1e9:.2f} GB are free; free "
                "some, set CXRLIB_CACHE to a folder on a larger disk, or load with cache=False"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain_os_error(error, self.folder) from error


def _lacking(entries: dict[str, Entry], wanted: dict[str, str]) -> list[str]:
    have = {image_id: entry.mark for image_id, entry in entries.items()}
    return [image_id for image_id, mark in wanted.items() if have.get(image_id) != mark]


def _decode(dataset: CXRDataset, image_ids: list[str]) -> Iterator[np.ndarray]:
    """The images in order; threads are enough, as decoding and resizing release Python's lock."""
    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        for start in range(0, len(image_ids), _CHUNK):
            yield from pool.map(dataset.read_pixels, image_ids[start : start + _CHUNK])


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of it: an unbuffered file may take a part, and tells a full disk the next time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _crc(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def _line(image_id: str, entry: Entry) -> bytes:
    text = json.dumps([image_id, *entry]).encode()
    return _crc(text) + b" " + text + b"\n"
