"""Memory between training steps."""

import platform
import subprocess
import sys

LOOP = """
import resource
import torch
from cxrlib.memory import freed_memory_kept

def pages():  # fetched from the system while two blocks of 40 MiB come and go ten times
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        blocks = [torch.ones(40 * 2**20, dtype=torch.uint8) for _ in range(2)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages()
with freed_memory_kept():
    pages()
    inside = pages()
print(inside, pages())
"""


def test_freed_memory_is_used_again_inside_and_not_after():
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    inside, after = map(int, done.stdout.split())
    if platform.libc_ver()[0] == "glibc":
        assert 10 * inside < after
