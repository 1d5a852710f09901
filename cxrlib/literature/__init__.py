"""What is known of each paper: the fidelity ledger, and numbers it has published."""

from importlib import resources

import pandas as pd

SOURCES = ("paper", "official code", "secondary", "our reading")
"""How surely an element of a paper is known, surest first."""


def fidelity(paper: str) -> pd.DataFrame:
    """The fidelity ledger of a paper: every element of its method, where ours comes from, and why.

    Args:
        paper: name of the model, e.g. ``"lse_lba"``; ``"protocols"`` for ways of scoring.

    Returns:
        columns element, source (one of :data:`SOURCES`), what the source says, what we do, why.

    Raises:
        ValueError: there is no ledger for this paper.

    >>> fidelity("lse_lba").set_index("element").loc["optimizer", "source"]
    'secondary'
    """
    path = resources.files("cxrlib.literature") / "fidelity.csv"
    with resources.as_file(path) as file:
        ledger = pd.read_csv(file)
    rows = ledger[ledger["paper"] == paper]
    if rows.empty:
        papers = ", ".join(sorted(ledger["paper"].unique()))
        raise ValueError(f"no fidelity ledger for {paper!r}; there is one for: {papers}")
    return rows.drop(columns="paper").reset_index(drop=True)


def published(paper: str) -> pd.DataFrame:
    """Numbers that a paper has published, to stand beside ours; what differs is for the reader.

    Args:
        paper: its key in the bibliography, e.g. ``"statheros2025"``.

    Returns:
        columns table, method, split, metric, threshold, finding, value, source, confidence.

    Raises:
        ValueError: no number of this paper is at hand.

    >>> rows = published("statheros2025").query("metric == 'T(IoU) Acc'")
    >>> rows["threshold"].tolist()
    [0.1, 0.2, 0.3, 0.4, 0.5]
    """
    path = resources.files("cxrlib.literature") / "published_results.csv"
    with resources.as_file(path) as file:
        numbers = pd.read_csv(file)
    rows = numbers[numbers["paper"] == paper]
    if rows.empty:
        papers = ", ".join(sorted(numbers["paper"].unique()))
        raise ValueError(f"no published numbers of {paper!r}; there are some of: {papers}")
    return rows.drop(columns="paper").reset_index(drop=True)
