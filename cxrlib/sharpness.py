"""What the sharpness prior r0 does: three claims about LSE-LBA, answered from a table of runs.

The summaries of the paper say that AUROC hardly depends on r0, that Dice is best near r0 = 5, and
that a large r0 hurts diffuse findings. Every answer compares r0 within a seed.
"""

import pandas as pd

from cxrlib.studies import by_seed, differences, show

USUAL = 5
"""The r0 that is said to be best."""

BAND = 0.02
"""AUROCs that differ by less than this are called equal."""

DIFFUSE = ("Consolidation", "Edema", "Infiltration", "Pneumonia")
"""Findings without an edge."""

LARGE = (10, 20)
"""What is called a large r0."""


def answers(runs: pd.DataFrame) -> pd.DataFrame:
    """Whether the three claims hold.

    A claim holds if all intervals that it is about lie on its side, it fails if one lies wholly on
    the other side, and else these seeds do not decide.

    Args:
        runs: tidy rows of :func:`cxrlib.runs.collect`, several seeds for each r0.

    Returns:
        a row for each claim: answer (``"yes"``, ``"no"`` or ``"not decided"``), and the differences
        from r0 = 5 that it rests on, by r0, for people.
    """
    auroc = differences(by_seed(runs, "r0", "auroc", ["mean"], "classification"), USUAL)
    dice = differences(by_seed(runs, "r0", "continuous_dice"), USUAL)
    diffuse = differences(by_seed(runs, "r0", "continuous_dice", DIFFUSE), USUAL)
    large = diffuse.loc[list(LARGE)]
    flat = (auroc["low"] > -BAND) & (auroc["high"] < BAND)
    apart = (auroc["low"] > BAND) | (auroc["high"] < -BAND)
    claims = {
        f"AUROC does not depend on r0 (within {BAND})": (flat, apart, auroc),
        f"Dice is best at r0 = {USUAL}": (dice["high"] < 0, dice["low"] > 0, dice),
        "a large r0 hurts diffuse findings": (large["high"] < 0, large["low"] > 0, large),
    }
    table = pd.DataFrame(
        {
            claim: {"answer": decided(holds, fails)}
            | {f"r0 = {r0:g}": show(row) for r0, row in rows.iterrows()}
            for claim, (holds, fails, rows) in claims.items()
        }
    ).T.fillna("")
    return table[["answer", *(f"r0 = {r0:g}" for r0 in auroc.sort_index().index)]]


def decided(holds: pd.Series, fails: pd.Series) -> str:
    """An answer from what holds and what fails for certain: "yes", "no" or "not decided".

    >>> decided(pd.Series([True, True]), pd.Series([False, False]))
    'yes'
    >>> decided(pd.Series([True, False]), pd.Series([False, False]))
    'not decided'
    """
    if holds.all():
        return "yes"
    return "no" if fails.any() else "not decided"


def kept_sharpness(histories: pd.DataFrame) -> pd.DataFrame:
    """The sharpness r = r0 + exp(beta) that each run kept, that of its lowest validation loss.

    Args:
        histories: of :func:`cxrlib.studies.histories`, by r0 and seed.

    Returns:
        r - r0, what the network added by itself: seeds as rows, r0 as columns.

    >>> columns = ["run", "r0", "seed", "val_loss", "r"]
    >>> rows = [("a", 5.0, 0, 0.4, 6.0), ("a", 5.0, 0, 0.3, 6.5), ("a", 5.0, 0, 0.5, 7.0)]
    >>> kept_sharpness(pd.DataFrame(rows, columns=columns)).loc[0, 5.0].item()
    1.5
    """
    kept = histories.loc[histories.groupby("run")["val_loss"].idxmin()]
    return kept.assign(added=kept["r"] - kept["r0"]).pivot(
        index="seed", columns="r0", values="added"
    )
