"""Mutation testing of poolings, losses and metrics: small faults put in, one at a time.

A fault that no test notices *survives*: a test is missing, or the fault changes nothing that can be
seen (it is *equivalent*, and ``results/mutation_equivalent.csv`` says why). ``python
tests/mutation.py 160 pooling losses`` has mutmut (``[tool.mutmut]`` in pyproject.toml) make every
fault and try 160 of those in files of such names, drawn with a fixed seed, and writes
``results/mutation.csv``. Without names it is all files, and with a number of 0 the table of what
was tried before. Survivors are shown.
"""

import csv
import json
import random
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

MUTANTS, RESULTS = Path("mutants"), Path("results")
NOTICED = dict.fromkeys((1, 3, -9, -11), "killed")
NOTICED |= dict.fromkeys((-24, 24, 36, 152, 255), "timeout")
"""Exit status of pytest, or of a process that was stopped, as mutmut keeps it; else: survived."""
VERDICTS = ["killed", "timeout", "equivalent", "survived"]
COLUMNS = ["file", "mutants", "tried", *VERDICTS, "tool", "commit", "date"]


def results() -> dict[str, dict[str, int | None]]:
    """Exit status of every mutant of every file; None where it was not tried."""
    metas = sorted(MUTANTS.rglob("*.py.meta"))
    found = {
        str(path.relative_to(MUTANTS)).removesuffix(".meta"): json.loads(path.read_text())[
            "exit_code_by_key"
        ]
        for path in metas
    }
    return {file: mutants for file, mutants in found.items() if mutants}


def change(mutant: str) -> str:
    """The changed line as it was and as it is, which names a fault for longer than its number."""
    shown = subprocess.run(["mutmut", "show", mutant], capture_output=True, text=True, check=True)
    lines = [line for line in shown.stdout.splitlines() if not line.startswith(("---", "+++"))]
    return " -> ".join(line[1:].strip() for line in lines if line.startswith(("-", "+")))


def main(tried: int, parts: list[str]) -> None:
    """Try a sample of the mutants, or none anew, and write the table."""
    if tried:
        subprocess.run(["mutmut", "run", "nothing*"], check=False)  # makes them all, tries none
        made = results()
        files = [path for path in made if any(part in path for part in parts or [""])]
        names = sorted(name for path in files for name in made[path])
        chosen = random.Random(0).sample(names, min(tried, len(names)))
        subprocess.run(["mutmut", "run", *chosen], check=True)
    with open(RESULTS / "mutation_equivalent.csv", newline="") as file:
        known = {(row["file"], row["change"]) for row in csv.DictReader(file)}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    origin = [f"mutmut {version('mutmut')}", commit.stdout.strip(), f"{datetime.now(UTC):%F}"]
    with open(RESULTS / "mutation.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for path, mutants in results().items():
            count = Counter()
            for mutant, status in mutants.items():
                if status is None:
                    continue
                verdict = NOTICED.get(status, "survived")
                if verdict == "survived":
                    fault = change(mutant)
                    verdict = "equivalent" if (path, fault) in known else verdict
                    print(f"{verdict}: {path}: {fault}")
                count[verdict] += 1
            row = [path, len(mutants), count.total(), *(count[name] for name in VERDICTS)]
            table.writerow([*row, *origin])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
