"""The bench of faults in ``faults.py``, in a process that has computed nothing before it forks."""

import re
import subprocess
import sys
from pathlib import Path


def test_a_hundred_faults_lose_nothing():
    bench = Path(__file__).with_name("faults.py")
    command = [sys.executable, str(bench), "--rounds", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (struck,) = re.findall(r"^(\d+) faults: every file", done.stdout, re.M)
    assert int(struck) >= 100
