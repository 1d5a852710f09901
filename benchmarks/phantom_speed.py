"""How fast the phantom is drawn, by size: ``python benchmarks/phantom_speed.py``.

In one process and in as many as there are cores, in turn; the fastest round counts. The processes
have started and drawn one image before the clock does.

Writes ``phantom_speed.csv`` and its rows of ``ratios.csv``.
"""

import os
from collections.abc import Callable

import joblib
import pandas as pd
from measure import ratio, rounds, write

from cxrlib.phantom.controls import Controls
from cxrlib.phantom.population import render_some

COUNTS = {64: 50, 128: 50, 256: 30, 512: 14, 1024: 5}
"""Side in pixels -> images of a round."""

ROUNDS = 2
PACKAGES = ("numpy", "scipy", "joblib")


def drawing(size: int, count: int, jobs: int) -> Callable[[], object]:
    """Draws so many images in so many processes, which have been started."""
    pool = joblib.Parallel(n_jobs=jobs)
    step = max(count // (4 * jobs), 1)
    tasks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    draw = joblib.delayed(lambda part: len(render_some(part, size, 0, Controls())))
    pool(draw(range(1)) for _ in range(jobs))
    return lambda: pool(draw(part) for part in tasks)


def main() -> None:
    """Measure every size with one process and with all cores."""
    cores = len(os.sched_getaffinity(0))
    rows, ratios = [], []
    for size, count in COUNTS.items():
        names = {jobs: f"{jobs} process{'es' * (jobs > 1)}, {size} px" for jobs in {1, cores}}
        spent = rounds({names[jobs]: drawing(size, count, jobs) for jobs in names}, ROUNDS, warm=0)
        for jobs, name in names.items():
            fastest = round(count / spent[name].min(), 1)
            rows.append({"size": size, "processes": jobs, "images_per_second": fastest})
        if cores > 1:
            ratios.append(ratio(spent, names[cores], names[1]))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    write(__file__, table, ratios, threads=1, packages=PACKAGES)


if __name__ == "__main__":
    main()
