import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbclient
import nbformat
import pytest

from cxrlib.files import cache_dir, digest, write_atomic, write_json
from cxrlib.progress import NotebookLine, track


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "here"))
    assert cache_dir() == (tmp_path / "here").resolve()
    monkeypatch.setenv("CXRLIB_CACHE", "~/there")
    assert cache_dir() == (Path.home() / "there").resolve()
    monkeypatch.delenv("CXRLIB_CACHE")
    assert cache_dir().name == "cxrlib"


def test_write_atomic_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.bin"
    for content in (b"old", b"new"):
        write_atomic(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError("no luck"), ValueError("no luck"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        write_atomic(path, write)
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"cannot write {path} (no luck); choose another place")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_write_atomic_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot write .*a\.bin .*; choose another place"):
        write_atomic(tmp_path / "file" / "a.bin", lambda file: None)
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from cxrlib.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_atomic(Path(sys.argv[1]), lambda file: file.write(bytes(1_000_000)))
"""


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"cannot write {path}" in done.stderr
    assert "free some space and run the same command again" in done.stderr
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_write_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": None, "a": "σ"})
    assert json.loads(path.read_text("utf-8")) == {"a": "σ", "b": None}
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert path.read_bytes() == before


def test_digest():
    assert digest("σ", b"b") == hashlib.sha256("σb".encode()).hexdigest()[:12]


def test_track_yields_everything_and_is_silent_elsewhere(capsys):
    assert list(track(iter("abc"), "letters", total=3)) == ["a", "b", "c"]
    assert list(track([], "nothing", total=0)) == []
    assert capsys.readouterr() == ("", "")


def test_track_draws_a_bar_in_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track("abc", "quick", total=3)) == ["a", "b", "c"]
    assert terminal.getvalue() == ""
    slow = (time.sleep(0.8) or letter for letter in "abcd")
    assert list(track(slow, "letters", total=4)) == ["a", "b", "c", "d"]
    assert "letters: 100%" in terminal.getvalue()


def test_line_is_silent_in_a_program_that_imports_ipykernel(capsys):
    import ipykernel

    assert ipykernel.__name__ in sys.modules
    NotebookLine().show("text")
    assert capsys.readouterr() == ("", "")


def test_a_notebook_keeps_one_line():
    code = (
        "import time; from cxrlib.progress import track\n"
        "for _ in track(range(3), 'quick', total=3): pass\n"
        "for _ in track(range(4), 'counting', total=4): time.sleep(0.8)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert re.fullmatch(r"counting: 4 of 4, \d+ s", output["data"]["text/plain"])


def test_what_a_killed_process_left_is_taken_away_after_an_hour(tmp_path):
    old, young = tmp_path / ".a.csv.1.tmp", tmp_path / ".a.csv.2.tmp"
    other = tmp_path / ".b.csv.1.tmp"
    for path in (old, young, other):
        path.write_text("half a li")
    for path in (old, other):
        os.utime(path, (time.time() - 3700,) * 2)
    write_atomic(tmp_path / "a.csv", lambda file: file.write(b"whole"))
    assert not old.exists() and young.exists() and other.exists()
