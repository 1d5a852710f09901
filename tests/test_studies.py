"""Arms over seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cxrlib.studies import by_seed, differences, over_seeds

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
