"""Download of ChestX-ray14: its twelve image archives, checked, and extracted whole or not at all.

Links: ``batch_download_zips.py`` of the release. MD5: question 7 of its ``FAQ_CHESTXRAY.pdf``.
"""

import gzip
import hashlib
import math
import os
import re
import shlex
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import filelock

from cxrlib.datasets.fetch import BLOCK, fetch, part_file, probe, show_size, size_of
from cxrlib.datasets.nih import HOME, parts_table
from cxrlib.files import explain_os_error, write_atomic
from cxrlib.progress import track

SUMS = "SHA256SUMS"
"""File beside the archives with the hash of each, as first seen; ``sha256sum -c`` reads it too."""

_TABLES = ("Data_Entry_2017*.csv", "BBox_List_2017*.csv", "train_val_list.txt", "test_list.txt")
_MEMBER = re.compile(r"images/[0-9]{8}_[0-9]{3}\.png")
_MEMBER_BYTES = 8 << 20  # 1024 x 1024 px of four bytes take 4 MiB before compression
_ANOTHER = f"nothing was extracted; delete it and its line in {SUMS}, get another from {HOME}"
_GROWTH = 1.05  # of what an archive holds over the archive: PNG files are compressed already


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive of the release.

    Attributes:
        part: its number, from 1.
        link: where it is.
        md5: as published, hexadecimal.
        images: how many it holds.
    """

    part: int
    link: str
    md5: str
    images: int

    @property
    def folder(self) -> str:
        """Name of the folder it is extracted to, e.g. ``"images_001"``."""
        return f"images_{self.part:03}"

    @property
    def file(self) -> str:
        """Its own name, e.g. ``"images_001.tar.gz"``."""
        return f"{self.folder}.tar.gz"


def show_parts() -> str:
    """The table of parts as text, with the sums in its last line.

    >>> print(show_parts().splitlines()[-1])
     all  112120           880    984      86524 25596 45.1 GB
    """
    columns = ["images", "boxed_images", "boxes", "train_val", "test", "bytes"]
    table = parts_table()[columns]
    table.loc["all"] = table.sum()
    table["size"] = table.pop("bytes").map(show_size)
    table.columns = table.columns.str.replace("_images", " images")
    return table.reset_index(names="part").to_string(index=False)


def archives(parts: Sequence[int] | None = None) -> list[Archive]:
    """The official archives of these parts; of all twelve if None.

    Raises:
        ValueError: there is no such part.

    >>> [archive.file for archive in archives([12, 1])]
    ['images_001.tar.gz', 'images_012.tar.gz']
    """
    table = parts_table()
    unknown = sorted(set(parts or []) - {*table.index})
    if unknown or parts == []:
        raise ValueError(f"parts {unknown} do not exist; give some of 1 to {len(table)}")
    chosen = table.loc[sorted({*parts})] if parts else table
    rows = zip(chosen.index, chosen["link"], chosen["md5"], chosen["images"], strict=True)
    return [Archive(int(part), link, md5, int(images)) for part, link, md5, images in rows]


def download(
    data_dir: Path | str,
    chosen: Sequence[Archive],
    *,
    delete_archives: bool = False,
    timeout_s: float = 60,
    attempts: int = 5,
) -> None:
    """Download, check and extract archives; whatever is already there is not fetched again.

    ``images_001/images/`` and so on appear whole or not at all. The archives stay beside them.
    What happened is printed; the tables of the release, for which there is no direct link, are
    asked for at the end.

    Args:
        data_dir: folder of the release, made if absent.
        chosen: usually from :func:`archives`.
        delete_archives: delete each archive once it is extracted.
        timeout_s: seconds of silence after which a connection counts as lost.
        attempts: failures in a row before giving up; see :func:`cxrlib.datasets.fetch.fetch`.

    Raises:
        OSError: too little disk, no connection, or a folder that is not whole.
        ValueError: an archive is not the published one or the one first seen, or holds anything
            but its images.
    """
    folder = Path(data_dir).expanduser()
    with _alone(folder):
        absent = [archive for archive in chosen if not _is_extracted(folder, archive)]
        asked = track(absent, "asking for sizes", total=len(absent))
        sizes = [_size(folder / each.file, each.link, timeout_s, attempts) for each in asked]
        _refuse_full_disk(folder, absent, sizes, delete_archives)
        for archive in chosen:
            path = folder / archive.file
            if archive in absent:
                if not path.exists():
                    fetch(archive.link, path, timeout_s=timeout_s, attempts=attempts)
                _check(path, archive.md5)
                _extract(path, folder / archive.folder, archive.images)
            if delete_archives:
                path.unlink(missing_ok=True)
            print(f"{archive.folder}: {archive.images} images")
    _ask_for_tables(folder)


def verify(data_dir: Path | str, chosen: Sequence[Archive]) -> None:
    """Compare the archives that are there with their checksums, and count the extracted images.

    Raises:
        OSError: there is no archive of these parts, or a folder that is not whole.
        ValueError: an archive is not the published one, or not the one first seen.
    """
    folder = Path(data_dir).expanduser()
    present = [archive for archive in chosen if (folder / archive.file).exists()]
    if not present:
        names = ", ".join(archive.file for archive in chosen)
        raise FileNotFoundError(f"{folder} holds none of {names}; download them first")
    with _alone(folder):
        for archive in present:
            _check(folder / archive.file, archive.md5)
            extracted = _is_extracted(folder, archive)
            print(f"{archive.file}: as it should be{'' if extracted else ', not extracted'}")


def _alone(folder: Path) -> AbstractContextManager[object]:
    """Hold the folder: two downloads into it would write one file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(folder / ".download.lock").acquire(timeout=0)
    except filelock.Timeout as error:
        raise OSError(f"another download into {folder} is at work; wait for it to end") from error
    except OSError as error:
        raise explain_os_error(error, folder, "--to") from error


def _is_extracted(folder: Path, archive: Archive) -> bool:
    place = folder / archive.folder
    if not place.exists():
        return False
    found = len([*place.glob("images/*.png")])
    if found != archive.images:
        raise OSError(
            f"{place} holds {found} of {archive.images} images; move it away, or delete it, "
            "and run the same command again"
        )
    return True


def _size(path: Path, link: str, timeout_s: float, attempts: int) -> int:
    return size_of(path) or probe(link, path, timeout_s=timeout_s, attempts=attempts).size


def _refuse_full_disk(
    folder: Path, absent: Sequence[Archive], sizes: Sequence[int], delete_archives: bool
) -> None:
    paths = [folder / archive.file for archive in absent]
    rest = [
        size - max(size_of(path), size_of(part_file(path)))
        for path, size in zip(paths, sizes, strict=True)
    ]
    fetched = max(rest, default=0) if delete_archives else sum(rest)
    extracted = _GROWTH * sum(sizes)
    free = shutil.disk_usage(folder).free
    if fetched + extracted > free:
        raise OSError(
            f"{folder} has {show_size(free)} free, but {show_size(fetched + extracted)} are needed "
            f"({show_size(fetched)} of archives, {show_size(extracted)} of images); free some "
            "space, choose another folder with --to, fewer parts with --parts, or --delete-archives"
        )


def _check(path: Path, published: str) -> None:
    """The hash of first sight decides; at first sight, the published one."""
    sums = path.with_name(SUMS)
    text = sums.read_text() if sums.exists() else ""
    known = re.findall(rf"^([0-9a-f]{{64}}) [ *]{re.escape(path.name)}$", text, re.M)[-1:]
    md5, sha256 = _hashes(path)
    if [sha256] != known if known else md5 != published:
        expected = f"{sums} has {known[0]}" if known else f"the published MD5 is {published}"
        raise ValueError(
            f"{path} is not the expected file: it has MD5 {md5}, SHA-256 {sha256}, but {expected}; "
            "delete it and run the same command again, or, if you trust it, accept it with: "
            f"(cd {shlex.quote(str(path.parent))} && sha256sum {path.name} >> {SUMS})"
        )
    if not known:
        lines = "\n".join([*text.splitlines(), f"{sha256}  {path.name}", ""])
        write_atomic(sums, lambda file: file.write(lines.encode()))


def _hashes(path: Path) -> tuple[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        total = math.ceil(size_of(path) / BLOCK)
        for block in track(blocks, f"checking {path.name}, MiB", total):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()


def _extract(path: Path, target: Path, images: int) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    try:
        (temporary / "images").mkdir(parents=True)
        with tarfile.open(path, "r:gz") as archive:
            members = track(_safe(archive, path, images), f"extracting {target.name}", images)
            for member in members:
                # The content alone, to a checked name: a member has no say in links or rights.
                content = archive.extractfile(member)
                assert content is not None  # it is a regular file
                with open(temporary / member.name, "wb") as file:
                    shutil.copyfileobj(content, file)
        os.rename(temporary, target)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}); {_ANOTHER}") from error
    except OSError as error:
        raise explain_os_error(error, target, "--to") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _safe(archive: tarfile.TarFile, path: Path, images: int) -> Iterator[tarfile.TarInfo]:
    """The images of an archive, if these are all that it holds."""
    names: set[str] = set()
    room = 2 * size_of(path) + 8 * _MEMBER_BYTES
    for member in archive:
        if member.isdir() and member.name == "images":
            continue
        room -= member.size
        fits = member.isreg() and member.size <= min(_MEMBER_BYTES, room)
        if not (_MEMBER.fullmatch(member.name) and fits):
            flaw = f"{member.name!r} of {show_size(member.size)}, no image of the release"
            raise ValueError(f"{path} holds {flaw}; {_ANOTHER}")
        names.add(member.name)
        yield member
    if len(names) != images:
        raise ValueError(f"{path} holds {len(names)} images, not {images}; {_ANOTHER}")


def _ask_for_tables(folder: Path) -> None:
    lost = [n for n in _TABLES if not [*folder.glob(n), *folder.glob(f"{n}.gz")]]
    if lost:
        print(f"Still needed, by hand from {HOME} into {folder}: {', '.join(lost)}")
