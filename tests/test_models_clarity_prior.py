"""Where findings may be: organs of the phantom, a segmenter, a folder; and what the parts say."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cxrlib.datasets.base import Truth
from cxrlib.inference import predict
from cxrlib.models import clarity_prior
from cxrlib.models.clarity import CLARiTy
from cxrlib.models.clarity_looks import look_at
from cxrlib.phantom import dataset as phantom
from cxrlib.phantom.organs import ORGANS, organs, organs_of
from cxrlib.phantom.population import render
from cxrlib.runs import collect, committed

CHESTS = {"n_train": 96, "n_val": 8, "n_test": 24, "prevalence": 0.2}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, seed=3, **CHESTS)


@pytest.mark.parametrize("index", [0, 5, 11])
@pytest.mark.parametrize("options", [{}, {"prevalence": 0.9, "lesion_size": 1.5}])
def test_organs_are_those_of_the_drawn_image(index, options):
    drawn = render(index, 64, seed=3, **options).anatomy
    for name, mask in zip(ORGANS, organs(index, 64, seed=3, **options), strict=True):
        np.testing.assert_array_equal(mask, drawn[name])


def test_organs_of_a_part_follow_its_images(split):
    masks = organs_of(split.test, 64, 3, CHESTS)
    assert masks.shape == (len(split.test), 2, 64, 64) and masks.dtype == bool
    last = int(split.test.image_ids[-1])
    np.testing.assert_array_equal(masks[-1], organs(last, 64, seed=3, prevalence=0.2))
    assert not masks.all(axis=1).any()  # no pixel is in both


def test_a_segmenter_learns_the_organs(split):
    masks = organs_of(split.train, 64, 3, CHESTS)
    model = clarity_prior.fit_segmenter(split.train, masks, epochs=4)
    said = clarity_prior.segment(model, split.test, 64)
    assert said.shape == (len(split.test), 2, 64, 64) and said.min() >= 0 and said.max() <= 1
    found = clarity_prior.dice(said > 0.5, organs_of(split.test, 64, 3, CHESTS))
    assert (np.nanmean(found, axis=0) > 0.65).all()  # masks of the whole image: 0.4 and 0.2
    coarse = clarity_prior.segment(model, split.test, 16)
    naive = said.reshape(-1, 2, 16, 4, 16, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(coarse, naive, atol=1e-6)


def test_equal_seeds_train_equal_segmenters(split):
    masks = organs_of(split.train, 32, 3, CHESTS)
    one, two = (clarity_prior.fit_segmenter(split.train, masks, epochs=1) for _ in range(2))
    for name, weights in one.state_dict().items():
        assert weights.equal(two.state_dict()[name])


def test_dice_is_its_formula():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 5, 3, 8, 8)) > 0.6
    one[0, 0] = other[0, 0] = False
    found = clarity_prior.dice(one, other)
    assert found.shape == (5, 3) and np.isnan(found[0, 0])
    a, b = one[4, 2], other[4, 2]
    assert found[4, 2] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_the_share_inside_is_counted_in_pixels(split):
    truth = Truth(split.test)
    everything = np.ones((len(split.test), 64, 64), bool)
    np.testing.assert_allclose(clarity_prior.share_inside(truth, everything), 1)
    half = everything.copy()
    half[..., 32:] = False
    shares = clarity_prior.share_inside(truth, half)
    masks = truth.masks(np.arange(len(truth)), 64).numpy()
    naive = masks[..., :32].sum((1, 2)) / masks.sum((1, 2))
    np.testing.assert_allclose(shares, naive, rtol=1e-5)
    assert 0 < shares.min() + shares.max() < 2


def test_the_mean_is_over_known_images_and_its_interval_over_patients():
    values = np.array([0.2, 0.4, np.nan, 0.9])
    number = clarity_prior.mean_over_patients(values, np.array(["a", "a", "b", "c"]))
    assert number.value == pytest.approx(0.5) and number.n == 3
    assert number.low == pytest.approx(0.3) and number.high == pytest.approx(0.9)


def test_masks_come_from_a_folder(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "00000001_000.png")
    read = clarity_prior.from_folder(tmp_path, 4)
    np.testing.assert_array_equal(read("00000001_000"), [[0, 0, 1, 1]] * 4)
    with pytest.raises(FileNotFoundError, match=r"absent.png does not exist; a folder of masks"):
        read("absent")


@pytest.mark.parametrize("segment_cam", [True, False])
def test_stages_are_of_the_same_pairs_as_the_predictions(split, segment_cam):
    torch.manual_seed(0)
    model = CLARiTy(width=32, depth=1, heads=2, patch=8, segment_cam=segment_cam).eval()
    truth, batches = Truth(split.test), {"batch_size": 5, "accelerator": "cpu"}
    looks = look_at(model, split.test, **batches)
    final = predict(model, split.test, **batches).aligned(split.test).pairs(truth)
    *_, last = looks.stages.values()
    np.testing.assert_allclose(last, final, atol=1e-3)
    assert looks.cosines.shape == (14, 14)
    np.testing.assert_allclose(np.diag(looks.cosines), 1, rtol=1e-5)
    seen = model.look(split.test[7].image[None])
    if segment_cam:
        fields = seen.foreground[0, 0].sigmoid().detach().numpy()
        np.testing.assert_allclose(looks.foreground[7], fields, atol=1e-5)
    else:
        assert looks.foreground is None and list(looks.stages) == ["attention"]


def test_a_run_of_clarity_is_collected_with_its_anatomy(tmp_path):
    number = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 3}
    table = {"mean": number, "per_finding": {}}
    document = {"classification": {}, "localization": {}, "controls": {}}
    for name, more in (("one", {"anatomy": {"dice, lungs": table}}), ("two", {})):
        (tmp_path / name).mkdir()
        files = {
            "params": {"seed": 0},
            "environment": {"decides": {}, "git_commit": "c"},
            "metrics": document | more,
        }
        for file, content in files.items():
            (tmp_path / name / f"{file}.json").write_text(json.dumps(content))
    (row,) = collect(tmp_path).to_dict("records")
    assert (row["run"], row["part"], row["metric"]) == ("one", "anatomy", "dice, lungs")
    assert row["finding"] == "mean" and row["value"] == 0.9


def test_trust_is_measured_beside_its_controls(split):
    found = clarity_prior.trust(split, split, 3, CHESTS, epochs=3)
    shares = found[found["of"] == "all boxes"].set_index("what")["value"]
    own, other, covered = (
        shares[name]
        for name in (
            "box inside its patient's organs",
            "box inside the next image's organs",
            "image covered by organs",
        )
    )
    assert min(own, other) > covered and own != other
    truth = Truth(split.test)
    n = found.set_index(["what", "of"]).loc[("box inside its patient's organs", "all boxes"), "n"]
    assert n == len(truth)
    dice = found[found["what"] == "Dice on the phantom"]
    assert dice["of"].tolist() == list(ORGANS) and (dice["n"] == len(split.test)).all()


def test_the_chapter_says_what_the_segmenter_was_found_to_do():
    """Its verdict is prose; these are its claims."""
    found = committed("clarity_prior.csv").set_index(["what", "of"])["value"]
    own, other, covered = (
        found[name]
        for name in (
            "box inside its patient's organs",
            "box inside the next image's organs",
            "image covered by organs",
        )
    )
    assert found["Dice on the phantom"].min() > 0.93
    assert round(own["all boxes"], 2) == 0.81 and round(other["all boxes"], 2) == 0.69
    assert abs(covered["all boxes"] - 1 / 3) < 0.01
    assert own.idxmin() == "Effusion" and round(own["Effusion"], 2) == 0.56
    assert [name for name in own.index if own[name] <= other[name]] == ["Effusion"]
