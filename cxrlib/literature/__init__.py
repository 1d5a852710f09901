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
    return _of_paper("fidelity.csv", paper, "no fidelity ledger for {!r}; there is one for: {}")


def published(paper: str) -> pd.DataFrame:
    """Numbers that a paper has published, to stand beside ours; what differs is for the reader.

    Args:
        paper: its key in the bibliography, e.g. ``"wang2017"``.

    Returns:
        columns table, method, split, metric, threshold, finding, value, source, confidence.

    Raises:
        ValueError: no number of this paper is at hand.

    >>> rows = published("wang2017").query("metric == 'T(IoBB) Acc' and finding == 'Nodule'")
    >>> rows["threshold"].tolist()
    [0.1, 0.25, 0.5, 0.75, 0.9]
    """
    lacking = "no published numbers of {!r}; there are some of: {}"
    return _of_paper("published_results.csv", paper, lacking)


def published_papers() -> list[str]:
    """Keys of the papers of which :func:`published` has a number.

    >>> "yao2018" in published_papers()
    True
    """
    return sorted(table("published_results.csv")["paper"].unique())


def table(name: str) -> pd.DataFrame:
    """A table of this package, whole.

    >>> table("setups.csv")["paper"].iloc[0]
    'yao2018'
    """
    with resources.as_file(resources.files("cxrlib.literature") / name) as file:
        return pd.read_csv(file)


def _of_paper(name: str, paper: str, lacking: str) -> pd.DataFrame:
    """Rows of a table of this package; ``lacking`` is the complaint where there are none."""
    every = table(name)
    rows = every[every["paper"] == paper]
    if rows.empty:
        raise ValueError(lacking.format(paper, ", ".join(sorted(every["paper"].unique()))))
    return rows.drop(columns="paper").reset_index(drop=True)
