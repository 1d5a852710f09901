import errno
import re
import socket

import numpy as np
import pytest
from loopback import Loopback

from cxrlib.datasets.fetch import BLOCK, fetch, part_file, probe, show_size


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


CONTENT = noise(50_000)


@pytest.fixture
def server():
    with Loopback() as server:
        server.files["/a"] = CONTENT
        server.headers["ETag"] = '"1"'
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The waits between attempts, seconds, in place of waiting."""
    waits = []
    monkeypatch.setattr("cxrlib.datasets.fetch.time.sleep", waits.append)
    return waits


def ranges(server):
    """What was asked for and how many bytes were sent, download by download."""
    return [(asked, size) for _, asked, _, size in server.sent]


def get(server, path, **options):
    fetch(server.link("/a"), path, **{"timeout_s": 5, "attempts": 3, **options})
    return path.read_bytes()


def test_a_file_arrives_whole_and_alone(server, tmp_path, waits):
    assert get(server, tmp_path / "a") == CONTENT
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]
    assert ranges(server) == [(None, len(CONTENT))]
    assert waits == []


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_only_the_missing_bytes_are_sent_again(server, tmp_path, waits, capsys, fault):
    server.faults = [(fault, 20_000), (fault, 5_000)]
    assert get(server, tmp_path / "a", timeout_s=0.5) == CONTENT
    server.released.set()
    asked = [headers["Range"] for _, headers in server.requests if "Range" in headers]
    assert [one for one in asked if one != "bytes=0-0"] == ["bytes=20000-", "bytes=25000-"]
    assert (None, len(CONTENT)) not in ranges(server)
    assert ("bytes=25000-", 25_000) in ranges(server)
    assert waits == [1, 2]
    said = capsys.readouterr().out
    assert "a: going on after 20.0 kB of 50.0 kB" in said
    assert ("ended 30000 bytes early" if fault == "cut" else "broke off (timed out)") in said


def test_a_later_call_goes_on(server, tmp_path):
    server.faults = [("cut", 12_345)]
    kept = r"^a: 1 attempts failed, .* ended 37655 bytes early; 12.3 kB are kept in .*a\.part; run"
    with pytest.raises(OSError, match=kept):
        get(server, tmp_path / "a", attempts=1)
    assert not (tmp_path / "a").exists()
    assert part_file(tmp_path / "a").read_bytes() == CONTENT[:12_345]
    assert get(server, tmp_path / "a") == CONTENT
    assert ranges(server) == [(None, 12_345), ("bytes=12345-", 37_655)]


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    server.faults = [("cut", 49_999)]
    with pytest.raises(OSError, match="1 bytes early"):
        get(server, tmp_path / "a", attempts=1)
    with open(part_file(tmp_path / "a"), "ab") as file:
        file.write(CONTENT[-1:])
    assert get(server, tmp_path / "a") == CONTENT
    assert len(server.sent) == 1


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    server.faults = [("cut", 49_999)]
    with pytest.raises(OSError, match="1 bytes early"):
        get(server, tmp_path / "a", attempts=1)
    with open(part_file(tmp_path / "a"), "ab") as file:
        file.write(b"12")
    assert get(server, tmp_path / "a") == CONTENT
    assert ranges(server) == [(None, 49_999), (None, 50_000)]


@pytest.mark.parametrize("seed", range(25))
def test_any_cuts_anywhere_lose_nothing(server, tmp_path, seed):
    rng = np.random.default_rng(seed)
    server.files["/a"] = content = noise(int(rng.integers(1, 200_000)), seed)
    cuts = np.sort(rng.integers(0, len(content), rng.integers(0, 8)))
    server.faults = [("cut", int(size)) for size in np.diff(cuts, prepend=0)]
    assert get(server, tmp_path / "a", attempts=len(cuts) + 1) == content
    assert sum(size for _, size in ranges(server)) == len(content)
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_a_server_that_cannot_resume_starts_over(server, tmp_path, capsys):
    server.ranges = False
    server.faults = [("cut", 40_000)]
    assert get(server, tmp_path / "a") == CONTENT
    assert ranges(server) == [(None, 40_000), ("bytes=40000-", 50_000)]
    assert "a: the server cannot resume; starting over" in capsys.readouterr().out


CHANGES = {
    "etag": ({"ETag": '"1"'}, {"ETag": '"2"'}, 50_000),
    "weak etag": ({"ETag": 'W/"1"'}, {"ETag": 'W/"2"'}, 50_000),
    "date": ({"Last-Modified": "Mon"}, {"Last-Modified": "Tue"}, 50_000),
    "longer": ({}, {}, 50_001),
    "shorter": ({}, {}, 10),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_between_attempts_starts_over(server, tmp_path, capsys, change):
    server.headers, after, size = CHANGES[change]
    server.faults = [("cut", 30_000)]
    with pytest.raises(OSError, match="are kept"):
        get(server, tmp_path / "a", attempts=1)
    server.headers = after
    server.files["/a"] = new = noise(size, seed=1)
    assert get(server, tmp_path / "a") == new
    assert ranges(server)[1] == (None, size)
    assert "a.part: the server's file has changed since; starting over" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_a_file_that_changes_behind_the_probe_is_not_mixed(server, tmp_path, name):
    server.headers = {name: '"1"'}
    server.faults = [("cut", 30_000)]
    with pytest.raises(OSError, match="are kept"):
        get(server, tmp_path / "a", attempts=1)
    new = noise(50_000, seed=1)

    def swap():
        server.headers[name] = '"2"'
        server.files["/a"] = new

    server.after_probe = swap
    assert get(server, tmp_path / "a") == new
    assert ranges(server) == [(None, 30_000), ("bytes=30000-", 50_000)]


@pytest.mark.parametrize("size", [10, 60_000])
def test_a_first_answer_of_another_size_than_probed_is_not_taken(server, tmp_path, size):
    new = noise(size, seed=1)
    server.headers = {}
    server.after_probe = lambda: server.files.update({"/a": new})
    assert get(server, tmp_path / "a") == new


def test_a_weak_etag_is_not_sent_back(server, tmp_path):
    server.headers = {"ETag": 'W/"1"'}
    server.faults = [("cut", 30_000)]
    assert get(server, tmp_path / "a") == CONTENT
    assert not [headers for _, headers in server.requests if "If-Range" in headers]


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_passing_error_is_tried_again(server, tmp_path, waits, code):
    server.faults = [("status", code), ("status", code)]
    assert get(server, tmp_path / "a") == CONTENT
    assert waits == [1, 2]


def test_errors_that_stay_end_it_after_some_attempts(server, tmp_path, waits):
    server.faults = [("status", 503)] * 20
    with pytest.raises(OSError, match=r"^a: 8 attempts failed, .*503 .*; run the same command aga"):
        get(server, tmp_path / "a", attempts=8)
    assert waits == [1, 2, 4, 8, 16, 32, 60]
    assert len(server.faults) == 12


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_final_error_is_not_tried_again(server, tmp_path, waits, code):
    server.faults = [("status", code)]
    mend = rf"answered with {code} .*: get a by hand, put it in {tmp_path} and run the same"
    with pytest.raises(OSError, match=mend):
        get(server, tmp_path / "a")
    assert waits == []


def test_a_link_that_leads_nowhere_names_the_way_out(server, tmp_path):
    with pytest.raises(OSError, match=r"/b is answered with 404 .*; the link may have moved: get"):
        probe(server.link("/b"), tmp_path / "b")


def test_no_server_at_all(tmp_path, waits):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        link = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
        with pytest.raises(OSError, match=rf"^a: 2 attempts failed, .*{link} cannot be reached"):
            probe(link, tmp_path / "a", attempts=2)
    assert waits == [1]


def test_a_redirect_is_followed_and_resumed(server, tmp_path):
    server.faults = [("cut", 30_000)]
    fetch(server.link("/moved/moved/a"), tmp_path / "a", timeout_s=5)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert ranges(server) == [(None, 30_000), ("bytes=30000-", 20_000)]


@pytest.mark.parametrize("understood", [True, False])
def test_probe_costs_a_byte(server, tmp_path, understood):
    server.ranges = understood
    assert probe(server.link("/a"), tmp_path / "a") == (50_000, '"1"')
    assert [headers["Range"] for _, headers in server.requests] == ["bytes=0-0"]
    assert [*tmp_path.iterdir()] == []


def test_a_web_page_in_place_of_the_file_is_refused(server, tmp_path):
    server.headers["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(OSError, match=r"/a is answered with a web page; the link may have moved"):
        get(server, tmp_path / "a")
    assert [*tmp_path.iterdir()] == []


def test_a_file_of_unknown_size_is_refused(server, tmp_path):
    server.ranges = server.tells_size = False
    with pytest.raises(OSError, match=r"/a is answered without a size; the link may have moved"):
        get(server, tmp_path / "a")


@pytest.mark.parametrize("claims", [100, -100])
@pytest.mark.parametrize("understood", [True, False])
def test_a_server_that_lies_about_the_size(server, tmp_path, claims, understood):
    server.ranges, server.claims = understood, claims
    if claims < 0:  # no more is taken than was told; the checksum finds it
        assert get(server, tmp_path / "a") == CONTENT[:claims]
        return
    with pytest.raises(OSError, match=r"3 attempts failed, .* 100 bytes early; 50.0 kB are kept"):
        get(server, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_bytes_from_elsewhere_are_not_appended(server, tmp_path):
    server.faults = [("cut", 30_000)]
    with pytest.raises(OSError, match="are kept"):
        get(server, tmp_path / "a", attempts=1)

    def shrink():
        server.claims = -1

    server.after_probe = shrink
    server.headers = {"ETag": '"1"'}
    with pytest.raises(OSError, match=r"the server sent other bytes than were asked for; 30.0 kB"):
        get(server, tmp_path / "a", attempts=1)
    assert part_file(tmp_path / "a").read_bytes() == CONTENT[:30_000]


def test_attempts_count_from_the_last_megabyte_of_progress(server, tmp_path, waits):
    server.files["/a"] = content = noise(5 * BLOCK)
    server.faults = [("cut", BLOCK)] * 4
    assert get(server, tmp_path / "a", attempts=2) == content
    assert waits == [1, 1, 1, 1]


def test_the_same_megabytes_again_are_no_progress(server, tmp_path):
    server.files["/a"], server.ranges = noise(3 * BLOCK), False
    server.faults = [("cut", 2 * BLOCK)] * 10
    with pytest.raises(OSError, match=r"3 attempts failed, .*; 2.10 MB are kept in "):
        get(server, tmp_path / "a")
    assert len(server.faults) == 7


def test_a_full_disk_is_named_and_not_tried_again(server, tmp_path, waits):
    server.faults = [("cut", 0)]
    with pytest.raises(OSError, match="50000 bytes early"):
        get(server, tmp_path / "a", attempts=1)
    part = part_file(tmp_path / "a")
    part.unlink()
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"^.*cannot write {part} .* is full: free some") as caught:
        get(server, tmp_path / "a")
    assert caught.value.errno == errno.ENOSPC
    assert waits == []


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (2.5e6, "2.50 MB"), (45_079_862_784, "45.1 GB")],
)
def test_show_size(size, text):
    assert show_size(size) == text


def test_nothing_is_printed_but_what_happened(server, tmp_path, capfd):
    get(server, tmp_path / "a")
    assert re.sub(r"\s", "", "".join(capfd.readouterr())) == ""
