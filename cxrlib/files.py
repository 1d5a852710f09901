"""Files and places: whole-or-nothing writes, hashes, the user's cache directory."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import platformdirs

if TYPE_CHECKING:
    import pandas as pd


def cache_dir() -> Path:
    """Where generated and downloaded data live: ``$CXRLIB_CACHE``, else the platform's user cache.

    >>> cache_dir().is_absolute()
    True
    """
    place = os.environ.get("CXRLIB_CACHE") or platformdirs.user_cache_dir("cxrlib")
    return Path(place).expanduser().resolve()


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: to a temporary name beside it, flushed, then renamed.

    Args:
        path: the final name; its folder is made if absent.
        write: called with the open binary file.

    Raises:
        OSError: the file could not be written (disk full, no permission); the message names the
            file and the mend, and no part of it is left behind.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> write_atomic(path, lambda file: file.write(b"whole"))
    >>> path.read_bytes()
    b'whole'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


def _clear(path: Path) -> None:
    """Take away what killed processes left of this file: those at work wrote within the hour."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def explain_os_error(
    error: OSError, path: Path, setting: str = "run_dir or CXRLIB_CACHE"
) -> OSError:
    """The same error with the file it is about and what to do, in one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        mend = "the disk (or quota) is full: free some space and run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        mend = f"this place cannot be written: choose another with {setting}"
    else:
        mend = f"choose another place with {setting}"
    text = f"cannot write {path} ({error.strerror or error}); {mend}"
    return OSError(error.errno, text) if error.errno else OSError(text)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document whole or not at all; NaN is refused, use None (``null``)."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    write_text(path, text)


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table whole or not at all; numbers have six digits, the index is left out."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def digest(*parts: bytes | str) -> str:
    """A short, stable name for some content: the first 12 hex digits of its SHA-256.

    >>> digest("a", b"b")
    'fb8e20fc2e4c'
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else part)
    return sha.hexdigest()[:12]
