"""Coverage-guided fuzzing: ``python tests/fuzz.py all --minutes 60``, or one target.

It needs ``python -m pip install -e ".[fuzz,test]"``. It ends with the first file on which a reader
of ``fuzzing.py`` breaks a rule, and leaves that file in this folder (``crash-*``).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cxrlib", "pydicom", "PIL", "zipfile"]):
    from fuzzing import TARGETS, probe


def search(name: str, seconds: int) -> None:
    """Look for a file that breaks a rule; ends the process."""
    target = TARGETS[name]

    def one(data: bytes) -> None:
        probe(target, data)

    with tempfile.TemporaryDirectory() as corpus:
        seeds = target.seeds()
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        longest = 2 * max(map(len, seeds))
        limits = [f"-max_total_time={seconds}", f"-max_len={longest}", "-len_control=0"]
        atheris.Setup([sys.argv[0], *limits, "-rss_limit_mb=8000", "-timeout=20", corpus], one)
        atheris.Fuzz()


def main() -> None:
    """Search one target here, or each of all in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=10.0, help="in all")
    chosen = parser.parse_args()
    if chosen.target != "all":
        return search(chosen.target, round(60 * chosen.minutes))
    share = str(chosen.minutes / len(TARGETS))
    for name in TARGETS:
        subprocess.run([sys.executable, __file__, name, "--minutes", share], check=True)


if __name__ == "__main__":
    main()
