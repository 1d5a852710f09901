"""The bags of the chapter on pooling, and what is learned from them."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlib import bags, studies
from cxrlib.bags import POOLINGS, SHARES, SIDE


@pytest.mark.parametrize("share", SHARES)
def test_a_bag_is_positive_if_an_instance_is(share):
    drawn = bags.draw(40, share, seed=3)
    positive = (drawn.kind > 0).sum(dim=1)
    assert positive.tolist() == [0, max(1, round(share * SIDE**2))] * 20
    assert drawn.label.tolist() == [0, 1] * 20
    assert torch.equal(drawn.x, bags.draw(40, share, seed=3).x)


def test_the_context_moves_all_instances_of_positive_bags():
    one, moved = (bags.draw(10, 0.3, seed=1, context=context) for context in (0, 2))
    expected = torch.zeros_like(one.x)
    expected[1::2, :, 2] = 2
    assert torch.allclose(moved.x - one.x, expected, atol=1e-5)


def test_positive_instances_are_shifted_along_the_feature_of_their_kind():
    drawn = bags.draw(400, 0.5, seed=0)
    means = torch.stack([drawn.x[drawn.kind == kind].mean(dim=0) for kind in range(3)])
    expected = torch.zeros_like(means)
    expected[1, 0], expected[2, 1] = bags.PLAIN, bags.SUBTLE
    assert (means - expected).abs().max() < 0.1


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_does_not_see_the_order_of_instances(name):
    torch.manual_seed(0)
    scores = torch.randn(2, 1, 5, SIDE, SIDE)
    shuffled = scores.flatten(-2)[..., torch.randperm(SIDE**2)].view(scores.shape)
    one, other = (bags.pooled(name, S) for S in (scores, shuffled))
    assert one.shape == (1, 5)
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_scorers_that_learn_side_by_side_do_not_see_each_other(name):
    one, other, third = (bags.draw(20, 0.3, seed) for seed in range(3))
    pairs = [bags.learn(name, sets, 3, seed=0) for sets in ([one, other], [one, third])]
    for weights, same in zip(*(scorers.parameters() for scorers in pairs), strict=True):
        assert torch.allclose(weights[0], same[0])
        assert not torch.allclose(weights[1], same[1])


def test_instances_are_learned_from_labels_of_bags():
    table = bags.experiment(seeds=2, steps=150, bags=200, seed=0)
    assert len(table) == len(POOLINGS) * len(SHARES) * len(bags.CONTEXTS) * 2 * 3
    mean = table.query("pooling == 'mean' and metric == 'plain' and share > 0.2 and context == 0")
    assert (mean["value"] > 0.85).all()
    pd.testing.assert_frame_equal(table, bags.experiment(2, 150, 200, seed=0))


def test_chance_scores_pool_higher_in_larger_bags_unless_they_are_averaged():
    table = bags.by_size((1, 8, 32), draws=300, seed=0)
    assert np.ptp(table["mean"]) < 0.05
    assert table["max"].is_monotonic_increasing and table["max"].iloc[-1] > 0.6


def test_what_perfect_scores_pool_to():
    table = bags.by_share((1 / 36, 0.5, 1.0))
    assert (table.iloc[-1].drop("noisy-or") > 0.9).all()
    assert table["noisy-or"].iloc[-1] == pytest.approx(1 - (1 - 0.02 * 0.9526) ** 36, abs=1e-3)
    assert table["max"].iloc[0] > 0.9 and table["mean"].iloc[0] < 0.1


def test_the_chapters_verdict_holds():
    quick = bags.PRESETS["quick"]
    table = bags.experiment(quick["seeds"], quick["steps"], quick["bags"], seed=0)

    def against_lse_lba(metric, share, context):
        rows = table[table["metric"] == metric]
        rows = rows[(rows["share"] == share) & (rows["context"] == context)]
        values = rows.pivot(index="seed", columns="pooling", values="value")
        return studies.differences(values, "LSE-LBA")

    one, tenth, _, most = SHARES
    silent, knows = bags.CONTEXTS
    averages = ["mean", "noisy-or"]
    assert (against_lse_lba("subtle", most, silent).loc[averages, "low"] > 0).all()
    assert against_lse_lba("instances", one, silent).loc["mean", "high"] > 0
    assert (against_lse_lba("plain", tenth, knows).loc[averages, "high"] < 0).all()
    assert (against_lse_lba("instances", tenth, knows).loc[averages, "value"] < 0).all()
    assert against_lse_lba("instances", most, knows).loc["mean", "low"] > 0
    lowest = table[table["metric"] == "plain"].groupby("pooling")["value"].min()
    highest = table[table["metric"] == "plain"].groupby("pooling")["value"].max()
    assert lowest["max"] < 0.4 and highest["max"] > 0.9
    hopeless = table.query("metric == 'instances' and share < 0.03 and context > 0")
    assert (hopeless.groupby("pooling")["value"].mean() < 0.65).all()


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed = -1; a number of at least 0"):
        bags.PoolingParameters(preset="quick", seed=-1)
