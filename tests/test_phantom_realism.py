"""The bars of the phantom, held by what it draws: boxes, greys, spectrum, difficulty."""

import numpy as np
import pytest
from PIL import Image

from cxrlib import metrics
from cxrlib.datasets.base import Truth
from cxrlib.metrics.classification import binary_auroc
from cxrlib.phantom import apart, realism
from cxrlib.phantom import dataset as phantom


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield phantom.load(128, n_train=1400, n_val=10, n_test=2000)


def test_boxes_have_the_sizes_and_places_of_the_official_ones(split):
    table = realism.compare_boxes(Truth(split.test)).set_index(["quantity", "finding"])
    area = table.loc["area"]
    assert len(area) == 8 and area["n"].min() > 100
    assert (area["median"] / area["official"]).between(0.85, 1.15).all(), area
    centre = table.loc[["y", "x_right", "x_left"]]
    assert ((centre["median"] - centre["official"]).abs() < 0.05).all(), centre
    assert table["spread"].between(0.7, 1.3).all(), table


def test_greys_and_spectrum_are_those_of_real_radiographs(split, shared):
    files = sorted((shared / "nih-mini" / "images").glob("*.jpg"))[::4]
    box = Image.Resampling.BOX
    real = np.stack([np.asarray(Image.open(f).convert("L").resize((128, 128), box)) for f in files])
    drawn = realism.read_all(split.test)
    histograms = [realism.intensity_histogram(images) for images in (drawn, real)]
    assert realism.overlap(*histograms) >= 0.8
    slopes = [realism.spectral_slope(*realism.power_spectrum(images)) for images in (drawn, real)]
    assert slopes[0] / slopes[1] == pytest.approx(1, abs=0.1)


def test_trivial_methods_get_nowhere(split):
    test = split.test.subset(np.arange(480))
    trivial = realism.trivial_predictions(split.train, test)
    blind = metrics.evaluate(trivial, test, replicates=20)
    assert blind["classification"]["auroc"]["mean"]["value"] < 0.75
    assert blind["localization"]["pointing"]["macro"]["value"] < 0.25
    assert blind["controls"]["location_prior"]["pointing"]["macro"]["value"] < 0.45


def test_pixel_baseline_finds_what_is_there(split):
    """On labels that follow the mean grey value it must be near perfect, on noise near chance."""
    part = split.test.subset(np.arange(600))
    grey = realism.read_all(part).mean(axis=(1, 2))
    part.labels = np.tile((grey > np.median(grey)).astype(np.float32)[:, None], (1, 14))
    part.labels[:, 1] = np.random.default_rng(0).integers(2, size=600)
    part.labels[:, 2] = 0
    train, test = part.subset(np.arange(400)), part.subset(np.arange(400, 600))
    scores = realism.pixel_baseline(train, test)
    pairs = zip(scores.T, test.labels.T, strict=True)
    auroc = [binary_auroc(score, label, test.patient_ids).value for score, label in pairs]
    assert auroc[0] > 0.95 and 0.35 < auroc[1] < 0.65 and not scores[:, 2].any()


def test_overlap_of_equal_and_disjoint_histograms():
    white, black = np.full((1, 8, 8), 255, np.uint8), np.zeros((1, 8, 8), np.uint8)
    one, other = realism.intensity_histogram(white), realism.intensity_histogram(black)
    assert realism.overlap(one, one) == 1 and realism.overlap(one, other) == 0


def test_spectrum_of_noise_is_flat_and_of_smoothed_noise_is_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(50, 64, 64))
    assert abs(realism.spectral_slope(*realism.power_spectrum(noise))) < 0.1
    # A field whose amplitude falls as 1 / f has power 1 / f².
    f = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    brown = np.fft.ifft2(np.fft.fft2(noise) / np.maximum(f, 1 / 64)).real
    assert realism.spectral_slope(*realism.power_spectrum(brown)) == pytest.approx(-2, abs=0.2)


def test_telling_apart_what_differs_and_what_does_not():
    rng = np.random.default_rng(0)
    blurred = rng.integers(0, 256, (240, 16, 16)).repeat(4, axis=1).repeat(4, axis=2)
    sharp = rng.integers(0, 256, (240, 64, 64))
    patients = np.arange(120).astype(str)
    one, two, three = (
        realism.Radiographs(part.astype(np.uint8), patients)
        for part in (sharp[:120], sharp[120:], blurred[:120])
    )
    same, other = (apart.tell_apart(part, two, epochs=2) for part in (one, three))
    assert list(same["view"]) == list(apart.VIEWS) and (same["n"] == 240).all()
    assert same.set_index("view").loc["as it is", "value"] < 0.65
    assert other.set_index("view").loc["as it is", "value"] > 0.95
