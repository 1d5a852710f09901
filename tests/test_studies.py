"""Arms over seeds."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cxrlib import literature
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


def test_the_chapter_on_lse_lba_says_what_its_r0_study_found():
    study = committed("lse_lba_r0.csv").query("part == 'localization'")
    prior = committed("lse_lba_r0.csv").query("part == 'location_prior' and finding == 'macro'")

    def of(metric, finding):
        rows = study.query("metric == @metric and finding == @finding")
        return rows.set_index("r0")["value"].round(2).sort_index()

    pointing, dice = of("pointing", "macro"), of("continuous_dice", "macro")
    assert pointing.idxmax() == 5 and pointing[10] > max(pointing[[0, 1, 20]])
    nodule = of("pointing", "Nodule")
    assert max(nodule[[0, 1]]) < 0.6 * nodule[5] and nodule[20] < 0.5 * nodule[5]
    assert dice[[0, 1, 5]].nunique() == 1 and dice[5] > dice[10] > dice[20]
    assert dice[5] > prior.query("metric == 'continuous_dice'")["value"].max()
    heart, nodule = of("continuous_dice", "Cardiomegaly"), of("continuous_dice", "Nodule")
    assert heart.is_monotonic_decreasing and (heart[0], heart[20]) == (0.52, 0.18)
    assert (nodule[0], nodule[5]) == (0.06, 0.10) and nodule.idxmax() in (5, 10)


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


def test_the_chapter_on_attention_mining_says_what_its_study_found():
    """Its verdict is prose; these are its claims."""
    study = committed("attention_mining_variants.csv")
    steps = committed("attention_mining_steps.csv")
    diffuse, Ts = (
        ["Infiltration", "Edema", "Pneumonia", "Consolidation"],
        (0.1, 0.25, 0.5, 0.75, 0.9),
    )

    def of(metric, part="localization", findings=("macro",)):
        return by_seed(study, "variant", metric, findings, part)

    def stepwise(arm, metric, findings=("macro",), part="localization"):
        return by_seed(steps[steps["variant"] == arm], "step", metric, findings, part)

    auroc = of("auroc", "classification", ["mean"])
    assert set(auroc) == {"cam", "msa", "am", "am_kp"} and auroc.index.tolist() == [0, 1, 2]
    # The labels.
    for arm in ("am", "am_kp"):
        change = auroc[arm] - auroc["msa"]
        assert change.abs().max() < 0.01 and change.min() < 0 < change.max()
        known = stepwise(arm, "auroc", ["mean"], "classification")
        assert np.allclose(known[2] - known[0], change, atol=1e-4)  # both mine from msa
    # The maps.
    dice, pointing = of("continuous_dice"), of("pointing")
    assert (pointing[["am", "am_kp"]].sub(pointing["msa"], axis=0).abs() < 0.02).all(axis=None)
    assert (pointing["msa"] > pointing["cam"]).all()
    assert (pointing["msa"] - pointing["cam"]).min() < 0.01
    ceiling = of("pointing", "grid_ceiling")
    assert ceiling["cam"].max() < 0.8 and ceiling["msa"].min() > 0.99
    for values in (dice, auroc):
        assert (values["msa"] - values["cam"]).agg(["min", "max"]).prod() < 0
    gain = dice[["am", "am_kp"]].sub(dice["msa"], axis=0)
    assert (gain > 0).all(axis=None) and (gain < 0.02).all(axis=None)
    assert differences(dice[["am_kp", "msa"]], "msa").loc["am_kp", "low"] > 0
    assert differences(dice[["am", "msa"]], "msa").loc["am", "low"] < 0
    for metric, values in (("pointing", pointing), ("continuous_dice", dice)):
        assert (values < of(metric, "location_prior")).all(axis=None)
    # What is found, and what is claimed.
    for arm in ("am", "am_kp"):
        for findings in (["macro"], diffuse):
            found = stepwise(arm, "found", findings)
            area, prior = (
                stepwise(arm, "found", findings, part) for part in ("random", "location_prior")
            )
            assert (found.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
            assert (area.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
            assert (prior > found).all(axis=None)
        assert (stepwise(arm, "found") > stepwise(arm, "found", part="random")).all(axis=None)
    gained, claimed = (
        {arm: (of_arm[2] - of_arm[0]) for arm, of_arm in pairs.items()}
        for pairs in (
            {arm: stepwise(arm, "found") for arm in ("am", "am_kp")},
            {arm: stepwise(arm, "found", part="random") for arm in ("am", "am_kp")},
        )
    )
    assert (gained["am"] > 2 * gained["am_kp"]).all()
    assert (claimed["am"] > 2 * claimed["am_kp"]).all()
    assert all((gained[arm] > claimed[arm]).all() for arm in gained)
    assert gained["am"][0] < 1.1 * claimed["am"][0]
    precision = {arm: stepwise(arm, "precision") for arm in ("am", "am_kp")}
    lost = {arm: of_arm[0] - of_arm[2] for arm, of_arm in precision.items()}
    assert (lost["am"] > lost["am_kp"]).all() and max(of.max() for of in lost.values()) < 0.02
    assert (
        sum((stepwise("am", "found", diffuse) > stepwise("am", "found", diffuse, "random"))[2]) == 2
    )
    # Wang's protocol.
    for T in Ts:
        accuracy, false = of(f"wang_iobb@{T}"), of(f"wang_afp_iobb@{T}")
        noise, noisy = (of(f"{name}@{T}", "random") for name in ("wang_iobb", "wang_afp_iobb"))
        assert (noise["am_kp"] > accuracy.max(axis=1)).all()
        assert (noisy["am_kp"] > 10 * false.drop(columns="cam").max(axis=1)).all()
        assert (false["am"] > false["am_kp"]).all() and (false["am_kp"] > false["msa"]).all()
    least = of("wang_iobb@0.1")
    assert (least[["am", "am_kp"]].gt(least["msa"], axis=0)).all(axis=None)


def test_the_chapter_on_ham_says_what_its_study_found():
    study, arms = committed("ham_ordinal.csv"), {0.0, 0.1}
    outside = by_seed(study, "ordinal", "outside_abnormality", ["micro"], "attention")
    pointing = by_seed(study, "ordinal", "pointing")
    auroc = by_seed(study, "ordinal", "auroc", ["mean"], "classification")
    random, prior = (
        by_seed(study, "ordinal", "pointing", part=part) for part in ("random", "location_prior")
    )
    assert set(outside) == arms and outside.index.tolist() == [0, 1, 2]
    assert differences(outside, 0.0).loc[0.1, "high"] < -0.1
    assert outside[0.1].max() < 0.08 and outside[0.0].between(0.15, 0.27).all()
    assert (pointing[0.1] < random[0.1] + 0.02).all() and (pointing < prior).all(axis=None)
    assert (pointing[0.0] > 3 * random[0.0]).all()
    assert (auroc[0.0] - auroc[0.1]).between(0, 0.04).all()
    history = committed("ham_history.csv")
    history["share"] = history["val_beyond"] / history["val_mass"]
    share = history.pivot(index="epoch", columns=["ordinal", "seed"], values="share")
    assert (share[0.0] > share[0.1]).iloc[1:].all(axis=None)
    maps = committed("ham_mean_maps.csv")
    maps["edge"] = maps[["row", "column"]].isin((0, maps["row"].max())).any(axis=1)
    mean = maps.groupby(["ordinal", "edge", "seed"])["value"].mean()
    assert (mean[0.1, True] > 1.4 * mean[0.1, False]).all()
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
    row = taught.loc[("localization", "macro")]
    fold = committed("ham_nih_mini.csv").query("box_share == 0 and metric == 'pointing'")
    untaught = fold.set_index(["part", "finding"]).loc[("localization", "macro")]
    assert (round(untaught["value"], 2), round(row["value"], 2)) == (0.11, 0.29)
    assert untaught["high"] < row["low"] and untaught["n"] == row["n"]
    assert row["low"] < taught.loc[("location_prior", "macro"), "value"] < row["high"]


def test_the_chapter_on_attention_mining_says_what_real_radiographs_gave():
    real = committed("attention_mining_nih_mini.csv")
    real = real[real["finding"].isin(["macro", "mean"])]
    numbers = real.pivot(index=["metric", "part"], columns="variant", values="value")
    assert set(numbers) == {"cam", "msa", "am", "am_kp"}
    assert numbers.loc[("auroc", "classification")].between(0.53, 0.6).all()
    pointing, prior, random = (
        numbers.loc[("pointing", part)] for part in ("localization", "location_prior", "random")
    )
    assert (pointing < 0.4 * prior).all() and ((pointing - random).abs() < 0.04).all()
    metrics = ["continuous_dice", *(f"wang_iobb@{T}" for T in (0.1, 0.25, 0.5, 0.75, 0.9))]
    for metric in metrics:
        ours, theirs = (numbers.loc[(metric, part)] for part in ("localization", "location_prior"))
        assert (ours < theirs).all()
    false = numbers.loc[[f"wang_afp_iobb@{T}" for T in (0.1, 0.25, 0.5, 0.75, 0.9)]]
    assert false.xs("localization", level="part").stack().between(3, 5.3).all()
    published = literature.published("wang2017").query("metric == 'T(IoBB) AFP'")
    assert published.groupby("threshold")["value"].mean().between(0.45, 0.7).all()


def test_the_chapter_on_clarity_says_what_its_study_found():
    study, small = committed("clarity_ablation.csv"), ["Nodule", "Mass"]
    auroc = by_seed(study, "variant", "auroc", ["mean"], "classification")
    pointing, few = (by_seed(study, "variant", "pointing", of) for of in (["macro"], small))
    assert auroc.index.tolist() == [0, 1, 2] and len([*auroc]) == 6
    for values in (auroc, pointing, few):
        for arm in ("no_segment_cam", "no_stem"):
            row = differences(values[["clarity", arm]], arm).loc["clarity"]
            assert row["low"] > 0.04 and (arm != "no_stem" or row["value"] > 0.08)
        for arm in ("no_orthogonal", "no_attention_pooling"):
            row = differences(values[["clarity", arm]], arm).loc["clarity"]
            assert row["low"] < 0 < row["high"]
    prior, rare = (
        by_seed(study, "variant", "pointing", of, "location_prior") for of in (["macro"], small)
    )
    assert few["no_segment_cam"].max() < 0.05
    assert (pointing["no_segment_cam"] < prior["no_segment_cam"]).all()
    assert (pointing[["clarity", "lungs_only"]] > prior[["clarity", "lungs_only"]]).all(axis=None)
    assert (few["clarity"] > rare["clarity"]).all()
    pair = ["clarity", "lungs_only"]
    assert differences(pointing[pair], "lungs_only").loc["clarity", "low"] > 0
    taught = study[study["variant"].isin(pair)]
    lungs, both = (
        by_seed(taught, "variant", f"dice, {of}", ["mean"], "anatomy")
        for of in ("lungs", "lungs and heart")
    )
    assert lungs["lungs_only"].min() > 0.85 > 0.8 > lungs["clarity"].max()
    assert both["clarity"].min() > 0.9 > 0.8 > both["lungs_only"].max()


def test_the_chapter_on_clarity_says_what_real_radiographs_gave():
    real = committed("clarity_nih_mini.csv").query("finding == 'macro'")
    numbers = real.pivot(index="metric", columns="part", values="value")
    halves = numbers.loc[[f"clarity_iou@{T}" for T in (0.1, 0.2, 0.3, 0.4, 0.5)]]
    assert (halves["random"] < halves["localization"]).all()
    assert (halves["localization"] < halves["location_prior"]).all()
    assert numbers.loc["pointing", "localization"] < numbers.loc["pointing", "location_prior"]
    for other in ("lse_lba", "pylon", "attention_mining", "ham"):
        rows = committed(f"{other}_nih_mini.csv").query(
            "metric == 'pointing' and finding == 'macro' and part == 'localization'"
        )
        theirs = rows[rows["n"] == 601]["value"]
        assert len(theirs) and theirs.max() < numbers.loc["pointing", "localization"]
