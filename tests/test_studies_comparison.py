"""The page that compares all methods says what its tables hold."""

from cxrlib.phantom.shortcuts import CONFOUNDED, answers
from cxrlib.ranks import ARMS, RANKED
from cxrlib.runs import committed
from cxrlib.studies import by_seed


def test_every_method_was_tested_on_the_same_patients():
    scores = committed("comparison.csv")
    assert set(scores["method"]) == set(ARMS)
    assert (scores.groupby("seed")["split_hash"].nunique() == 1).all()
    assert scores.groupby("method")["seed"].nunique().nunique() == 1
    hashes = scores.groupby(["seed", "image_size"])["data_hash"].nunique()
    assert (hashes == 1).all()  # at one size also the same pixels


def test_ranks_are_of_the_same_runs():
    scores, ranks = committed("comparison.csv"), committed("comparison_ranks.csv")
    assert set(ranks["metric"]) == set(RANKED) and set(ranks["method"]) == set(ARMS)
    assert (ranks["seeds"] == scores["seed"].nunique()).all()
    assert (ranks["rank_low"] <= ranks["rank"]).all() and (
        ranks["rank"] <= ranks["rank_high"]
    ).all()
    part = scores["part"].isin(["classification", "localization"])
    means = scores[part & scores["finding"].isin(["mean", "macro"])]
    means = means.groupby(["method", "metric"])["value"].mean()
    for row in ranks.itertuples():
        assert abs(means[row.method, row.metric] - row.value) < 0.005  # two ways to the same number


def test_the_smallest_network_points_best_and_none_is_above_its_ceiling():
    scores = committed("comparison.csv")
    cost = scores[scores["metric"] == "weights"].groupby("method")["value"].mean()
    pointing = scores.query("metric == 'pointing' and finding == 'macro'")
    means = pointing.groupby(["part", "method"])["value"].mean()
    assert cost.idxmin() == means["localization"].idxmax()
    assert (means["localization"] <= means["grid_ceiling"]).all()


def test_two_metrics_disagree_about_the_order():
    """Exercise 3."""
    order = committed("comparison_ranks.csv").pivot(index="method", columns="metric", values="rank")
    assert (order["pointing"] - order["auroc"]).abs().max() >= 2


def test_two_processes_differ_from_one_by_less_than_seeds_do():
    two, one = committed("several_devices.csv"), committed("r0_sensitivity.csv").query("r0 == 5")
    assert set(two["split_hash"]) < set(one["split_hash"]) and set(two["processes"]) == {2}
    for place in (
        ("auroc", ["mean"], "classification"),
        ("pointing", ["macro"], "localization"),
        ("continuous_dice", ["macro"], "localization"),
    ):
        ours, theirs = (by_seed(of, "r0", *place)[5] for of in (two, one))
        assert len(ours) == 3 and len(theirs) == 5
        assert abs((ours - theirs).mean()) < theirs.std()


def test_a_pacemaker_is_learned_in_place_of_the_heart_and_small_devices_are_not():
    study = committed("shortcuts.csv")
    groups = {name: [name] for name in CONFOUNDED}
    table = answers(study, groups).set_index(["findings", "score", "test", "share"])
    table = table["sign"].sort_index()
    heart = table.loc["Cardiomegaly"]
    assert heart["AUROC", "tied"][[0.5, 1.0]].tolist() == [1, 1]
    assert heart["AUROC", "free"][[0.5, 1.0]].tolist() == [-1, -1]
    assert (heart["pointing", "tied"] == -1).all() and (heart["continuous Dice"] == -1).all()
    small = table.drop("Cardiomegaly")
    assert (small == 0).all()
    at = by_seed(study[study["test"] == "tied"], "strength", "pointing", ["Cardiomegaly"])
    assert (at[1.0] < 0.1).all() and (at[0.0] > 0.9).all()


def test_the_mean_map_of_the_heart_moves_to_the_pacemaker():
    cells = committed("shortcuts_maps.csv").query("finding == 'Cardiomegaly'")
    side = cells["row"].max() + 1
    above = cells[(cells["row"] < 0.4 * side) & (cells["column"] > 0.6 * side)]
    share = above.groupby("strength")["value"].sum() / cells.groupby("strength")["value"].sum()
    assert share.is_monotonic_increasing and share[0.0] < 0.1 and share[1.0] > 0.8
