import json
from dataclasses import replace

import numpy as np
import pytest
from test_metrics_localization import make_dataset, random_dataset, random_images, random_rows

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics import (
    PROTOCOLS,
    estimate,
    evaluate,
    score,
    score_classification,
    table,
    table_of_two,
)
from cxrlib.metrics.scorer import MODEL, SIZES, strata
from cxrlib.predictions import Predictions

MISSING = {"value": None, "low": None, "high": None, "n": 0}
CONTROLS = {"random", "centre_prior", "location_prior", "grid_ceiling"}
NOT_PER_RECORD = {name for name, protocol in PROTOCOLS.items() if not protocol.every_record}


def predicted(dataset, grid=6, seed=0, **kwargs):
    """Random scores, and maps of every image."""
    width = len(kwargs.get("findings", FINDINGS))
    scores = np.random.default_rng(seed).random((len(dataset), width))
    maps = random_images(len(dataset), grid, seed).astype(np.float16)
    located = {"map_ids": dataset.image_ids, "maps": maps, "frame": dataset.image_size}
    return Predictions.from_arrays(dataset.image_ids, scores, **(located | kwargs))


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(40, patients=25, views=np.array(["PA", "AP", "PA", ""] * 10))


@pytest.fixture(scope="module")
def metrics(dataset):
    return evaluate(predicted(dataset), dataset, replicates=20, seed=1)


def numbers(tree, path=()):
    """Every number of a metrics.json with where it is."""
    if set(tree) == set(MISSING):
        return {path: tree}
    return {k: v for name, sub in tree.items() for k, v in numbers(sub, (*path, name)).items()}


def test_evaluate_has_the_shape_of_metrics_json(metrics):
    assert set(metrics) == {"classification", "localization", "controls", "strata", "protocols"}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert {"auroc", "average_precision"} <= set(metrics["classification"])
    assert set(metrics["controls"]) == CONTROLS
    for of_protocols in (metrics["localization"], *metrics["controls"].values()):
        assert list(of_protocols) == list(PROTOCOLS)
        for summary in of_protocols.values():
            assert set(summary) == {"macro", "micro", "per_finding"}
            assert list(summary["per_finding"]) == list(FINDINGS)
            assert set(summary["macro"]) == {"value", "low", "high", "n"}
    assert metrics["localization"]["pointing"]["per_finding"]["Hernia"] == MISSING
    assert metrics["localization"]["pointing"]["micro"]["n"] == 40
    assert set(metrics["strata"]) == {"size", "view"}
    assert set(metrics["strata"]["view"]) == {"AP", "PA", "unknown"}
    for of_kind in metrics["strata"].values():
        for of_stratum in of_kind.values():
            assert set(of_stratum) == NOT_PER_RECORD
            assert set(of_stratum["pointing"]) == {"value", "low", "high", "n"}


def test_each_number_says_how_it_came_about(metrics):
    protocols = metrics["protocols"]
    assert list(protocols) == list(PROTOCOLS)
    plain = {"origin", "threshold", "boxes", "frame", "unit"}
    for name, of in protocols.items():
        tuned = PROTOCOLS[name].tuned is not None
        assert set(of) == plain | ({"thresholds"} if tuned else set())
        assert of["frame"] == 32
    thresholds = protocols["clarity_iou@0.5"]["thresholds"]
    assert set(thresholds) <= set(FINDINGS[:8]) and len(thresholds) > 4
    assert all(0 <= threshold < 1 for threshold in thresholds.values())


def test_evaluate_is_reproducible_and_the_seed_moves_its_intervals(dataset, metrics):
    again = evaluate(predicted(dataset), dataset, replicates=20, seed=1)
    assert json.dumps(again) == json.dumps(metrics)
    other = evaluate(predicted(dataset), dataset, replicates=20, seed=2)["localization"]
    ours = metrics["localization"]
    assert other["pointing"]["micro"]["value"] == ours["pointing"]["micro"]["value"]
    assert other["pointing"]["micro"] != ours["pointing"]["micro"]


def test_order_of_the_images_changes_no_number(dataset, metrics):
    order = np.random.default_rng(0).permutation(40)
    moved = numbers(
        evaluate(predicted(dataset), dataset.subset(order), replicates=20, seed=1)
        | {"protocols": {}}
    )
    before = numbers(metrics | {"protocols": {}})
    assert moved.keys() == before.keys() and len(before) > 1000
    for path, number in before.items():
        assert moved[path] == pytest.approx(number, abs=1e-6), path


def test_classification_is_that_of_the_scores(dataset, metrics):
    made = predicted(dataset)
    expected = score_classification(
        made.scores, dataset.labels, dataset.patient_ids, replicates=20, seed=1
    )
    ours = metrics["classification"]
    assert ours["auroc"]["mean"] == expected["auroc"]["mean"].to_json()


def test_only_images_with_boxes_need_maps(dataset):
    rows = [row for row in random_rows(40) if row[0] % 2]
    half = make_dataset(rows, dataset.patient_ids)
    whole, odd = predicted(half), np.arange(40) % 2 == 1
    part = replace(whole, map_ids=whole.map_ids[odd], maps=whole.maps[odd])
    ours, expected = (evaluate(p, half, replicates=3) for p in (part, whole))
    assert ours == expected
    lacking = replace(whole, map_ids=whole.map_ids[~odd], maps=whole.maps[~odd])
    with pytest.raises(
        ValueError, match=r"images with boxes but without a map: 20 \(such as i0001"
    ):
        evaluate(lacking, half, replicates=0)


def test_findings_the_model_does_not_know_are_left_out(dataset, metrics):
    known = ["Mass", "Cardiomegaly", "Hernia"]
    columns = [FINDINGS.index(name) for name in known]
    whole = predicted(dataset)
    part = predicted(dataset, maps=whole.maps[:, columns], findings=known)
    ours = evaluate(part, dataset, replicates=20, seed=1)
    n = dict.fromkeys(FINDINGS, 0)
    n |= {name: int((Truth(dataset).finding == FINDINGS.index(name)).sum()) for name in known}
    pointing = ours["localization"]["pointing"]
    for name in FINDINGS:
        expected = metrics["localization"]["pointing"]["per_finding"][name]
        assert pointing["per_finding"][name] == (expected if n[name] else MISSING)
        auroc = ours["classification"]["auroc"]["per_finding"][name]
        assert (auroc["value"] is None) == (name not in known)
    assert pointing["micro"]["n"] == pointing["macro"]["n"] == sum(n.values())
    false = ours["localization"]["wang_afp_iou@0.1"]
    assert false["per_finding"]["Mass"]["n"] == 40  # every record, whatever it has
    assert false["per_finding"]["Atelectasis"] == MISSING
    # Controls need no model.
    assert ours["controls"]["centre_prior"] == metrics["controls"]["centre_prior"]


def test_strata_by_size_and_view():
    sides = (0.1, 0.2, 0.3, 0.5)  # 1, 4, 9 and 25 % of the image
    rows = [(image, 4, 0.25, 0.25, 0.25 + side, 0.25 + side) for image, side in enumerate(sides)]
    truth = Truth(make_dataset(rows, list("abcd"), views=np.array(["PA", "", "PA", "PA"])))
    found = strata(truth)
    assert {name: among.tolist() for name, among in found["size"].items()} == {
        "small": [True, False, False, False],
        "medium": [False, True, False, False],
        "large": [False, False, True, True],
    }
    assert {name: among.tolist() for name, among in found["view"].items()} == {
        "unknown": [False, True, False, False],
        "PA": [True, False, True, True],
    }
    few = Truth(make_dataset(rows[3:], list("abcd")))
    assert set(strata(few)["size"]) == {"large"} and set(strata(few)["view"]) == {"unknown"}


def test_sizes_leave_no_gap():
    ends = list(SIZES.values())
    assert ends[0][0] == 0 and ends[-1][1] == np.inf
    assert [high for _, high in ends[:-1]] == [low for low, _ in ends[1:]]
    nothing = np.zeros((14, 20, 20), bool)  # an outline that was lost at this size
    truth = Truth(make_dataset([(0, 4, 0.0, 0.0, 0.4, 0.4)], ["a"], 20, lambda _: nothing))
    assert strata(truth)["size"]["small"].tolist() == [True]


def test_strata_add_up_and_are_estimates_of_their_pairs(dataset):
    scored = score(predicted(dataset), dataset, replicates=10, seed=4)
    found = strata(scored.truth)
    for kind, of_kind in scored.strata.items():
        n = [of.n["pointing"][-1] for of in of_kind.values()]
        assert sum(n) == 40 and min(n) > 0
        values = [of.replicates["pointing"][-1, 0] for of in of_kind.values()]
        whole = scored.scores[MODEL].replicates["pointing"][-1, 0]
        assert np.average(values, weights=n) == pytest.approx(whole)
        for name, of in of_kind.items():
            measured, among = scored.measured[MODEL], found[kind][name]
            alone = estimate(measured, ["pxap"], 10, 4, among)
            assert np.array_equal(of.replicates["pxap"], alone.replicates["pxap"], equal_nan=True)


def test_sources_can_be_compared_pair_by_pair(dataset):
    scored = score(predicted(dataset), dataset, replicates=10)
    assert set(scored.scores) == {MODEL, *CONTROLS}
    gain = scored.scores[MODEL].minus(scored.scores["random"])
    values = [scored.scores[source].replicates["pxap"] for source in (MODEL, "random")]
    assert np.array_equal(gain.replicates["pxap"], values[0] - values[1], equal_nan=True)


def test_outlines_are_the_truth_of_masks_and_boxes_of_boxes():
    """A model that draws the outline: right by mask, and by box."""
    outline = np.zeros((14, 16, 16), bool)
    outline[4, 4:12, 4:6] = outline[4, 10:12, 4:12] = True
    rows = [(image, 4, 0.25, 0.25, 0.75, 0.75) for image in range(4)]
    own = make_dataset(rows, list("abcd"), 16, lambda _: outline)
    made = predicted(own, maps=np.repeat(outline[None], 4, axis=0).astype(np.float16))
    ours = evaluate(made, own, replicates=0)["localization"]
    for name in ("iou@0.5", "ham_tiou@0.7", "chexlocalize_miou_otsu", "pxap", "maxboxacc"):
        assert ours[name]["micro"]["value"] == pytest.approx(1), name
    boxed = make_dataset(rows, list("abcd"), 16)
    by_box = evaluate(made, boxed, replicates=0)["localization"]
    assert by_box["iou@0.5"]["micro"]["value"] < 0.5
    assert by_box["maxboxacc"]["micro"]["value"] == 1


def test_the_frame_is_that_of_the_images_or_as_said():
    small = random_dataset(5, size=24)
    for size, expected in ((None, 24), (16, 16)):
        scored = score(predicted(small), small, size, replicates=0)
        assert scored.size == scored.describe("pointing")["frame"] == expected
        pairs = scored.measured[MODEL].pairs
        assert (pairs["wsol_inside"] + pairs["wsol_outside"])[0].sum() == expected**2


def test_table_shows_each_number_with_its_interval(dataset, metrics):
    shown = table(metrics)
    assert list(shown.index) == [*FINDINGS, "macro", "micro"]
    number = metrics["localization"]["pointing"]["micro"]
    assert shown.loc["micro", "pointing"] == (
        f"{number['value']:.2f} [{number['low']:.2f}, {number['high']:.2f}]"
    )
    assert shown.loc["micro", "AUROC"] == "–" and shown.loc["macro", "images"] == 40
    assert shown.loc["Hernia", "pairs"] == 0 and shown.loc["micro", "pairs"] == 40
    priors = ["location prior", "centre prior", "random map", "grid ceiling"]
    columns = ["AUROC", "AP", "pointing", *priors, "images", "pairs"]
    assert list(shown.columns) == columns
    assert "iou@0.5" in table(metrics, "iou@0.5")
    assert "[" not in table(evaluate(predicted(dataset), dataset, replicates=0)).loc["micro", "AP"]


def test_two_models_are_shown_with_their_paired_difference(dataset):
    first, second = (
        score(predicted(dataset, seed=seed), dataset, replicates=20, seed=1) for seed in (0, 3)
    )
    shown = table_of_two(first, second, "pointing")
    difference = first.scores[MODEL].minus(second.scores[MODEL]).summary("pointing")
    assert shown["first"].tolist() == table(first.to_json())["pointing"].tolist()
    assert shown["second"].tolist() == table(second.to_json())["pointing"].tolist()
    assert shown.loc["macro", "difference"].startswith(f"{difference['macro'].value:.2f} [")
    assert shown.loc["Hernia"].tolist() == ["–", "–", "–", 0]
    assert shown.loc["micro", "pairs"] == 40
    with pytest.raises(ValueError, match="not of the same pairs"):
        table_of_two(first, score(predicted(dataset), dataset, replicates=20, seed=2))
