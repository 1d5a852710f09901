import signal
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS
from cxrlib.phantom import anatomy, lesions, population
from cxrlib.phantom import dataset as phantom


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path))
    return tmp_path


def healthy_and_sick(name: str, index: int, size: int = 128):
    """The same scene with and without one finding, and the finding's mask."""

    def scene():
        chest = anatomy.draw_chest(np.random.default_rng(index), np.random.default_rng(index + 1))
        if name in lesions.BEFORE:
            lesions.BEFORE[name](chest, np.random.default_rng(index))
        return anatomy.project(chest, np.random.default_rng(index + 2), size)

    before, after = scene(), scene()
    mask = lesions.LESIONS[name](after, np.random.default_rng(index + 3))
    return before, after, mask


def test_every_finding_has_a_drawing():
    assert tuple(lesions.LESIONS) == FINDINGS


@pytest.mark.parametrize("name", [name for name in FINDINGS if name != "Cardiomegaly"])
def test_a_finding_changes_its_mask_and_little_else(name):
    for index in range(4):
        before, after, mask = healthy_and_sick(name, index)
        assert mask.any(), index
        change = np.abs(after.tissue - before.tissue) + np.abs(after.vessels - before.vessels)
        assert change[mask].mean() > 0.1
        near = ndimage.binary_dilation(mask, iterations=8)
        # Edema thickens vessels in all of both lungs; it stays the strongest inside its mask.
        outside = change[~near].mean() if (~near).any() else 0
        assert outside < 0.2 * change[mask].mean()


def test_cardiomegaly_widens_the_heart():
    for index in range(4):
        chest = anatomy.draw_chest(np.random.default_rng(index), np.random.default_rng(index))
        normal = chest.heart_a / chest.lung_half_width
        lesions.enlarge_heart(chest, np.random.default_rng(index))
        assert normal < 0.5 < chest.heart_a / chest.lung_half_width


def test_equal_arguments_give_equal_bytes_and_others_do_not():
    one, same, other = (population.render(7, 64, seed=seed) for seed in (0, 0, 1))
    assert one.pixels.tobytes() == same.pixels.tobytes()
    assert one.masks.tobytes() == same.masks.tobytes()
    assert one.pixels.tobytes() != other.pixels.tobytes()


def test_one_index_is_one_patient_at_every_size():
    for index in range(6):
        small, large = population.render(index, 64), population.render(index, 256)
        assert small.patient == large.patient
        assert (small.labels == large.labels).all()
        shrunk = large.pixels.reshape(64, 4, 64, 4).mean(axis=(1, 3))
        assert np.corrcoef(shrunk.ravel(), small.pixels.ravel())[0, 1] > 0.98
        areas = [image.masks.mean(axis=(1, 2)) for image in (small, large)]
        assert np.abs(areas[0] - areas[1]).max() < 0.03


def test_a_patient_has_several_images_of_one_chest():
    patients = np.array([population.patient_of(index) for index in range(1200)])
    assert set(np.bincount(patients)) == {1, 2, 3, 4}
    assert (np.diff(patients) >= 0).all()
    labels = np.array([population.render(index, 64).labels for index in range(24)])
    chronic = [FINDINGS.index(name) for name in population.CHRONIC]
    for patient in set(patients[:24]):
        assert len(np.unique(labels[patients[:24] == patient][:, chronic], axis=0)) == 1


def test_boxes_are_tight_and_leave_out_specks():
    mask = np.zeros((40, 40), bool)
    mask[5:15, 10:30] = True
    mask[30, 30] = True
    assert phantom.mask_boxes(mask).tolist() == [[10, 5, 30, 15]]
    assert phantom.mask_boxes(np.zeros((4, 4), bool)).shape == (0, 4)


def test_load_gives_disjoint_patients_and_truth_for_the_test_part(cache):
    split = phantom.load(64, n_train=96, n_val=24, n_test=48)
    patients = [set(part.patient_ids) for part in (split.train, split.val, split.test)]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert len(split.train) + len(split.val) + len(split.test) == 168
    assert len(split.train.boxes) == len(split.val.boxes) == 0
    truth = Truth(split.test)
    masks = truth.masks(np.arange(len(truth)), 64)
    assert len(truth) == split.test.labels.sum() == (masks.sum(dim=(1, 2)) > 0).sum()
    for pair in range(len(truth)):
        for x0, y0, x1, y1 in truth.boxes[pair][np.isfinite(truth.boxes[pair][:, 0])] * 64:
            inside = masks[pair, int(y0) : int(y1), int(x0) : int(x1)]
            assert inside.any(dim=0)[[0, -1]].all() and inside.any(dim=1)[[0, -1]].all()


def test_stored_images_are_those_rendered_one_by_one(cache):
    split = phantom.load(64, n_train=40, n_val=10, n_test=20, seed=3)
    for part in (split.train, split.test):
        for place in (0, len(part) - 1):
            image = population.render(int(part.image_ids[place]), 64, seed=3)
            assert (part.read_pixels(str(part.image_ids[place])) == image.pixels).all()
            assert (part.labels[place] == image.labels).all()
    sample = split.test[0]
    assert (sample.masks.numpy() == population.render(int(sample.image_id), 64, seed=3).masks).all()


def test_an_interrupted_generation_leaves_no_half_dataset(cache, monkeypatch):
    def stop(folder, recipe, with_masks):
        (folder / "pixels.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_render_all", stop)
    with pytest.raises(KeyboardInterrupt):
        phantom.load(64, n_train=40, n_val=10, n_test=20)
    assert list(cache.iterdir()) == []


def test_a_disk_that_fills_up_is_an_error_that_names_the_mend(cache):
    """A real limit on file sizes, as from a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match=r"cannot write .*phantom-.*is full.*free some space"):
            phantom.load(64, n_train=40, n_val=10, n_test=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write .*file.*CXRLIB_CACHE"):
        phantom.load(64, n_train=40, n_val=10, n_test=20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 63}, "64 to 1024"),
        ({"size": 1025}, "64 to 1024"),
        ({"size": 64, "prevalence": 1.1}, "from 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        population.render(0, **arguments)


def test_rendering_imports_no_torch():
    """The processes that render would each pay seconds and half a gigabyte for it."""
    code = "import sys, cxrlib.phantom.population; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
