"""What all benchmarks share: clocks, rounds in turn, ratios with their spread, and files.

Works take turns, round by round, so that what else the machine does hits all of them alike. Of each
the shortest time counts, which other programs have lengthened least; the ratio of two such times
lies within the lowest and the highest ratio of a single round, which are given beside it.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from cxrlib.files import write_csv
from cxrlib.provenance import source_hash

HERE = Path(__file__).parent
RATIOS = HERE / "ratios.csv"
"""One row for each comparison of each benchmark: what the page on speed shows."""


def wall(work: Callable[[], object]) -> float:
    """Seconds by the clock on the wall, of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor(work: Callable[[], object]) -> float:
    """Seconds of the processor, of one call: other programs at work hardly count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def rounds(
    works: Mapping[str, Callable[[], object]],
    count: int,
    *,
    warm: int = 1,
    clock: Callable[[Callable[[], object]], float] = wall,
) -> pd.DataFrame:
    """Seconds of each work, a row for each round, after some rounds that do not count."""
    spent = [{name: clock(work) for name, work in works.items()} for _ in range(warm + count)]
    return pd.DataFrame(spent[warm:])


def ratio(spent: pd.DataFrame, ours: str, other: str, of: str = "time") -> dict[str, object]:
    """What ours costs, the other being 1: of the shortest rounds, and of each.

    Args:
        spent: a row for each round, a column for each work.
        ours: a column.
        other: the column that it is compared with.
        of: what was spent, ``"time"`` or ``"memory"``.

    >>> spent = pd.DataFrame({"a": [2.0, 6.0], "b": [4.0, 4.0]})
    >>> row = ratio(spent, "a", "b")
    >>> [float(row[name]) for name in ("value", "median", "low", "high")]
    [0.5, 1.0, 0.5, 1.5]
    """
    each = spent[ours] / spent[other]
    return {
        "ours": ours,
        "other": other,
        "of": of,
        "value": spent[ours].min() / spent[other].min(),
        "median": each.median(),
        "low": each.min(),
        "high": each.max(),
        "rounds": len(spent),
    }


def machine() -> str:
    """The processor and the number of cores in use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {len(os.sched_getaffinity(0))} cores"


def versions(packages: Iterable[str]) -> str:
    """Of Python and of the packages that matter here."""
    named = (f"{package} {version(package)}" for package in packages)
    return "; ".join([f"Python {platform.python_version()}", *named])


def write(
    script: str,
    table: pd.DataFrame,
    ratios: Iterable[Mapping[str, object]],
    *,
    threads: int,
    packages: Iterable[str],
    folder: Path = HERE,
) -> None:
    """Write a benchmark's table, and its ratios in place of its former ones.

    Args:
        script: its file, whose name the table takes.
        table: gets the threads, the machine and the versions, unless it has them.
        ratios: of :func:`ratio`.
        threads: that the works had.
        packages: whose versions matter.
        folder: of both files.
    """
    name = Path(script).stem
    about = {"threads": threads, "machine": machine(), "versions": versions(packages)}
    missing = {column: value for column, value in about.items() if column not in table}
    write_csv(folder / f"{name}.csv", table.assign(**missing))
    new = pd.DataFrame(ratios).assign(
        **about, library=source_hash(), date=f"{datetime.now(UTC):%Y-%m-%d}"
    )
    new.insert(0, "benchmark", name)
    place = folder / RATIOS.name
    kept = [pd.read_csv(place).query("benchmark != @name")] if place.exists() else []
    every = pd.concat([*kept, new]).sort_values("benchmark", kind="stable")
    write_csv(place, every)
