"""What a program waits for before anything happens: ``python benchmarks/start.py``.

Each program is a process of its own, the files in the system's cache: ``import torch``, after it
``import cxrlib`` and the module with all models, and ``cxrlib --help``. *Seconds* are those of the
statement itself, by the clock, and *processor* those of the processor; *whole* is the process from
its start to its end, Python included. Programs take turns; the shortest counts. The last column
says whether the program had torch in the end. Ratios are of the processor's seconds, in each with
what came before.

Writes ``start.csv`` and its rows of ``ratios.csv``.
"""

import json
import subprocess
import sys

import pandas as pd
from measure import ratio, wall, write

ROUNDS = 2
TORCH, HELP = "import torch", "cxrlib --help"
PROGRAMS = {
    "Python alone": ("", "pass"),
    TORCH: ("", "import torch"),
    "import cxrlib, after torch": ("import torch", "import cxrlib"),
    "import cxrlib.models, after torch": ("import torch", "import cxrlib.models"),
    HELP: ("", "from cxrlib.cli import main; main(['--help'])"),
}
"""Name -> what comes before, and the statement that is timed."""

RATIOS = {
    "import cxrlib, after torch": "import torch and cxrlib",
    "import cxrlib.models, after torch": "import torch and cxrlib.models",
    HELP: HELP,
}
"""What stands beside ``import torch``, and its name with what came before it."""

CODE = """\
import contextlib, json, sys, time
began = time.process_time()
{before}
start, spent = time.perf_counter(), time.process_time()
with contextlib.suppress(SystemExit): exec({statement!r})
times = time.perf_counter() - start, time.process_time() - spent, time.process_time() - began
print(json.dumps([*times, "torch" in sys.modules]), file=sys.stderr)
"""


def run(name: str) -> dict[str, object]:
    """Run one in a process of its own."""
    before, statement = PROGRAMS[name]
    command = [sys.executable, "-c", CODE.format(before=before, statement=statement)]
    said = []

    def work() -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said.append(done.stderr.splitlines()[-1])

    whole = wall(work)
    seconds, processor, both, torch = json.loads(said[0])
    times = {"seconds": seconds, "processor": processor, "whole": whole, "both": both}
    return {"program": name, **times, "has_torch": torch}


def main() -> None:
    """Measure every program; the first round fills the system's cache and does not count."""
    runs = [run(name) | {"round": k} for k in range(1 + ROUNDS) for name in PROGRAMS]
    each = pd.DataFrame(runs).query("round > 0")
    best = each.groupby("program", sort=False).min().reset_index()
    table = best.drop(columns=["round", "both"])
    print(table.to_string(index=False, float_format="%.3g"))
    each["before"] = each["both"] - each["processor"]
    torch = each[each["program"] == TORCH].set_index("round")["processor"]
    ratios = []
    for program, ours in RATIOS.items():
        of = each[each["program"] == program].set_index("round")
        # Of the same process: what torch takes differs more than what cxrlib adds.
        other = of["before"] if program != HELP else torch
        ratios.append(ratio(pd.DataFrame({ours: of["both"], TORCH: other}), ours, TORCH))
    write(
        __file__,
        table.assign(rounds=ROUNDS),
        ratios,
        threads=1,
        packages=["torch", "lightning", "timm"],
    )


if __name__ == "__main__":
    main()
