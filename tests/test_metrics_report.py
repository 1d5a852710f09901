import base64
import dataclasses
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from cxrlib import __version__
from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split
from cxrlib.findings import FINDINGS
from cxrlib.metrics import listing, page
from cxrlib.metrics.bootstrap import (
    Estimate,
    interval,
    mean_over_findings,
    patient_weights,
)
from cxrlib.metrics.cases import SIDE as PICTURE
from cxrlib.metrics.cases import cases, ranked
from cxrlib.metrics.classification import CLASSIFICATION_METRICS, binary_auroc
from cxrlib.metrics.comparison import compare, refuse_incomparable
from cxrlib.metrics.delong import delong
from cxrlib.metrics.localization import measure
from cxrlib.metrics.markup import plot, table
from cxrlib.metrics.protocols import PROTOCOLS
from cxrlib.metrics.report import (
    ABOVE_PRIOR,
    AGAINST,
    PredictionsFile,
    flat,
    make_report,
    rows,
    to_json,
)
from cxrlib.metrics.scorer import MODEL, of_predictions, score
from cxrlib.predictions import Predictions

SIDE, GRID, R = 32, 8, 40
KNOWN = FINDINGS[:5]
"""The model predicts these; boxes are of Atelectasis, Cardiomegaly, Effusion and Nodule."""
HOSTILE = '<script>alert("&")</script>'

few = settings(max_examples=50, deadline=None, database=None)


def read_pixels(image_id: str) -> np.ndarray:
    return np.full((SIDE, SIDE), 40 + int(image_id[-2:]), np.uint8)


def make_dataset(n=36, seed=0) -> CXRDataset:
    rng = np.random.default_rng(seed)
    ids = np.array([f"image{k:02}" for k in range(n)])
    labels = np.zeros((n, 14), np.float32)
    labels[:, :6] = rng.random((n, 6)) < 0.4
    findings = rng.choice([0, 1, 2, 5], n)
    corner, extent = rng.uniform(0, 0.6, (n, 2)), rng.uniform(0.1, 0.4, (n, 2))
    boxes = [(ids[k], findings[k], *corner[k], *(corner[k] + extent[k])) for k in range(0, n, 2)]
    patients = rng.integers(0, 12, n).astype(str)
    views = np.where(rng.random(n) < 0.5, "PA", "AP")
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS)
    return CXRDataset("toy", ids, patients, labels, table, SIDE, read_pixels, views=views)


def make_split(test: CXRDataset) -> Split:
    other = test.subset(np.array([], int))
    return Split(other, other, test, data_hash="0123abcd", notes=(f"notes: {HOSTILE}",))


def make_maps(dataset: CXRDataset, seed: int, skill: float) -> np.ndarray:
    """Noise with the true boxes added: (M, 14, GRID, GRID), of the boxed images."""
    rng = np.random.default_rng(seed)
    ids = dataset.boxes["image_id"].tolist()
    maps = 0.3 * rng.random((len(ids), 14, GRID, GRID))
    for k, box in enumerate(dataset.boxes.itertuples(index=False)):
        x0, y0, x1, y1 = (round(GRID * corner) for corner in box[2:])
        maps[k, box.finding, y0 : y1 + 1, x0 : x1 + 1] += skill
    return maps.clip(0, 1)


def make_file(dataset: CXRDataset, name="model.npz", seed=0, skill=0.6) -> PredictionsFile:
    noise = np.random.default_rng(seed).random((len(dataset), len(KNOWN)))
    scores = (0.7 * noise + 0.3 * skill * dataset.labels[:, : len(KNOWN)]).clip(0, 1)
    predictions = Predictions.from_arrays(
        dataset.image_ids,
        scores,
        findings=KNOWN,
        map_ids=dataset.boxes["image_id"],
        maps=make_maps(dataset, seed, skill)[:, : len(KNOWN)],
        frame=SIDE,
    )
    return PredictionsFile(name, f"sha{seed}", predictions)


def without_maps(file: PredictionsFile) -> PredictionsFile:
    held = file.predictions
    known = held.scores[:, held.known]
    return dataclasses.replace(
        file, predictions=Predictions.from_arrays(held.image_ids, known, findings=KNOWN)
    )


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def files(dataset):
    return make_file(dataset), make_file(dataset, "other.npz", seed=1, skill=0.1)


@pytest.fixture(scope="module")
def report(dataset, files):
    return make_report(files[0], make_split(dataset), against=files[1], replicates=R, seed=3)


@pytest.fixture(scope="module")
def drawn(report, dataset, files):
    return page.html(report, dataset, files[0].predictions)


@pytest.fixture(scope="module")
def labels_only(dataset, files):
    first, other = map(without_maps, files)
    return make_report(first, make_split(dataset), against=other, replicates=R)


def test_provenance_says_what_was_scored(report, dataset):
    of = dict(report.provenance)
    assert of.pop("split_hash") == make_split(dataset).split_hash
    assert of == {
        "predictions": "model.npz",
        "predictions_sha256": "sha0",
        "against": "other.npz",
        "against_sha256": "sha1",
        "dataset": "toy",
        "part": "test",
        "data_hash": "0123abcd",
        "notes": [f"notes: {HOSTILE}"],
        "images": 36,
        "patients": len(set(dataset.patient_ids)),
        "pairs": 18,
        "frame": SIDE,
        "image_size": SIDE,
        "replicates": R,
        "seed": 3,
        "version": __version__,
    }


def test_a_file_is_named_by_its_checksum(tmp_path, files):
    path = tmp_path / "some.npz"
    with open(path, "wb") as file:
        files[0].predictions.write(file)
    read = PredictionsFile.read(path)
    assert (read.name, read.sha256) == (
        "some.npz",
        hashlib.sha256(path.read_bytes()).hexdigest()[:12],
    )
    np.testing.assert_array_equal(read.predictions.scores, files[0].predictions.scores)


def test_rows_hold_every_number_once(report):
    tidy = rows(report)
    keys = ["task", "source", "stratum_kind", "stratum", "protocol", "finding"]
    assert not tidy.duplicated(keys).any()
    every = tidy[(tidy["task"] == "localization") & tidy["stratum"].isna()]
    assert every.groupby("source").size().to_dict() == dict.fromkeys(
        [MODEL, "random", "centre_prior", "location_prior", "grid_ceiling", ABOVE_PRIOR, AGAINST],
        len(PROTOCOLS) * 16,
    )
    labels = tidy[tidy["task"] == "classification"]
    assert labels.groupby("source").size().to_dict() == dict.fromkeys(
        [MODEL, AGAINST], len(CLASSIFICATION_METRICS) * 15
    )
    assert {*tidy["stratum_kind"].dropna()} == {"size", "view"}
    assert (tidy[["data_hash", "seed", "version"]] == ["0123abcd", 3, __version__]).all().all()


def test_rows_are_the_numbers_of_the_scores(report):
    found = rows(report)
    found = found[(found["task"] == "localization") & found["stratum"].isna()]
    found = found.set_index(["source", "protocol", "finding"])
    for source, protocol in ((MODEL, "pointing"), ("random", "pxap"), (AGAINST, "maxboxacc")):
        for finding, number in flat(report.sources[source].summary(protocol)).items():
            row = found.loc[(source, protocol, finding)]
            np.testing.assert_equal(
                [row["value"], row["low"], row["high"], row["n"]], [*dataclasses.astuple(number)]
            )
    assert found.loc[(MODEL, "ham_tiou@0.5", "macro"), "origin"] == "HAM, Ouyang 2021"
    unknown = found.loc[(MODEL, "pointing", "Nodule")]  # it has boxes, but the model has no map
    assert (math.isnan(unknown["value"]), unknown["n"]) == (True, 0)


def test_rows_have_the_thresholds_of_tuned_protocols_only(report):
    tidy = rows(report)
    tuned = tidy[tidy["tuned_threshold"].notna()]
    assert all("tuned" in policy for policy in tuned["threshold"])
    chosen = tuned[(tuned["source"] == MODEL) & (tuned["protocol"] == "clarity_iou@0.5")]
    chosen = chosen[chosen["stratum"].isna()].set_index("finding")["tuned_threshold"].to_dict()
    assert chosen == report.scored.scores[MODEL].thresholds["clarity_iou@0.5"]
    assert AGAINST not in {*tuned["source"]}


def test_json_is_what_evaluate_returns_and_more(report):
    tree = json.loads(json.dumps(to_json(report), allow_nan=False))
    plain = json.loads(json.dumps(report.scored.to_json()))
    added = {"provenance", "above_location_prior", "difference"}
    assert {name: tree[name] for name in tree if name not in added} == plain
    assert tree["provenance"]["predictions_sha256"] == "sha0"
    number = report.summaries[AGAINST]["pointing"]["micro"]
    assert tree["difference"]["localization"]["pointing"]["micro"] == number.to_json()
    assert tree["difference"]["delong"]["Hernia"]["p"] is None
    assert tree["difference"]["delong"]["Mass"]["p"] == report.difference.delong["Mass"].p


def test_a_mark_where_the_interval_of_the_difference_to_the_prior_does_not_exclude_0(report):
    model, prior = (report.scored.scores[name] for name in (MODEL, "location_prior"))
    beats = {name: report.beats_prior(name) for name in PROTOCOLS}
    for name, answer in beats.items():
        each = (model.replicates[name] - prior.replicates[name])[:14]
        each[model.n[name][:14] != prior.n[name][:14]] = np.nan
        low, high = interval(mean_over_findings(each)[1:])
        assert answer == (high < 0 if name.startswith("wang_afp") else low > 0), name
    assert {*beats.values()} == {True, False}
    marked = {line.split()[0] for line in listing.text(report).splitlines() if "] ~ " in line}
    assert marked == {name for name, answer in beats.items() if not answer}


def test_without_replicates_nothing_is_said_of_the_prior(dataset, files):
    report = make_report(files[0], make_split(dataset), replicates=0)
    assert {report.beats_prior(name) for name in PROTOCOLS} == {None}
    assert " ~ " not in listing.text(report)
    assert "[0." not in listing.text(report)


def test_a_difference_is_the_naive_one(report, dataset, files):
    first, second = (file.predictions for file in files)
    for finding, name in enumerate(KNOWN):
        pair = [predictions.scores[:, finding] for predictions in (first, second)]
        labels, patients = dataset.labels[:, finding], dataset.patient_ids
        one, other = (binary_auroc(x, labels, patients, replicates=0).value for x in pair)
        auroc = report.difference.classification["auroc"]["per_finding"][name]
        assert auroc.value == pytest.approx(one - other)
        assert report.difference.delong[name] == delong(*pair, labels, patients)
    truth = report.scored.truth
    sources = {name: of_predictions(p, dataset, SIDE) for name, p in (("a", first), ("b", second))}
    measured = measure(sources, truth, SIDE)
    hits = measured["a"].pairs["pointing"] - measured["b"].pairs["pointing"]
    known = ~np.isnan(hits)
    drawn = patient_weights(truth.patient, R, seed=3)
    weights = drawn.counts[drawn.patient][known].astype(float)  # (pairs, 1 + R)
    naive = np.array([np.average(hits[known], weights=column) for column in weights.T])
    micro = report.summaries[AGAINST]["pointing"]["micro"]
    np.testing.assert_allclose(dataclasses.astuple(micro)[:3], [naive[0], *interval(naive[1:])])


def test_the_difference_turns_round_and_vanishes(report, dataset, files):
    first, second = (file.predictions for file in files)
    options = {"replicates": R, "seed": 3}
    back = compare(score(second, dataset, **options), second, first, dataset, **options)
    for name, of_protocol in report.difference.scores.replicates.items():
        np.testing.assert_allclose(back.scores.replicates[name], -of_protocol)
    mean, other = (d.classification["brier"]["mean"] for d in (report.difference, back))
    assert (mean.value, mean.low) == pytest.approx((-other.value, -other.high))
    none = compare(report.scored, first, first, dataset, **options)
    assert not np.nan_to_num(none.scores.replicates["pointing"]).any()
    assert none.classification["auroc"]["mean"] == Estimate(0, 0, 0, len(dataset))
    assert none.delong["Mass"].p == 1


def test_the_second_model_may_be_in_another_order_and_hold_more(report, dataset, files):
    held = files[1].predictions
    mixed = Predictions.from_arrays(
        [*held.image_ids[::-1], "stranger"],
        np.vstack([held.scores[::-1], np.full(14, 0.5)])[:, : len(KNOWN)],
        findings=KNOWN,
        map_ids=held.map_ids[::-1],
        maps=held.maps[::-1, : len(KNOWN)],
        frame=SIDE,
    )
    same = compare(report.scored, files[0].predictions, mixed, dataset, replicates=R, seed=3)
    np.testing.assert_equal(same.scores.replicates, report.difference.scores.replicates)
    table = {name: flat(of_metric) for name, of_metric in same.classification.items()}
    for name, of_metric in report.difference.classification.items():
        for finding, number in flat(of_metric).items():
            assert table[name][finding].to_json() == number.to_json()


def test_what_cannot_be_compared_is_refused(dataset, files):
    first, bare = files[0].predictions, without_maps(files[0]).predictions
    more = Predictions.from_arrays(["a"], np.full((1, 6), 0.5), findings=FINDINGS[:6])
    with pytest.raises(ValueError, match="only the second has Nodule; compare models of the same"):
        refuse_incomparable(bare, more)
    with pytest.raises(ValueError, match="only the first file has Nodule"):
        refuse_incomparable(more, bare)
    with pytest.raises(ValueError, match="the second has no maps and the other has; write"):
        refuse_incomparable(first, bare)
    with pytest.raises(ValueError, match="the first file has no maps"):
        compare(score(bare, dataset, replicates=0), bare, first, dataset, replicates=0)
    short = dataclasses.replace(files[1], predictions=make_file(make_dataset(30)).predictions)
    with pytest.raises(ValueError, match=r"6 \(such as image30, image31, image32\) of the 36"):
        make_report(files[0], make_split(dataset), against=short)


def test_the_listing_fits_a_terminal_and_names_everything(report):
    text = listing.text(report)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "model.npz (sha0) on toy, test"
    assert "36 images of" in lines[1] and "; 18 pairs" in lines[1]
    first_words = [line.split("  ")[0] for line in lines]
    assert all(first_words.count(name) == 2 for name in PROTOCOLS)
    assert all(first_words.count(f.replace("_", " ")) == 2 for f in FINDINGS)
    assert [word for word in first_words if word in ("small", "medium", "large", "AP", "PA")]
    pointing = next(line for line in lines if line.startswith("pointing "))
    summary = report.summaries[MODEL]["pointing"]
    assert pointing.split()[1:4] == re.split(" ", listing.shown(summary["macro"]))
    assert pointing.split()[-1] == "none"
    hernia = next(line for line in lines if line.startswith("Hernia"))
    assert hernia.split() == ["Hernia", *"–––––", "0"]
    assert "model.npz minus other.npz" in lines


def test_without_maps_there_is_only_classification(labels_only, dataset, files):
    text = listing.text(labels_only)
    assert listing.NOTHING_LOCATED in text
    assert "pointing" not in text
    assert "DeLong p" in text
    html = page.html(labels_only, dataset, without_maps(files[0]).predictions)
    assert listing.NOTHING_LOCATED in html
    assert "<img" not in html
    tidy = rows(labels_only)
    assert (tidy[tidy["task"] == "localization"]["n"] == 0).all()
    assert tidy[tidy["task"] == "localization"]["value"].isna().all()


@few
@given(st.floats(-5000, 5000))
def test_digits_round_and_stay_short(x):
    text = listing.digits(x)
    places = len(text.partition(".")[2])
    assert abs(float(text) - x) <= 0.5 * 10**-places + 1e-9
    assert len(text) <= 5
    assert float(listing.digits(x, "+")) == float(text)


def naive_ranks(values):
    """Places of the highest, the median (of two the better) and the lowest value."""
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    return order[0], order[(len(order) - 1) // 2], order[-1]


@few
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4) | st.just(math.nan)), max_size=30))
def test_best_median_and_worst_are_the_naive_ones(pairs):
    finding = np.array([f for f, _ in pairs], int)
    values = np.array([value for _, value in pairs], float)
    found = ranked(values, finding)
    for present in range(4):
        own = [k for k in range(len(pairs)) if finding[k] == present and values[k] == values[k]]
        if own:
            expected = [own[place] for place in naive_ranks(values[own])]
            ranks = {rank: k for k, names in found for rank in names.split(", ") if k in own}
            assert [ranks[rank] for rank in ("best", "median", "worst")] == expected
    assert len({k for k, _ in found}) == len(found)
    assert not np.isnan(values[[k for k, _ in found]]).any()


def test_cases_show_the_radiograph_coloured_where_the_map_is_high(report, dataset, files):
    predictions = files[0].predictions
    found = cases(report.scored, dataset, predictions)
    assert {case.finding for case in found} == {*FINDINGS[:3]}  # of Nodule there is no map
    for case in found:
        row = np.flatnonzero(predictions.map_ids == case.image_id)[0]
        S = predictions.maps[row, FINDINGS.index(case.finding)].astype(float)
        assert case.highest == S.max()
        frame = interpolate(torch.tensor(S)[None, None], size=SIDE, mode="bilinear")[0, 0].numpy()
        place = tuple(int(SIDE * part) for part in case.peak[::-1])
        assert frame[place] == pytest.approx(frame.max(), abs=1e-6)
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(case.png), np.uint8), -1)
        assert picture.shape == (SIDE, SIDE, 3)  # never larger than the image
        colour = np.ptp(picture.astype(int), axis=2)  # 0 is grey
        assert colour[place] > 30
        assert colour.flat[frame.argmin()] == 0


def test_pictures_of_large_images_are_small_and_constant_maps_leave_them_grey(dataset):
    ramp = np.tile(np.arange(1024) // 4, (1024, 1)).astype(np.uint8)
    large = dataset.subset(np.array([0])).reading(lambda image_id: ramp)
    predictions = Predictions.from_arrays(
        large.image_ids,
        np.full((1, 14), 0.5),
        map_ids=large.image_ids,
        maps=np.full((1, 14, 4, 4), 0.7),
        frame=SIDE,
    )
    (case,) = cases(score(predictions, large, SIDE, replicates=0), large, predictions)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(case.png), np.uint8), -1)
    assert picture.shape == (PICTURE, PICTURE, 3)
    np.testing.assert_array_equal(picture[0, :, 0], np.arange(256))
    assert (np.ptp(picture, axis=2) == 0).all()
    assert (case.rank, case.peak) == ("best, median, worst", None)


class Tags(HTMLParser):
    """Counts opening tags, checks that each is closed, and keeps attributes and text."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_well_formed_and_loads_nothing(drawn):
    tags = Tags(drawn)
    assert tags.open == []
    kinds = [tag for tag, _ in tags.seen]
    assert not {"script", "link", "iframe", "image", "object"} & {*kinds}
    images = [attrs for tag, attrs in tags.seen if tag == "img"]
    assert len(images) == 9  # three findings with maps, three cases each
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(re.search(r"(best|median|worst).* image\d\d ", image["alt"]) for image in images)
    links = [attrs["href"] for tag, attrs in tags.seen if tag == "a"]
    names = {attrs.get("id") for _, attrs in tags.seen}
    assert links and all(link[0] == "#" and link[1:] in names for link in links)
    assert "url(" not in drawn and "@import" not in drawn
    words = "".join(tags.words)
    assert HOSTILE in words
    assert all(words.count(name) >= 2 for name in PROTOCOLS)


def test_the_page_has_the_numbers_of_the_listing(report, drawn):
    text = re.sub("<[^>]*>", "", drawn)
    for name in ("pointing", "clarity_iou@0.5", "wang_afp_iou@0.1"):
        assert listing.shown(report.summaries[MODEL][name]["macro"]) in text
        assert listing.shown(report.summaries[AGAINST][name]["micro"], "+") in text
    assert f"{report.scored.scores[MODEL].thresholds['clarity_iou@0.5']['Effusion']:g}" in text


def test_the_same_report_gives_the_same_bytes(dataset, files, drawn):
    again = make_report(files[0], make_split(dataset), against=files[1], replicates=R, seed=3)
    assert page.html(again, dataset, files[0].predictions) == drawn


def test_hostile_names_are_text(dataset):
    ids = np.array([f"{HOSTILE}{k:02}" for k in range(len(dataset))])
    boxes = dataset.boxes.assign(
        image_id=dataset.boxes["image_id"].map(dict(zip(dataset.image_ids, ids, strict=True)))
    )
    hostile = CXRDataset(
        HOSTILE,
        ids,
        dataset.patient_ids,
        dataset.labels,
        boxes,
        SIDE,
        read_pixels,
        views=np.full(len(ids), HOSTILE),
    )
    file = make_file(hostile, name=HOSTILE)
    report = make_report(file, make_split(hostile), replicates=2)
    html = page.html(report, hostile, file.predictions)
    assert "<script" not in html
    tags = Tags(html)
    assert tags.open == []
    alts = [attrs["alt"] for tag, attrs in tags.seen if tag == "img"]
    assert alts and all(HOSTILE in alt for alt in alts)


def test_a_line_puts_each_number_where_it_is():
    line = plot(
        Estimate(0.5, 0.25, 0.75, 9),
        {"random": Estimate(math.nan, math.nan, math.nan, 0), "centre_prior": Estimate(0, 0, 0, 9)},
    )
    dots = [attrs for tag, attrs in Tags(line).seen if tag == "circle"]
    assert [(dot["class"], float(dot["cx"])) for dot in dots] == [
        ("centre_prior", 6),
        ("model", 95),
    ]
    ends = next(attrs["d"] for _, attrs in Tags(line).seen if attrs.get("class") == "ends")
    assert ends == "M50.5 8H139.5"
    assert "random" not in line
    nothing = plot(Estimate(math.nan, math.nan, math.nan, 0), {})
    assert {attrs.get("class") for _, attrs in Tags(nothing).seen} == {None, "axis"}


def test_a_table_escapes_text():
    html = table([HOSTILE, "n"], [HOSTILE, [HOSTILE, "<b>"], ["mean", "1"]])
    assert "<script" not in html and "<b>" not in html
    assert "".join(Tags(html).words).count(HOSTILE) == 3
    assert '<tr class="mean"><th scope="row">mean</th>' in html
