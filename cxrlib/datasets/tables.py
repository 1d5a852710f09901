"""Tables of a release: found, read as strings, and refused with the row, the flaw and the mend."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd


def open_folder(data_dir: Path | str, layout: str) -> Path:
    """The folder of a release.

    Args:
        data_dir: as the user gave it; ``~`` is expanded.
        layout: what was expected, for the message.

    Raises:
        OSError: it is absent, or a file.
    """
    folder = Path(data_dir).expanduser()
    if not folder.exists():
        raise FileNotFoundError(f"data_dir {folder} does not exist; {layout}")
    if not folder.is_dir():
        raise NotADirectoryError(f"data_dir {folder} is a file; {layout}")
    return folder


def find_one(folder: Path, pattern: str, layout: str) -> Path:
    """The one file of a folder with this name, or the same gzipped.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    found = sorted(folder.glob(pattern)) or sorted(folder.glob(f"{pattern}.gz"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no {pattern} or {pattern}.gz; {layout}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds {len(found)} files {pattern}: {names}; keep one there")
    return found[0]


@contextmanager
def reading(path: Path, mend: str) -> Iterator[None]:
    """Name the file, and what to do, in whatever goes wrong while it is read.

    Raises:
        ValueError: always instead of the original error.
    """
    try:
        yield
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}); {mend}") from error


def read_csv(
    path: Path,
    needed: Sequence[str],
    mend: str,
    *,
    rename: Callable[[str], str] = str,
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """The needed columns as stripped strings; the index is the row in the file, header = 1.

    A byte-order mark, Windows line ends and spaces around names and values are taken off.

    Args:
        path: CSV, plain or gzipped, UTF-8.
        needed: columns that must be there, with a value in every row.
        mend: what to do about a damaged file.
        rename: applied to the file's column names first.
        optional: columns that may be absent, and whose values may be empty (``""``).

    Raises:
        ValueError: the file cannot be read, lacks a column, or a value is missing.
    """
    with reading(path, mend):
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
        )
    table.columns = pd.Index([rename(str(name)).strip() for name in table.columns])
    absent = [name for name in needed if name not in table.columns]
    if absent:
        raise ValueError(f"{path} lacks {absent}; it has {[*table.columns]}; {mend}")
    kept = [*needed, *(name for name in optional if name in table.columns)]
    table = table[kept].fillna("").apply(lambda column: column.str.strip())
    table.index = pd.RangeIndex(2, len(table) + 2)
    for name in needed:
        refuse(path, table[needed[0]][table[name] == ""], f"no {name!r}", mend)
    return table


def refuse(path: Path, bad: pd.Series, flaw: str, mend: str) -> None:
    """Raise if there are bad rows.

    Args:
        path: the table.
        bad: the images of the bad rows, by row of the file.
        flaw: what is wrong with them.
        mend: what to do.

    Raises:
        ValueError: gives their number and the first few.
    """
    if len(bad):
        some = ", ".join(f"row {row} ({name})" for row, name in bad.head(3).items())
        raise ValueError(f"{path}: {len(bad)} row(s) with {flaw}: {some}; {mend}")


def refuse_unknown(
    path: Path, ids: pd.Series, texts: pd.Series, parse: Callable[[str], object]
) -> None:
    """Raise if ``parse`` refuses a text; names the first rows that have it.

    Raises:
        ValueError: see :func:`refuse`.
    """
    for text in texts.unique():
        try:
            parse(text)
        except ValueError as error:
            refuse(path, ids[texts == text], f"an unknown label ({error})", "correct the label")


def stems(names: pd.Series) -> pd.Series:
    """File names without their suffix.

    >>> stems(pd.Series(["00000001_000.png"])).tolist()
    ['00000001_000']
    """
    return names.str.replace(r"\.[A-Za-z]+$", "", regex=True)
