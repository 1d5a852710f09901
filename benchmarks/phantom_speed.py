"""How fast the phantom is drawn, by size: ``python benchmarks/phantom_speed.py``.

Writes images per second to ``phantom_speed.csv`` beside itself. Ratios between rows of one run
mean something; the numbers themselves are of one machine on one day.
"""

import os
import time
from pathlib import Path

import joblib
import pandas as pd

from cxrlib.files import write_atomic
from cxrlib.phantom.controls import Controls
from cxrlib.phantom.population import render_some

COUNTS = {64: 600, 128: 600, 256: 300, 512: 120, 1024: 40}


def measure(size: int, count: int, jobs: int) -> float:
    """Images per second; the processes have started and drawn one image before the clock does."""
    pool = joblib.Parallel(n_jobs=jobs)
    step = max(count // (4 * jobs), 1)
    tasks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    draw = joblib.delayed(lambda part: len(render_some(part, size, 0, Controls())))
    pool(draw(range(1)) for _ in range(jobs))
    start = time.perf_counter()
    pool(draw(part) for part in tasks)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Measure every size with one process and with all cores."""
    cores = len(os.sched_getaffinity(0))
    rows = [
        {"size": size, "processes": jobs, "images_per_second": round(measure(size, count, jobs), 1)}
        for size, count in COUNTS.items()
        for jobs in sorted({1, cores})
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    place = Path(__file__).with_suffix(".csv")
    write_atomic(place, lambda file: table.to_csv(file, index=False))


if __name__ == "__main__":
    main()
