"""Arms over seeds."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cxrlib.runs import committed
from cxrlib.studies import by_seed, differences, histories, main, over_seeds

COLUMNS = ["variant", "seed", "metric", "finding", "part", "value"]


def runs(seeds=(0, 1, 2)):
    draws = np.random.default_rng(0)
    return pd.DataFrame(
        [
            (arm, seed, metric, finding, part, draws.random())
            for arm in ("pylon", "cam")
            for seed in seeds
            for metric in ("pointing", "iou")
            for finding in ("macro", "Mass", "Nodule")
            for part in ("localization", "random")
        ],
        columns=COLUMNS,
    )


def test_a_number_is_the_mean_of_its_findings():
    table = runs()
    values = by_seed(table, "variant", "pointing", ["Mass", "Nodule"])
    chosen = table.query("metric == 'pointing' and part == 'localization' and finding != 'macro'")
    naive = chosen.groupby(["seed", "variant"])["value"].mean()
    assert [*values] == ["pylon", "cam"]
    for (seed, arm), value in naive.items():
        assert values.loc[seed, arm] == pytest.approx(value)


def test_intervals_are_students_and_paired():
    values = by_seed(runs(), "variant", "pointing")
    for arm, row in over_seeds(values).iterrows():
        interval = stats.ttest_1samp(values[arm], 0).confidence_interval()
        assert row[["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
    paired = stats.ttest_rel(values["pylon"], values["cam"]).confidence_interval()
    (row,) = differences(values, "cam").itertuples()
    assert row.Index == "pylon" and row.n == 3
    assert (row.low, row.high) == pytest.approx((paired.low, paired.high))


def test_a_seed_that_moves_all_arms_alike_does_not_matter():
    values = by_seed(runs(), "variant", "pointing")
    moved = values.add(pd.Series([0, 5, -3]), axis=0)
    pd.testing.assert_frame_equal(differences(moved, "cam"), differences(values, "cam"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (runs().query("not (variant == 'cam' and seed == 1)"), "some 'variant' lack a seed"),
        (pd.concat([runs(), runs()]), "an arm has a seed twice"),
        (runs().query("metric == 'iou'"), "some 'variant' lack"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        by_seed(table, "variant", "pointing")


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="1 seed; an interval"):
        over_seeds(by_seed(runs(seeds=[0]), "variant", "pointing"))


def test_histories_are_of_finished_runs(tmp_path):
    for place, name in enumerate(("a", "b", "interrupted")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        documents = {
            "params": {"seed": place, "ordinal": 0.5, "preset": "quick"},
            "environment": {"git_commit": "abc"},
            "history": [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2)],
        }
        documents |= {} if name == "interrupted" else {"metrics": {}}
        for document, value in documents.items():
            (tmp_path / "runs" / name / f"{document}.json").write_text(json.dumps(value))
    main([str(tmp_path / "runs"), str(tmp_path / "all.csv"), "--by", "ordinal", "seed"])
    table = pd.read_csv(tmp_path / "all.csv")
    assert [*table] == ["run", "ordinal", "seed", "commit", "epoch", "loss"]
    assert table["run"].tolist() == ["a", "a", "b", "b"] and table["seed"].tolist() == [0, 0, 1, 1]
    assert table["loss"].tolist() == [1, 0.5, 1, 0.5]
    with pytest.raises(ValueError, match="no finished run below"):
        histories(tmp_path / "runs" / "interrupted", ["seed"])


def test_the_chapter_on_pylon_says_what_its_study_found():
    """Its verdict is prose; these are its claims."""
    study = committed("pylon_variants.csv")
    small, arms = ["Mass", "Nodule"], {"pylon", "cam_mean", "pylon_gap", "fpn", "fpn_group"}
    everything = by_seed(study, "variant", "pointing")
    few = by_seed(study, "variant", "pointing", small)
    auroc = by_seed(study, "variant", "auroc", ["mean"], "classification")
    prior, prior_few = (
        by_seed(study, "variant", "pointing", findings, "location_prior")
        for findings in (["macro"], small)
    )
    assert set(everything) == arms and everything.index.tolist() == [0, 1, 2, 3, 4]
    assert (everything["pylon"] > everything["cam_mean"]).all()
    assert (few["pylon"] > few["cam_mean"]).all()
    assert differences(few[["pylon", "cam_mean"]], "cam_mean").loc["pylon", "value"] >= 0.10
    assert differences(few[["pylon", "cam_mean"]], "cam_mean").loc["pylon", "low"] < 0
    ceiling = by_seed(study, "variant", "pointing", part="grid_ceiling")
    assert ceiling["cam_mean"].max() < 0.25 and ceiling["pylon"].min() > 0.95
    assert over_seeds(auroc)["value"]["cam_mean"] >= over_seeds(auroc)["value"]["pylon"]
    assert (few["pylon"] > prior_few["pylon"]).sum() == 4
    assert (over_seeds(everything)["value"] < over_seeds(prior)["value"]).all()
    assert (few["pylon"] > few["pylon_gap"]).sum() == 4
    gaps = [differences(of[["pylon", "pylon_gap"]], "pylon_gap") for of in (everything, few)]
    assert all(row.low < 0 < row.high for of in gaps for row in of.itertuples())
    gap = everything["pylon"] - everything["pylon_gap"]
    assert gap.min() < 0 < gap.max()
    assert (everything["fpn_group"] > everything["fpn"]).sum() == 4
    means = over_seeds(auroc)["value"]
    assert means["fpn_group"] >= means["fpn"]


def test_the_chapter_on_ham_says_what_its_study_found():
    study, arms = committed("ham_ordinal.csv"), {0.0, 0.1}
    outside = by_seed(study, "ordinal", "outside_abnormality", ["micro"], "attention")
    pointing = by_seed(study, "ordinal", "pointing")
    auroc = by_seed(study, "ordinal", "auroc", ["mean"], "classification")
    random, prior = (
        by_seed(study, "ordinal", "pointing", part=part) for part in ("random", "location_prior")
    )
    assert set(outside) == arms and len(outside) >= 2
    assert outside[0.1].max() < 0.08 and outside[0.0].between(0.15, 0.27).all()
    assert (pointing[0.1] < random[0.1] + 0.02).all() and (pointing < prior).all(axis=None)
    assert (pointing[0.0] > 3 * random[0.0]).all()
    assert (auroc[0.0] - auroc[0.1]).between(0, 0.04).all()
    history = committed("ham_history.csv")
    history["share"] = history["val_beyond"] / history["val_mass"]
    share = history.pivot(index="epoch", columns=["ordinal", "seed"], values="share")
    gap = share[0.0] - share[0.1]
    assert (gap.iloc[1:] > 0).all(axis=None) and (gap.iloc[-1] > gap.iloc[0] + 0.1).all()
    maps = committed("ham_mean_maps.csv")
    maps["edge"] = maps[["row", "column"]].isin((0, maps["row"].max())).any(axis=1)
    mean = maps.groupby(["ordinal", "edge", "seed"])["value"].mean()
    assert (mean[0.1, True] > 1.5 * mean[0.1, False]).all()
    assert (mean[0.0, True] < mean[0.0, False]).all()


def test_the_chapter_on_ham_says_what_real_radiographs_gave():
    table = committed("ham_nih_mini.csv")
    table = table[table["box_share"].isna()].set_index(["part", "metric", "finding"])["value"]
    assert 0.5 < table["classification", "auroc", "mean"] < 0.6
    pointing, random, prior = (
        table[part, "pointing", "macro"] for part in ("localization", "random", "location_prior")
    )
    assert abs(pointing - random) < 0.03 and 0.25 < pointing / prior < 0.4
    boxes = committed("ham_nih_mini.csv").query("box_share == 0.8 and metric == 'pointing'")
    taught = boxes.set_index(["part", "finding"])
    assert taught.loc[("localization", "macro"), "value"] > 3 * pointing
    row = taught.loc[("localization", "macro")]
    assert row["low"] < taught.loc[("location_prior", "macro"), "value"] < row["high"]
