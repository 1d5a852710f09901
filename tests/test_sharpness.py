"""Claims about r0, answered."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.sharpness import DIFFUSE, answers, kept_sharpness

R0S = [0, 1, 2, 5, 10, 20]


def study(auroc, dice, diffuse, noise=0.001):
    """Means of each r0, and the same seeds for all."""
    draws = np.random.default_rng(0)
    rows = []
    for place, r0 in enumerate(R0S):
        for seed in range(5):
            at = {"r0": r0, "seed": seed}
            values = {("auroc", "mean", "classification"): auroc[place]}
            values |= {("continuous_dice", "macro", "localization"): dice[place]}
            values |= {
                ("continuous_dice", name, "localization"): diffuse[place] for name in DIFFUSE
            }
            rows += [
                {
                    **at,
                    "metric": m,
                    "finding": f,
                    "part": p,
                    "value": v + seed + noise * draws.normal(),
                }
                for (m, f, p), v in values.items()
            ]
    return pd.DataFrame(rows)


FLAT = [0.8] * 6
PEAK = [0.2, 0.21, 0.22, 0.25, 0.24, 0.1]
FALLS = [0.3, 0.3, 0.3, 0.3, 0.25, 0.1]
RISES = [0.3, 0.3, 0.3, 0.3, 0.35, 0.4]


@pytest.mark.parametrize(
    ("means", "noise", "expected"),
    [
        ((FLAT, PEAK, FALLS), 0.001, ["yes", "yes", "yes"]),
        (([0.7, *FLAT[1:]], PEAK[::-1], RISES), 0.001, ["no", "no", "no"]),
        ((FLAT, PEAK, FALLS), 0.3, ["not decided"] * 3),
    ],
)
def test_claims_hold_fail_or_are_not_decided(means, noise, expected):
    assert answers(study(*means, noise=noise))["answer"].tolist() == expected


def test_a_seed_that_moves_all_r0_alike_does_not_matter():
    """The rows above differ by 1 from seed to seed; here is what an answer rests on."""
    table = answers(study(FLAT, PEAK, FALLS))
    assert [*table] == ["answer", *(f"r0 = {r0}" for r0 in R0S if r0 != 5)]
    assert table.loc["Dice is best at r0 = 5", "r0 = 20"].startswith("-0.15 [-0.15, -0.15]")
    assert table.loc["a large r0 hurts diffuse findings", "r0 = 0"] == ""


def test_the_kept_epoch_tells_the_sharpness():
    rows = [
        (f"{r0}-{s}", r0, s, loss, r0 + loss) for r0 in (0, 5) for s in (0, 1) for loss in (3, 2, 4)
    ]
    added = kept_sharpness(pd.DataFrame(rows, columns=["run", "r0", "seed", "val_loss", "r"]))
    assert added.to_numpy().tolist() == [[2, 2], [2, 2]]
