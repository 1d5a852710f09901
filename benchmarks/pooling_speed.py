"""What LSE-LBA pooling costs beside a plain mean: ``python benchmarks/pooling_speed.py``.

Forward and backward on (64, 14, 128, 128) float32 scores from 0 to 1, on a CPU. *Plain* operations
are ``lse_pool``, which takes scores of any size; *bounded* is ``lse_lba_pool``, which knows that
its scores are probabilities; both at the same sharpness. The shortest of the rounds counts, with
all poolings in turn in each round. Memory is what a process needs at most for one forward and
backward pass beside the scores, the gradient among it, in maps of the scores' size; each pooling
has a process of its own.

Writes ``pooling_speed.csv`` and its rows of ``ratios.csv``.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from measure import ratio, write
from torch import Tensor

from cxrlib.pooling import lse_lba_pool, lse_pool, mean_pool

SHAPE, R0, ROUNDS = (64, 14, 128, 128), 5.0, 15
THREADS = 1
REFERENCE, COMPARED = "mean", "LSE-LBA, bounded"

POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda S, beta: mean_pool(S),
    "LSE-LBA, plain": lambda S, beta: lse_pool(S, R0 + beta.exp()),
    "LSE-LBA, bounded": lambda S, beta: lse_lba_pool(S, R0, beta),
}


def once(name: str, S: Tensor, beta: Tensor) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    S.grad = beta.grad = None
    start = time.perf_counter()
    pooled = POOLINGS[name](S, beta).sum()
    middle = time.perf_counter()
    pooled.backward()
    return middle - start, time.perf_counter() - middle


def scores() -> tuple[Tensor, Tensor]:
    """Scores and beta that learn."""
    torch.manual_seed(0)
    return torch.rand(SHAPE, requires_grad=True), torch.zeros((), requires_grad=True)


def memory(name: str) -> float:
    """Maps that this process needed at most for one pooling and its gradient, beside the scores."""
    once(name, torch.rand(2, 2, 8, 8, requires_grad=True), torch.zeros((), requires_grad=True))
    S, beta = scores()
    before = highest()
    once(name, S, beta)
    return (highest() - before) * 1024 / (S.numel() * S.element_size())


def highest() -> int:
    """Memory that this process has held at most, in kB (Linux)."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line)


def main() -> None:
    """Measure times in this process, memory in one process for each pooling."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", choices=list(POOLINGS))
    of = parser.parse_args().memory
    if of is not None:
        print(memory(of))
        return
    torch.set_num_threads(THREADS)
    S, beta = scores()
    times = [(k, name, *once(name, S, beta)) for k in range(ROUNDS) for name in POOLINGS]
    each = pd.DataFrame(times, columns=["round", "pooling", "forward", "backward"])
    each["seconds"] = each["forward"] + each["backward"]
    table = each.drop(columns="round").groupby("pooling", sort=False).min()
    table["ratio_to_mean"] = table["seconds"] / table.loc[REFERENCE, "seconds"]
    command = [sys.executable, __file__, "--memory"]
    table["extra_maps"] = [
        float(subprocess.run([*command, name], check=True, capture_output=True).stdout)
        for name in POOLINGS
    ]
    print(table.to_string(float_format="%.3g"))
    ratios = compare(each, table["extra_maps"])
    table = table.reset_index().assign(shape="x".join(map(str, SHAPE)), rounds=ROUNDS)
    write(__file__, table, ratios, threads=THREADS, packages=["torch"])


def compare(each: pd.DataFrame, extra_maps: pd.Series) -> list[dict[str, object]]:
    """Both of LSE-LBA's poolings beside the mean, by pass and by memory."""
    passes = {"forward": ", forward", "backward": ", backward", "seconds": ", both passes"}
    ratios = []
    for column, words in passes.items():
        spent = each.pivot(index="round", columns="pooling", values=column).add_suffix(words)
        ratios.append(ratio(spent, COMPARED + words, REFERENCE + words))
    plain = "LSE-LBA, plain" + words
    memory_of = extra_maps.to_frame().T.add_suffix(", memory")
    kept = f"{COMPARED}, memory", f"{REFERENCE}, memory"
    return [*ratios, ratio(spent, plain, REFERENCE + words), ratio(memory_of, *kept, "memory")]


if __name__ == "__main__":
    main()
