"""Every benchmark, one after another: ``python benchmarks/all.py``.

Each runs in a process of its own. One that fails is named with the end of what it said, and the
others stand. ``--only`` chooses some by name; ``--data-dir`` gives ``loading`` a folder of
ChestX-ray14 beside the files that it draws. In the end the table of all ratios is printed, with the
day on which each was measured: a benchmark that failed today, or was not asked for, has the row of
an earlier day.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from measure import HERE, RATIOS

NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("all", "measure"))


def run(names: Sequence[str], extra: dict[str, list[str]], folder: Path = HERE) -> list[str]:
    """Run benchmarks and say how each goes; returns the names of those that failed."""
    failed = []
    for number, name in enumerate(names, start=1):
        print(f"{number} of {len(names)}, {name} ...", end=" ", flush=True)
        start = time.monotonic()
        command = [sys.executable, str(folder / f"{name}.py"), *extra.get(name, [])]
        done = subprocess.run(command, capture_output=True, text=True)
        spent = f"{time.monotonic() - start:.0f} s"
        if done.returncode:
            failed.append(name)
            said = done.stderr.strip() or "it said nothing"
            print(f"failed after {spent}: {said.splitlines()[-1]}")
        else:
            print(spent)
    return failed


def summary(ratios: pd.DataFrame) -> str:
    """The table of ratios in columns."""
    shown = ["benchmark", "ours", "other", "of", "value", "low", "high", "date"]
    return ratios[shown].to_string(index=False, float_format="%.3g")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--data-dir", type=Path, help="a folder of ChestX-ray14, for loading")
    options = parser.parse_args(arguments)
    places = ["--data-dir", str(options.data_dir)] if options.data_dir else []
    failed = run(options.only, {"loading": places})
    if RATIOS.exists():
        print(f"\nours / other, the shortest rounds, and the range\n{summary(pd.read_csv(RATIOS))}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}; run one by itself to see all that it says")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
