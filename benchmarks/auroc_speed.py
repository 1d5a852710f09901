"""How fast AUROCs get their intervals, beside scikit-learn: ``python benchmarks/auroc_speed.py``.

One thousand patient-clustered replicates of the AUROC of 14 findings, on as many images, patients
and positives as the official test set of ChestX-ray14 has; the scores are drawn. The other way is
the plain one: copy out the images of the drawn patients and call ``roc_auc_score`` for each
finding. 20 replicates of it are timed and scaled to all; they are the same replicates, and a
different AUROC stops the benchmark. Both run in one thread. Rounds alternate; the shortest counts.

A second part takes the size of the whole release, and says how much memory that needs at most.

Writes ``auroc_speed.csv`` and its rows of ``ratios.csv``.
"""

import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from loading import RELEASE
from measure import ratio, rounds, wall, write
from sklearn.metrics import roc_auc_score

from cxrlib.findings import FINDINGS
from cxrlib.metrics.bootstrap import patient_weights
from cxrlib.metrics.classification import CLASSIFICATION_METRICS, replicate_classification
from cxrlib.runs import committed

REPLICATES, TIMED, ROUNDS = 1000, 20, 2
PACKAGES = ("scikit-learn", "numpy", "scipy")


class Case(NamedTuple):
    """Scores and labels (N, 14) and the patient ids (N,) of a test set."""

    scores: np.ndarray
    labels: np.ndarray
    patient_ids: np.ndarray


def draw(counts: pd.DataFrame, times: float = 1.0) -> Case:
    """Draw a test set.

    Args:
        counts: one row per finding: ``images``, ``patients`` and ``positive``.
        times: how much larger it shall be.
    """
    rng = np.random.default_rng(0)
    images, patients = (round(times * counts[name].iloc[0]) for name in ("images", "patients"))
    labels = np.zeros((images, len(FINDINGS)))
    for column, positive in enumerate(counts["positive"]):
        labels[rng.choice(images, round(times * positive), replace=False), column] = 1
    logits = rng.normal(size=labels.shape) + labels
    patient = np.concatenate([np.arange(patients), rng.integers(patients, size=images - patients)])
    return Case(1 / (1 + np.exp(-logits)), labels, np.char.mod("%05d", patient))


def at_once(case: Case, names: tuple[str, ...]) -> np.ndarray:
    """Ours: (len(names), 14, 1 + R)."""
    return replicate_classification(*case, REPLICATES, seed=0, names=names)


def loop(case: Case) -> np.ndarray:
    """The plain way, of the first replicates: (14, TIMED)."""
    drawn = patient_weights(case.patient_ids, REPLICATES, seed=0)
    images = np.split(np.argsort(drawn.patient), np.bincount(drawn.patient).cumsum()[:-1])
    aurocs = []
    for replicate in range(1, 1 + TIMED):
        times = drawn.counts[:, replicate]
        chosen = np.concatenate(
            [images[patient] for patient in np.repeat(range(len(times)), times)]
        )
        labels, scores = case.labels[chosen], case.scores[chosen]
        aurocs.append([roc_auc_score(y, s) for y, s in zip(labels.T, scores.T, strict=True)])
    return np.array(aurocs).T


def compare(case: Case) -> pd.DataFrame:
    """Seconds of both ways, and of all metrics at once, round by round."""
    gap = abs(at_once(case, ("auroc",))[0, :, 1 : 1 + TIMED] - loop(case)).max()
    if gap > 1e-12:
        raise ValueError(f"the AUROCs differ by up to {gap:.3g}; nothing was measured")
    ways: dict[str, Callable[[], object]] = {
        "scikit-learn in a loop": lambda: loop(case),
        "AUROC at once": lambda: at_once(case, ("auroc",)),
        "all metrics at once": lambda: at_once(case, tuple(CLASSIFICATION_METRICS)),
    }
    spent = rounds(ways, ROUNDS, warm=0)  # the check above was the first
    spent["scikit-learn in a loop"] *= REPLICATES / TIMED
    return spent


def measure_release(case: Case) -> list[tuple[str, float, str, int]]:
    """Seconds and the most memory at the size of the whole release."""
    names, n = tuple(CLASSIFICATION_METRICS), len(case.labels)
    spent = wall(lambda: at_once(case, names))
    tracemalloc.start()
    at_once(case, names)
    most = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return [("all metrics at once", spent, "s", n), ("memory beyond the data", most, "MiB", n)]


def main() -> None:
    """Measure both parts."""
    counts = committed("label_counts.csv").query("split == 'test'").set_index("label")
    counts = counts.loc[list(FINDINGS)]
    n = int(counts["images"].iloc[0])
    spent = compare(draw(counts))
    at_best = spent.min()
    speedup = at_best["scikit-learn in a loop"] / at_best["AUROC at once"]
    rows = [(str(name), value, "s", n) for name, value in at_best.items()]
    rows.append(("loop / at once, AUROC", speedup, "ratio", n))
    rows += measure_release(draw(counts, RELEASE / n))
    table = pd.DataFrame(rows, columns=["quantity", "value", "unit", "n"])
    print(table.to_string(index=False, float_format="%.4g"))
    ratios = [ratio(spent, "AUROC at once", "scikit-learn in a loop")]
    table = table.assign(replicates=REPLICATES, rounds=ROUNDS)
    write(__file__, table, ratios, threads=1, packages=PACKAGES)


if __name__ == "__main__":
    main()
