"""One large file over HTTP: goes on where it stopped, starts over when the server's file changed.

This uses ``urllib.request`` and not pooch, because pooch 1.9 opens its file anew for each download
and sends no Range request: a download of 4 GB that breaks would start again from nothing.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from cxrlib import __version__
from cxrlib.files import explain_os_error, write_atomic

T = TypeVar("T")

BLOCK = 1 << 20  # bytes
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone at the next attempt
_LONGEST_WAIT = 60  # seconds


class Remote(NamedTuple):
    """What a server says of a file: its size in bytes, and its ETag, else when it was changed."""

    size: int
    mark: str


class _Broken(Exception):
    """A transfer that failed in a way that may not come again."""


def part_file(path: Path) -> Path:
    """Where a file lies while it is incomplete.

    >>> part_file(Path("images_001.tar.gz")).name
    'images_001.tar.gz.part'
    """
    return path.with_name(f"{path.name}.part")


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none.

    >>> size_of(Path("no such file"))
    0
    """
    return path.stat().st_size if path.exists() else 0


def show_size(size: float) -> str:
    """A number of bytes for people.

    >>> show_size(2_008_470_987)
    '2.01 GB'
    """
    number = str(tqdm.format_sizeof(size))
    return f"{size:.0f} bytes" if size < 1000 else f"{number[:-1]} {number[-1]}B"


def probe(link: str, path: Path, *, timeout_s: float = 60, attempts: int = 5) -> Remote:
    """Ask for the size of a file, without downloading it.

    Args:
        link: HTTP(S) address; redirects are followed.
        path: where the file is to go, for the messages.
        timeout_s: seconds of silence after which a connection counts as lost.
        attempts: how often to try.

    Raises:
        OSError: the server has no such file, does not say how large it is, or does not answer.
    """
    return _patiently(lambda: _probe(link, path, timeout_s), path, attempts)


def fetch(link: str, path: Path, *, timeout_s: float = 60, attempts: int = 5) -> None:
    """Download a file; ``path`` exists only when it is whole, in length.

    Until then the bytes lie in ``path`` + ``.part``, and what the server said of its file beside
    them in ``.part.json``. They are kept whatever happens, and the next call goes on after them,
    unless the server's file has changed or the server cannot resume; then it says so.

    Args:
        link: HTTP(S) address; redirects are followed.
        path: where the file goes; the folder exists.
        timeout_s: seconds of silence after which a connection counts as lost.
        attempts: failures in a row, without a megabyte of progress, before giving up. Between
            them the wait doubles, from one second to one minute.

    Raises:
        OSError: the server has no such file, or all attempts failed; the message says what is kept.
    """
    part = part_file(path)
    _patiently(lambda: _attempt(link, path, timeout_s), path, attempts)
    os.replace(part, path)
    _note(part).unlink()


def _patiently(action: Callable[[], T], path: Path, attempts: int) -> T:
    failures, best = 0, size_of(part_file(path))
    while True:
        try:
            return action()
        except _Broken as error:
            held = size_of(part_file(path))
            failures = 1 if held >= best + BLOCK else failures + 1
            best = max(best, held)
            if failures >= attempts:
                raise OSError(_gave_up(path, failures, error, held)) from error
            wait = min(2 ** (failures - 1), _LONGEST_WAIT)
            print(f"{path.name}: {error}; trying again in {wait} s")
            time.sleep(wait)


def _gave_up(path: Path, failures: int, error: Exception, held: int) -> str:
    kept = f"{show_size(held)} are kept in {part_file(path)}; " if held else ""
    return (
        f"{path.name}: {failures} attempts failed, the last because {error}; "
        f"{kept}run the same command again to go on"
    )


def _attempt(link: str, path: Path, timeout_s: float) -> None:
    part = part_file(path)
    remote = _probe(link, path, timeout_s)
    held = _usable(part, remote)
    if held == remote.size:
        return
    with _open(link, path, timeout_s, _resume(held, remote)) as response:
        _append(response, part, _start(response, path, held, remote), remote.size)


def _probe(link: str, path: Path, timeout_s: float) -> Remote:
    # The first byte and not a HEAD request: links that lead on to a signed address often allow GET
    # alone, and Content-Range gives the size of the whole.
    with _open(link, path, timeout_s, {"Range": "bytes=0-0"}) as response:
        headers = response.headers
        whole = headers.get("Content-Range", "").rpartition("/")[2]
        size = whole if response.status == 206 else headers.get("Content-Length", "")
        page = headers.get_content_type() == "text/html"
    if page or not size.isdecimal():
        flaw = "is answered with a web page" if page else "is answered without a size"
        raise OSError(f"{link} {flaw}; {_by_hand(path)}")
    return Remote(int(size), headers.get("ETag", "") or headers.get("Last-Modified", ""))


def _usable(part: Path, remote: Remote) -> int:
    """Bytes already there that belong to the server's file; anything else is taken away."""
    note, said = _note(part), json.dumps(remote)
    held = size_of(part)
    if held <= remote.size and note.exists() and note.read_text() == said:
        return held
    if held:
        print(f"{part.name}: the server's file has changed since; starting over")
    # In this order, so that no bytes are ever beside the note of another file.
    part.unlink(missing_ok=True)
    write_atomic(note, lambda file: file.write(said.encode()))
    return 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _resume(held: int, remote: Remote) -> dict[str, str]:
    if not held:
        return {}
    # If-Range takes no weak ETag (RFC 9110, 13.1.5).
    same = remote.mark and not remote.mark.startswith("W/")
    return {"Range": f"bytes={held}-"} | ({"If-Range": remote.mark} if same else {})


def _start(response: HTTPResponse, path: Path, held: int, remote: Remote) -> int:
    """Where the bytes of this answer belong."""
    given = response.headers.get("Content-Range")
    if response.status == 206 and given == f"bytes {held}-{remote.size - 1}/{remote.size}":
        print(f"{path.name}: going on after {show_size(held)} of {show_size(remote.size)}")
        return held
    if response.status != 200 or response.length not in (None, remote.size):
        raise _Broken("the server sent other bytes than were asked for")
    if held:
        print(f"{path.name}: the server cannot resume; starting over")
    return 0


def _append(response: HTTPResponse, part: Path, start: int, size: int) -> None:
    bar = tqdm(
        total=size, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None
    )  # disable=None: silent where there is no terminal
    try:
        with bar, open(part, "ab" if start else "wb") as file:
            for at in iter(file.tell, size):
                bar.update(file.write(_read(response, size - at)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise explain_os_error(error, part, "--to") from error


def _read(response: HTTPResponse, rest: int) -> bytes:
    try:
        # read1, not read: bytes that came before a connection is lost are written, not dropped.
        block = response.read1(min(BLOCK, rest))
    except (OSError, HTTPException) as error:
        raise _Broken(f"the transfer broke off ({error or type(error).__name__})") from error
    if not block:
        raise _Broken(f"the transfer ended {rest} bytes early")
    return block


def _open(link: str, path: Path, timeout_s: float, headers: Mapping[str, str]) -> HTTPResponse:
    named = {"User-Agent": f"cxrlib/{__version__}", **headers}
    request = urllib.request.Request(link, headers=named)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"{link} is answered with {error.code} {error.reason}"
        if error.code in _PASSING:
            raise _Broken(answer) from error
        raise OSError(f"{answer}; {_by_hand(path)}") from error
    except (OSError, HTTPException) as error:
        raise _Broken(f"{link} cannot be reached ({error})") from error
    return response


def _by_hand(path: Path) -> str:
    return (
        f"the link may have moved: get {path.name} by hand, put it in {path.parent} "
        "and run the same command again"
    )
