"""A stored array, read by the names of its rows."""

import io
import mmap
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


class Rows:
    """Reads rows of a stored array by name, one or many at once.

    It can be sent to loader processes: each maps the array into memory for itself, once.

    Args:
        path: an ``.npy`` file.
        names: (N,) distinct strings.
        rows: (N,) the row of each name; by default the first N rows have these names.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.npy"
    >>> np.save(path, np.array([[1, 2], [3, 4]]))
    >>> read = Rows(path, np.array(["one", "two"]))
    >>> read("two").tolist(), read.batch(np.array(["two", "one"])).tolist()
    ([3, 4], [[3, 4], [1, 2]])
    """

    def __init__(self, path: Path, names: np.ndarray, rows: np.ndarray | None = None) -> None:
        order = np.argsort(names)
        self.path = path
        self._names = np.asarray(names, str)[order]
        self._rows = order if rows is None else rows[order]

    @cached_property
    def array(self) -> np.memmap:
        """The whole array, mapped into memory."""
        return np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """All but the map, which would be sent as the array's content."""
        return {name: value for name, value in vars(self).items() if name != "array"}

    def __call__(self, name: str) -> np.ndarray:
        """The row of a name."""
        return self.batch(np.array([name]))[0]

    def batch(self, names: np.ndarray) -> np.ndarray:
        """The rows of (B,) names, as a copy (B, ...).

        Raises:
            KeyError: a name is not among those of this reader.
        """
        # Cast the few, or numpy would cast all N names to the longer type for each batch.
        place = np.searchsorted(self._names, names.astype(self._names.dtype))
        place = place.clip(max=len(self._names) - 1)
        if not (known := self._names[place] == names).all():
            raise KeyError(f"{self.path} has no row of {names[~known].tolist()[:3]}")
        rows = self._rows[place]
        self._announce(rows)
        return np.take(np.asarray(self.array), rows, axis=0)

    def _announce(self, rows: np.ndarray) -> None:
        """Have the disk fetch all rows at once; else each page waits for its own turn.

        Ten times as fast where the pages are not in memory yet, and free where they are.
        """
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        memory: Any = self.array.base
        length, page = self.array.strides[0], mmap.PAGESIZE
        for start in ((self.array.offset + rows * length) // page * page).tolist():
            memory.madvise(mmap.MADV_WILLNEED, start, length + page)


def npy_header(*shape: int) -> bytes:
    """The first bytes of an ``.npy`` file of uint8; as many bytes for any number of rows.

    >>> len(npy_header(0, 8)) == len(npy_header(112120, 8))
    True
    """
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()
