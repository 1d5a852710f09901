"""An ``.npz`` archive from anyone: read without pickle, in bounded memory, its text checked."""

import os
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from cxrlib.checks import told


def load_arrays(path: Path | str, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of an archive.

    Args:
        path: of an ``.npz`` file.
        names: of the arrays to read; others are named in the result, but not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no archive, is damaged, would take more than half of this machine's memory
            once unpacked, or holds objects or strings that are no text.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.npz"
    >>> np.savez(path, x=[1, 2], y=[3])
    >>> load_arrays(path, ["x"])
    {'x': array([1, 2]), 'y': array(0)}
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("not an .npz archive, or one that was cut short; write it again")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as stored:
                _refuse_huge(sum(info.file_size for info in stored.zip.infolist()))
                # As an array also what is none: numpy gives other members as bytes.
                held = {n: np.asarray(stored[n] if n in names else 0) for n in stored.files}
        except Exception as error:  # zipfile and numpy raise any kind on a damaged archive
            raise ValueError(
                f"an array cannot be read ({told(error)}); arrays of numbers and of strings were "
                "expected, whole and not pickled: np.asarray(image_ids, str) makes one of objects"
            ) from error
    for name, array in held.items():
        _refuse_no_text(name, array)
    return held


def _refuse_huge(size: int) -> None:
    """Raise if unpacking would fill the memory: a few megabytes can hold gigabytes of zeros."""
    memory = 2**34  # of systems that do not tell
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory / 2:
        raise ValueError(
            f"unpacked it takes {size / 1e9:.1f} GB, of {memory / 1e9:.1f} GB of memory in all"
        )


def _refuse_no_text(name: str, array: np.ndarray) -> None:
    """Raise if strings hold what is no character, on which Python fails later and anywhere."""
    if array.dtype.kind == "U" and array.size and array.itemsize:
        codes = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
        if np.atleast_1d(np.ascontiguousarray(array)).view(codes).max() > sys.maxunicode:
            raise ValueError(f"{name} holds bytes that are no text; write the file again")
