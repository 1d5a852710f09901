import re
from pathlib import Path

import pandas as pd
import pytest

from cxrlib import literature
from cxrlib.models import MODELS


def test_every_model_has_a_complete_ledger():
    for paper in [*MODELS, "protocols"]:
        ledger = literature.fidelity(paper)
        assert set(ledger["source"]) <= set(literature.SOURCES)
        assert not ledger.isna().any(axis=None) and ledger["element"].is_unique
    for paper in MODELS:
        ledger = literature.fidelity(paper)
        for part in ("pooling", "loss", "optimizer", "split", "localization score", "input size"):
            assert part in set(ledger["element"]), part


def test_what_nobody_states_is_our_reading():
    ledger = literature.fidelity("lse_lba")
    unknown = ledger["what the source says"].str.match("not known to us")
    assert unknown.any()
    assert (ledger.loc[unknown, "source"] == "our reading").all()


def test_a_paper_without_a_ledger_is_refused():
    papers = ", ".join(sorted([*MODELS, "protocols"]))
    expected = f"no fidelity ledger for 'yao'; there is one for: {papers}"
    with pytest.raises(ValueError, match=expected):
        literature.fidelity("yao")


def test_quoted_results_agree_with_the_collected_sources(shared):
    """The one published number in the notebook is in the table of sources, for the same split."""
    table = pd.read_csv(shared / "papers" / "published_results.csv")
    rows = table[(table["paper"] == "LSE-LBA_Yao2018") & (table["finding"] == "Mean")]
    text = (Path(__file__).parents[1] / "notebooks" / "lse_lba.py").read_text()
    assert re.search(r"mean AUROC of (0\.\d+) on the official", text).group(1) == "0.761"
    assert rows["split"].tolist() == ["official"]
    assert rows["value"].astype(float).tolist() == [0.761]


def test_published_numbers_are_those_of_the_collected_sources(shared):
    """Of Wang 2017 the tables for ChestX-ray14's official split, and no other."""
    table = pd.read_csv(shared / "papers" / "published_results.csv")
    wanted = table["table"].str.startswith(("Table 17", "Table 19"))
    sources = table[wanted & (table["split"] == "official")]
    sources = sources[sources["finding"] != "Mean"]  # of which the source is these rows
    columns = ["table", "method", "metric", "threshold", "finding", "value", "source"]
    ours = literature.published("wang2017").query("finding != 'Mean'")
    pairs = [of[columns].astype(str).sort_values(columns).values.tolist() for of in (ours, sources)]
    numbers = [[(*row[:5], float(row[5]), row[6]) for row in rows] for rows in pairs]
    assert len(ours) == 94 and sorted(numbers[0]) == sorted(numbers[1])
    assert (ours["confidence"] == "verified-in-source").all()


def test_a_paper_without_published_numbers_is_refused():
    with pytest.raises(ValueError, match="no published numbers of 'cai2018'; there are some of"):
        literature.published("cai2018")


def test_published_numbers_of_clarity_are_those_of_the_collected_sources(shared):
    table = pd.read_csv(shared / "papers" / "published_results.csv")
    theirs = table[(table["paper"] == "Statheros2025_CLARiTy") & (table["table"] != "abstract")]
    ours = literature.published("statheros2025")
    assert (ours["confidence"] == "from-secondary").all() and len(ours) == 7
    for row in ours.itertuples():
        same = theirs["method"].str.startswith(row.method.split(" ")[0])
        if row.metric == "AUROC":
            found = theirs[same & (theirs["metric"] == "AUROC")]
        else:
            at = pd.to_numeric(theirs["threshold"]) == row.threshold
            found = theirs[same & at & theirs["metric"].str.startswith(row.metric)]
        assert found["value"].astype(float).tolist() == [row.value]


def test_published_numbers_of_lse_lba_and_pylon_are_those_of_the_collected_sources(shared):
    table = pd.read_csv(shared / "papers" / "published_results.csv")
    (ours,) = literature.published("yao2018").to_dict("records")
    (theirs,) = table[table["paper"] == "LSE-LBA_Yao2018"].to_dict("records")
    assert all(ours[name] == theirs[name] for name in ("metric", "finding", "confidence"))
    assert ours["value"] == float(theirs["value"])
    pylon = literature.published("preechakul2022")
    for place, paper in (
        ("abstract", "PYLON_Preechakul2022"),
        ("released heat maps", "PYLON_repo"),
    ):
        numbers = pylon[pylon["table"] == place]
        assert (
            numbers["value"].tolist()
            == table[table["paper"] == paper]["value"].astype(float).tolist()
        )
    assert set(pylon[pylon["table"] == "released heat maps"]["confidence"]) == {"derived"}
