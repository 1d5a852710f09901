"""What is refused, and what is scored though there is little to score."""

from dataclasses import replace

import numpy as np
import pytest
from test_metrics_localization import make_dataset, random_dataset
from test_metrics_scorer import MISSING, numbers, predicted

from cxrlib.datasets.base import Truth
from cxrlib.metrics import evaluate, table
from cxrlib.predictions import Predictions


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(40, patients=25)


def test_no_boxes_is_null_with_n_zero(dataset):
    bare = make_dataset([], dataset.patient_ids)
    without_maps = Predictions.from_arrays(bare.image_ids, predicted(bare).scores)
    of_nothing = [(predicted(bare), bare), (without_maps, bare), (without_maps, dataset)]
    for predictions, of in of_nothing:
        metrics = evaluate(predictions, of, replicates=5)
        for of_protocols in (metrics["localization"], *metrics["controls"].values()):
            assert all(number == MISSING for number in numbers(of_protocols).values())
        assert metrics["strata"] == {"size": {}, "view": {}}
        assert metrics["classification"]["auroc"]["mean"]["value"] is not None
        assert table(metrics)["pointing"].tolist() == ["–"] * 16


def test_one_image():
    one = make_dataset([(0, 4, 0.25, 0.25, 0.5, 0.5)], ["a"])
    for grid in (1, 6, 32):
        metrics = evaluate(predicted(one, grid), one, replicates=5)
        number = metrics["localization"]["pointing"]["micro"]
        assert number["n"] == 1 and number["low"] == number["value"] == number["high"]
        # The one patient is used to tune; no one else has the finding.
        assert metrics["localization"]["clarity_iou@0.1"]["micro"] == MISSING
        assert metrics["controls"]["location_prior"]["pointing"]["micro"] == MISSING


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_constant_maps_have_no_region(dataset, level):
    maps = np.full((40, 14, 4, 4), level, np.float16)
    metrics = evaluate(predicted(dataset, maps=maps), dataset, replicates=0)["localization"]
    for name in ("ham_tiou@0.1", "wang_iou@0.1", "clarity_iou@0.1", "chexlocalize_miou_otsu"):
        assert metrics[name]["micro"]["value"] == 0
    assert metrics["wang_afp_iou@0.1"]["micro"]["value"] == 0
    area = Truth(dataset).area().mean()
    assert metrics["pointing"]["micro"]["value"] == pytest.approx(area, abs=0.01)
    # Only of its largest pixels can it be said where they are: all, hence precision is the area.
    assert metrics["pxap"]["micro"]["value"] == pytest.approx(area, abs=0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01])
def test_map_values_out_of_range_are_refused(dataset, bad):
    made = predicted(dataset)
    maps = made.maps.copy()
    maps[3, 5, 0, 0] = bad
    with pytest.raises(ValueError, match=r"1 of 20160 map values are NaN or not in 0 to 1"):
        evaluate(replace(made, maps=maps), dataset, replicates=0)


def test_a_frame_smaller_than_the_maps_is_refused(dataset):
    with pytest.raises(ValueError, match=r"frame of 5 px is smaller than maps of 6 × 6; give the"):
        evaluate(predicted(dataset), dataset, 5, replicates=0)


def test_predictions_of_other_images_are_refused(dataset):
    made = predicted(dataset)
    part = replace(made, image_ids=made.image_ids[1:], scores=made.scores[1:])
    with pytest.raises(ValueError, match=r"1 \(such as i0000\) of the 40 images of 'case'"):
        evaluate(part, dataset, replicates=0)
    strangers = replace(made, image_ids=np.char.add("x", made.image_ids))
    with pytest.raises(ValueError, match="none of the 40 images of 'case' is in the predictions"):
        evaluate(strangers, dataset, replicates=0)


def test_more_predictions_than_images_are_left_out(dataset):
    few = dataset.subset(np.arange(0, 40, 4))
    assert evaluate(predicted(dataset), few, replicates=0) == evaluate(
        predicted(dataset).aligned(few), few, replicates=0
    )


def test_an_image_twice_is_refused(dataset):
    made = predicted(dataset)
    twice = [*made.image_ids[:-1], made.image_ids[0]]
    with pytest.raises(ValueError, match="i0000"):
        Predictions.from_arrays(twice, made.scores)
    with pytest.raises(ValueError, match="i0000"):
        Predictions.from_arrays(made.image_ids, made.scores, map_ids=twice, maps=made.maps, frame=9)
