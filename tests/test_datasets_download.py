import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile

import filelock
import numpy as np
import pandas as pd
import pytest
from loopback import Loopback
from PIL import Image

from cxrlib import cli, datasets
from cxrlib.datasets import nih
from cxrlib.datasets.download import (
    SUMS,
    Archive,
    archives,
    download,
    parts_table,
    show_parts,
    verify,
)

NAMES = [f"{patient:08}_{visit:03}" for patient in range(1, 11) for visit in range(2)]
"""Ten patients of two images; the first twelve images are part 1, the others part 2."""
MEMBERS = [NAMES[:12], NAMES[12:]]


def png(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def member(name, content=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def pack(*members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def images_of(names):
    return [member(f"images/{name}.png", png(int(name.replace("_", "")))) for name in names]


CONTENT = [pack(member("images", kind=tarfile.DIRTYPE), *images_of(names)) for names in MEMBERS]
TABLES = {
    "Data_Entry_2017_v2020.csv": "Image Index,Finding Labels,Patient ID\n"
    + "".join(f"{name}.png,Mass|Nodule,{int(name[:8])}\n" for name in NAMES),
    "BBox_List_2017.csv": "Image Index,Finding Label,Bbox x,Bbox y,Bbox w,Bbox h\n"
    f"{NAMES[-1]}.png,Mass,256,256,512,512\n",
    "train_val_list.txt": "\n".join(f"{name}.png" for name in NAMES[:-4]),
    "test_list.txt": "\n".join(f"{name}.png" for name in NAMES[-4:]),
}


@pytest.fixture
def server():
    with Loopback() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "my data"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr("cxrlib.datasets.fetch.time.sleep", lambda seconds: None)


def publish(server, part, content, images):
    server.files[f"/{part}"] = content
    md5 = hashlib.md5(content).hexdigest()
    return Archive(part, server.link(f"/moved/{part}"), md5, images)


@pytest.fixture
def release(server):
    """Both parts, as published."""
    return [publish(server, part, CONTENT[part - 1], len(MEMBERS[part - 1])) for part in (1, 2)]


def listing(folder):
    """Everything below a folder but the lock."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name for name in found if name != ".download.lock"}


def extracted(part):
    return {f"images_{part:03}/images/{name}.png" for name in MEMBERS[part - 1]}


ALL = extracted(1) | extracted(2) | {SUMS, "images_001.tar.gz", "images_002.tar.gz"}


def test_from_the_links_to_a_dataset(release, server, folder, capsys):
    download(folder, release)
    assert listing(folder) == ALL
    assert capsys.readouterr().out == (
        "images_001: 12 images\nimages_002: 8 images\n"
        f"Still needed, by hand from {nih.HOME} into {folder}: "
        "Data_Entry_2017*.csv, BBox_List_2017*.csv, train_val_list.txt, test_list.txt\n"
    )
    for name, text in TABLES.items():
        (folder / name).write_text(text)
    split = datasets.load("nih", str(folder), 64)
    assert (len(split.train) + len(split.val), len(split.test)) == (16, 4)
    sample = split.test[3]
    expected = np.asarray(Image.open(io.BytesIO(png(int(NAMES[-1].replace("_", ""))))))
    assert (sample.image[0] * 255).round().int().tolist() == expected.tolist()
    assert sample.boxes.tolist() == [[16, 16, 48, 48]]
    server.requests.clear()
    download(folder, release)
    assert server.requests == []
    assert capsys.readouterr().out == "images_001: 12 images\nimages_002: 8 images\n"


def test_sha256sum_reads_the_checksums(release, folder):
    download(folder, release)
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "images_001.tar.gz: OK\nimages_002.tar.gz: OK\n")


def test_a_broken_download_goes_on_and_loses_no_part(release, server, folder):
    server.faults = [None, ("cut", 1000)]
    with pytest.raises(OSError, match=r"images_002.tar.gz: 1 attempts failed.* 1.00 kB are kept"):
        download(folder, release, attempts=1)
    first = {*extracted(1), "images_001.tar.gz", SUMS}
    assert listing(folder) == first | {"images_002.tar.gz.part", "images_002.tar.gz.part.json"}
    download(folder, release, attempts=1)
    assert listing(folder) == ALL
    sent = [(path, size) for path, _, _, size in server.sent]
    assert sent == [
        ("/1", len(CONTENT[0])),
        ("/2", 1000),
        ("/2", len(CONTENT[1]) - 1000),
    ]


def test_a_stalled_download_times_out(release, server, folder):
    server.faults = [("stall", 700)]
    download(folder, release[:1], timeout_s=0.5)
    assert listing(folder) == extracted(1) | {"images_001.tar.gz", SUMS}


def test_archives_are_deleted_only_when_asked_and_extracted(release, folder):
    download(folder, release[:1])
    download(folder, release, delete_archives=True)
    assert listing(folder) == extracted(1) | extracted(2) | {SUMS}
    download(folder, release)
    assert listing(folder) == extracted(1) | extracted(2) | {SUMS}


def test_extracted_files_have_the_rights_of_any_new_file(server, folder, tmp_path):
    members = images_of(NAMES[:2])
    for (info, _), mode in zip(members, (0, 0o6777), strict=True):
        info.mode = mode
    download(folder, [publish(server, 1, pack(*members), 2)])
    (tmp_path / "new").touch()
    modes = {path.stat().st_mode for path in (folder / "images_001" / "images").iterdir()}
    assert modes == {(tmp_path / "new").stat().st_mode}


def test_an_archive_got_by_hand_is_used(release, server, folder):
    folder.mkdir()
    (folder / "images_001.tar.gz").write_bytes(CONTENT[0])
    download(folder, release[:1])
    assert server.requests == []
    assert listing(folder) == extracted(1) | {"images_001.tar.gz", SUMS}


def accept(message):
    command = re.search(r"accept it with: \((.+)\)$", message).group(1)
    subprocess.run(command, shell=True, check=True)


def test_an_archive_unlike_the_published_one_is_refused_or_accepted(release, server, folder):
    server.files["/1"] = other = pack(*images_of(NAMES[8:20]))
    flaw = rf"^{folder / 'images_001.tar.gz'} is not the expected file: .*{release[0].md5}; delete"
    for _ in range(2):
        with pytest.raises(ValueError, match=flaw) as caught:
            download(folder, release)
        assert listing(folder) == {"images_001.tar.gz"}
    assert hashlib.md5(other).hexdigest() in str(caught.value)
    assert len(server.sent) == 1
    accept(str(caught.value))
    download(folder, release[:1])
    assert len([*(folder / "images_001" / "images").iterdir()]) == 12
    verify(folder, release[:1])


def test_an_archive_unlike_the_one_first_seen_is_refused_or_accepted(release, server, folder):
    download(folder, release[:1])
    shutil.rmtree(folder / "images_001")
    (folder / "images_001.tar.gz").unlink()
    new = pack(*images_of(NAMES[8:20]))
    changed = [publish(server, 1, new, 12)]
    old = hashlib.sha256(CONTENT[0]).hexdigest()
    with pytest.raises(ValueError, match=rf"but {folder / SUMS} has {old}; delete it") as caught:
        download(folder, changed)
    assert listing(folder) == {"images_001.tar.gz", SUMS}
    accept(str(caught.value))
    download(folder, changed)
    assert (folder / "images_001").is_dir()


@pytest.mark.parametrize("at", [0, 500, -1])
def test_verify_finds_one_changed_byte(release, folder, capsys, at):
    download(folder, release)
    capsys.readouterr()
    sums = (folder / SUMS).read_text()
    verify(folder, release)
    assert (folder / SUMS).read_text() == sums
    assert capsys.readouterr().out == "".join(
        f"images_00{part}.tar.gz: as it should be\n" for part in (1, 2)
    )
    content = bytearray(CONTENT[1])
    content[at] ^= 1
    (folder / "images_002.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"images_002.tar.gz is not the expected file: it has MD5"):
        verify(folder, release)
    assert listing(folder) == ALL


def test_verify_looks_at_what_is_there(release, folder, capsys):
    with pytest.raises(FileNotFoundError, match=r"none of images_001.tar.gz, images_002.tar.gz; d"):
        verify(folder, release)
    assert not folder.exists()
    folder.mkdir()
    (folder / "images_002.tar.gz").write_bytes(CONTENT[1])
    verify(folder, release)
    assert capsys.readouterr().out == "images_002.tar.gz: as it should be, not extracted\n"
    assert (folder / SUMS).read_text() == (
        f"{hashlib.sha256(CONTENT[1]).hexdigest()}  images_002.tar.gz\n"
    )


def test_the_checksums_of_other_files_are_left_alone(release, folder):
    folder.mkdir()
    mine = f"# mine\n{'0' * 64} *other.tar.gz"
    (folder / SUMS).write_text(mine)
    download(folder, release[:1])
    new = hashlib.sha256(CONTENT[0]).hexdigest()
    assert (folder / SUMS).read_text() == f"{mine}\n{new}  images_001.tar.gz\n"


GOOD = images_of(NAMES[:2])
ZEROS = bytes(7 << 20)
UNSAFE = {
    "traversal": [*GOOD, member("../evil.png", b"x")],
    "traversal inside": [*GOOD, member("images/../../evil.png", b"x")],
    "absolute": [*GOOD, member("/tmp/00000009_000.png", b"x")],
    "link": [*GOOD, member("images/00000009_000.png", kind=tarfile.SYMTYPE, link="/etc/passwd")],
    "folder that is a link": [member("images", kind=tarfile.SYMTYPE, link="../.."), *GOOD],
    "hard link": [*GOOD, member("images/00000009_000.png", kind=tarfile.LNKTYPE, link="../x")],
    "device": [*GOOD, member("images/00000009_000.png", kind=tarfile.CHRTYPE)],
    "pipe": [*GOOD, member("images/00000009_000.png", kind=tarfile.FIFOTYPE)],
    "other folder": [*GOOD, member("pictures/00000009_000.png", b"x")],
    "other suffix": [*GOOD, member("images/00000009_000.py", b"x")],
    "other name": [*GOOD, member("images/9.png", b"x")],
    "newline": [*GOOD, member("images/00000009_000.png\n", b"x")],
    "other digits": [*GOOD, member("images/٠٠٠٠٠٠٠٩_٠٠٠.png", b"x")],
    "nested folder": [*GOOD, member("images/more", kind=tarfile.DIRTYPE)],
    "twice": [*GOOD, GOOD[0]],
    "too large": [*GOOD, member("images/00000009_000.png", bytes((8 << 20) + 1))],
    "too large together": [member(f"images/{1:08}_{n:03}.png", ZEROS) for n in range(10)],
    "too many": images_of(NAMES[:4]),
    "too few": GOOD,
    "nothing": [],
}


@pytest.mark.parametrize("case", UNSAFE)
def test_an_archive_of_anything_else_leaves_nothing(server, folder, case):
    archive = publish(server, 1, pack(*UNSAFE[case]), 10 if "together" in case else 3)
    with pytest.raises(ValueError, match=rf"{folder / archive.file} holds .*; nothing was extract"):
        download(folder, [archive])
    assert listing(folder) == {archive.file, SUMS}
    assert sorted(path.name for path in folder.iterdir()) == [
        ".download.lock",
        SUMS,
        archive.file,
    ]
    assert [*folder.parent.iterdir()] == [folder]


def without_its_end_and_with_a_wrong_crc(content):
    tar = gzip.decompress(content).rstrip(b"\0")
    return gzip.compress(tar + bytes(-len(tar) % 512))[:-8] + bytes(8)


DAMAGES = [
    lambda content: content[: len(content) // 2],
    lambda content: b"no archive at all",
    lambda content: gzip.compress(b"no tar" * 1000),
    lambda content: content[:200] + bytes(20) + content[220:],
    without_its_end_and_with_a_wrong_crc,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_leaves_nothing(server, folder, damage):
    archive = publish(server, 1, damage(CONTENT[0]), 12)
    flaw = (
        r"images_001.tar.gz (cannot be read \(.*\)|holds 1 images, not 12); nothing was extracted"
    )
    with pytest.raises(ValueError, match=flaw):
        download(folder, [archive])
    assert listing(folder) == {archive.file, SUMS}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_extraction_leaves_no_half_folder(release, folder, monkeypatch, error):
    extract, done = tarfile.TarFile.extractfile, []

    def interrupted(*arguments, **options):
        if len(done) == 5:
            raise error
        done.append(extract(*arguments, **options))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractfile", interrupted)
        with pytest.raises(type(error)) as caught:
            download(folder, release)
    if isinstance(error, OSError):
        assert "cannot write" in str(caught.value)
        assert "free some space and run the same command again" in str(caught.value)
    assert listing(folder) == {"images_001.tar.gz", SUMS}
    assert len(done) == 5
    download(folder, release)
    assert listing(folder) == ALL


def test_what_a_killed_extraction_left_is_taken_away(release, folder):
    half = folder / ".images_001.tmp" / "images"
    half.mkdir(parents=True)
    (half / f"{NAMES[0]}.png").write_bytes(b"half")
    (half / "99999999_000.png").write_bytes(b"left over")
    download(folder, release)
    assert listing(folder) == ALL


def test_a_folder_that_is_not_whole_is_refused_before_work_starts(release, server, folder):
    download(folder, release[1:])
    (folder / "images_002" / "images" / f"{NAMES[-1]}.png").unlink()
    server.requests.clear()
    lost = rf"^{folder / 'images_002'} holds 7 of 8 images; move it away"
    with pytest.raises(OSError, match=lost):
        download(folder, release)
    with pytest.raises(OSError, match=lost):
        verify(folder, release)
    assert server.requests == []


def with_free(monkeypatch, free):
    usage = type(shutil.disk_usage("/"))(10**12, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)


@pytest.mark.parametrize("delete_archives", [False, True])
def test_a_disk_too_small_is_refused_before_work_starts(
    release, server, folder, monkeypatch, delete_archives
):
    sizes = [len(content) for content in CONTENT]
    needed = (max if delete_archives else sum)(sizes) + 1.05 * sum(sizes)
    with_free(monkeypatch, int(needed) - 1)
    with pytest.raises(
        OSError, match=rf"^{folder} has \S+ kB free, but \S+ kB are needed \(.*--to"
    ):
        download(folder, release, delete_archives=delete_archives)
    assert server.sent == []
    assert listing(folder) == set()
    with_free(monkeypatch, int(needed) + 1)
    download(folder, release, delete_archives=delete_archives)
    assert (folder / "images_002").is_dir()


def test_what_is_there_needs_no_disk_again(release, server, folder, monkeypatch):
    server.faults = [None, ("cut", 5000)]
    with pytest.raises(OSError, match="are kept"):
        download(folder, release, attempts=1)
    second = len(CONTENT[1])
    needed = second - 5000 + 1.05 * second
    with_free(monkeypatch, int(needed) - 1)
    with pytest.raises(OSError, match=r"are needed"):
        download(folder, release)
    with_free(monkeypatch, int(needed) + 1)
    download(folder, release)
    with_free(monkeypatch, 0)
    download(folder, release)


def test_two_downloads_do_not_share_a_folder(release, folder):
    folder.mkdir()
    with filelock.FileLock(folder / ".download.lock"):
        for action in (download, verify):
            (folder / "images_001.tar.gz").write_bytes(CONTENT[0])
            with pytest.raises(OSError, match=rf"another download into {folder} is at work; wait"):
                action(folder, release)
    download(folder, release)


def test_a_place_that_cannot_be_written_is_named(release, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/nih .*; choose another place with --t"):
        download(tmp_path / "file" / "nih", release)


def test_the_home_folder_is_understood(release, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    download("~/data", release[:1])
    assert (folder / "data" / "images_001").is_dir()


def test_the_table_of_parts_is_what_the_official_tables_say(shared):
    found = nih.read_tables(shared / "nih-metadata")
    images = found.images.sort_values("image_id", ignore_index=True)
    table = parts_table()
    parts = images.groupby(np.repeat(table.index, table["images"]))
    assert parts["image_id"].first().tolist() == table["first"].tolist()
    for split in ("train_val", "test"):
        counts = parts["split"].agg(lambda column, split=split: (column == split).sum())
        assert counts.tolist() == table[split].tolist()
    part_of = pd.Series(np.repeat(table.index, table["images"]), images["image_id"])
    boxed = found.boxes["image_id"].groupby(found.boxes["image_id"].map(part_of))
    assert boxed.count().tolist() == table["boxes"].tolist()
    assert boxed.nunique().tolist() == table["boxed_images"].tolist()


def test_the_official_archives():
    found = archives()
    assert [archive.part for archive in found] == [*range(1, 13)]
    assert [archive.images for archive in found] == [4_999, *[10_000] * 10, 7_121]
    assert [archive.file for archive in found][-1] == "images_012.tar.gz"
    link = r"https://nihcc\.box\.com/shared/static/[a-z0-9]{32}\.gz"
    assert all(re.fullmatch(link, archive.link) for archive in found)
    assert all(re.fullmatch(r"[0-9a-f]{32}", archive.md5) for archive in found)
    assert len({archive.link for archive in found}) == len({a.md5 for a in found}) == 12
    assert archives([3, 1, 3]) == [found[0], found[2]]


@pytest.mark.parametrize(("parts", "named"), [([0], "0"), ([1, 13, 99], "13, 99"), ([], "")])
def test_unknown_parts_are_refused(parts, named):
    with pytest.raises(ValueError, match=rf"parts \[{named}\] do not exist; give some of 1 to 12"):
        archives(parts)


def test_the_command_lists(capsys):
    assert cli.main(["download", "nih", "--list"]) == 0
    text = capsys.readouterr().out
    assert text == show_parts() + "\n"
    head, *rows, total = (line.split() for line in text.splitlines())
    assert head == ["part", "images", "boxed", "images", "boxes", "train_val", "test", "size"]
    assert len(rows) == 12
    assert rows[5] == ["6", "10000", "90", "105", "7322", "2678", "3.99", "GB"]
    assert total == ["all", "112120", "880", "984", "86524", "25596", "45.1", "GB"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no folder to download to; give one with --to, or see --list"),
        (["--to", "x", "--parts", "13"], "parts [13] do not exist; give some of 1 to 12"),
        (["--to", "x", "--verify"], "x holds none of images_001.tar.gz, "),
    ],
)
def test_the_command_refuses(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["download", "nih", *words]) == 1
    assert f"cxrlib: {message}" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_the_command_downloads_and_verifies(release, folder, monkeypatch, capsys):
    chosen = [release[1]]
    monkeypatch.setattr("cxrlib.datasets.download.archives", lambda parts: chosen)
    words = ["download", "nih", "--to", str(folder), "--parts", "2"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--verify"]) == 0
    assert "images_002.tar.gz: as it should be\n" in capsys.readouterr().out
    assert cli.main([*words, "--delete-archives"]) == 0
    assert listing(folder) == extracted(2) | {SUMS}


def test_the_command_may_be_interrupted(release, folder, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("cxrlib.datasets.download.fetch", interrupt)
    monkeypatch.setattr("cxrlib.datasets.download.archives", lambda parts: release)
    assert cli.main(["download", "nih", "--to", str(folder)]) == 1
    assert "cxrlib: interrupted; the same command goes on from" in capsys.readouterr().err
