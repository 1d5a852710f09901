import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, special, stats

from cxrlib.datasets.base import Truth
from cxrlib.findings import FINDINGS
from cxrlib.phantom import brush, controls, devices, lesions, population, targets
from cxrlib.phantom import dataset as phantom


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path))
    return tmp_path


def test_every_finding_has_a_drawing():
    assert tuple(lesions.LESIONS) == FINDINGS


@pytest.mark.parametrize("name", [name for name in FINDINGS if name != "Emphysema"])
def test_a_finding_changes_its_mask_and_little_else(name):
    """The same patient with and without it; what it does to heart and diaphragm stays near it."""
    finding, inside, outside = FINDINGS.index(name), [], []
    for index in range(6):
        sick = population.render(index, 128, findings=(name,))
        healthy = population.render(index, 128, findings=())
        mask = sick.masks[finding]
        assert mask.any() and not healthy.masks.any() and sick.labels.sum() == 1, index
        change = np.abs(signed(sick) - signed(healthy))
        near = ndimage.binary_dilation(mask, iterations=10)
        inside.append(change[mask].mean())
        outside.append(change[~near].mean())
    assert np.mean(inside) > 1.5 * np.mean(outside) and np.mean(inside) > 3


def test_emphysema_inflates_the_chest_and_makes_lung_lucent():
    darker = []
    for index in range(6):
        sick = population.render(index, 128, findings=("Emphysema",))
        healthy = population.render(index, 128, findings=())
        assert sick.chest.dome < healthy.chest.dome and sick.chest.base > healthy.chest.base
        mask = sick.masks[FINDINGS.index("Emphysema")]
        assert mask.any()
        darker.append((signed(healthy) - signed(sick))[mask].mean())
    assert np.mean(darker) > 3 and min(darker) > 0


def signed(image: population.Radiograph) -> np.ndarray:
    """Grey values, taken from their median: the display's window depends on the whole image."""
    return image.pixels.astype(float) - np.median(image.pixels)


def test_without_contrast_a_focal_finding_cannot_be_seen():
    for name in brush.FOCAL:
        hidden = population.render(2, 96, findings=(name,), lesion_contrast=0.0)
        healthy = population.render(2, 96, findings=())
        assert hidden.labels.sum() == 1 and (hidden.pixels == healthy.pixels).all(), name


def test_cardiomegaly_is_a_heart_wider_than_half_the_chest():
    def ratio(index, findings):
        image = population.render(index, 128, findings=findings)
        heart = np.flatnonzero(image.anatomy["heart"].any(axis=0))
        return (np.ptp(heart) + 1) * image.chest.zoom * 36 / 128 / (2 * image.chest.lung_half_width)

    ratios = np.array([[ratio(i, ()), ratio(i, ("Cardiomegaly",))] for i in range(20)])
    assert np.median(ratios[:, 0]) < 0.5 < ratios[:, 1].min()


def test_anatomy_masks_are_where_anatomy_is():
    for index in range(8):
        image = population.render(index, 128, findings=())
        lungs, heart, mediastinum = (image.anatomy[k] for k in ("lungs", "heart", "mediastinum"))
        assert not (lungs & heart).any() and not (heart & mediastinum).any()
        assert 0.12 < lungs.mean() < 0.5 and 0.03 < heart.mean() < 0.2
        # The left of the patient is the right of the image: there lies most of the heart.
        column = np.arange(128)
        assert (heart.sum(axis=0) * column).sum() / heart.sum() > column.mean()
        assert image.pixels[lungs].mean() < image.pixels[heart].mean()


@pytest.mark.parametrize("size", [0.5, 1.5])
def test_lesion_size_scales_the_boxes(size):
    def area(**options):
        images = [population.render(i, 128, findings=("Mass",), **options) for i in range(16)]
        return np.mean([image.masks[FINDINGS.index("Mass")].mean() for image in images])

    assert 0.5 < area(lesion_size=size) / area() / size**2 < 2


def test_foci_are_as_many_as_asked():
    for foci in (1, 3):
        counts = []
        for index in range(12):
            image = population.render(index, 128, findings=("Nodule",), foci=foci)
            counts.append(ndimage.label(image.masks[FINDINGS.index("Nodule")])[1])
        assert max(counts) <= foci and np.mean(counts) > 0.75 * foci  # now and then two touch


def test_less_dose_is_more_noise():
    def image(dose):
        return population.render(4, 256, findings=(), dose=dose).pixels.astype(float)

    noise = [(image(dose) - image(100)).std() for dose in (0.01, 0.1, 1)]
    assert noise[0] > 2 * noise[1] > 2 * noise[2]


@pytest.mark.parametrize(("device", "finding"), devices.CONFOUNDERS.items())
def test_a_confounder_goes_with_its_finding_as_closely_as_asked(device, finding):
    def correlation(strength):
        rng, pairs = np.random.default_rng(0), []
        for _ in range(3000):
            here, ap = rng.random() < 0.3, rng.random() < 0.4
            present = {finding} if here else set()
            drawn = devices.draw_equipment(rng, ap, present, {device: strength}, 0)
            pairs.append((here, device in drawn.names))
        return np.corrcoef(np.transpose(pairs))[0, 1]

    assert abs(correlation(0.0)) < 0.06
    assert 0.4 < correlation(0.6) < 0.8
    assert correlation(1.0) == pytest.approx(1)


def test_labels_follow_the_official_structure():
    """Prevalences and correlations of 40,000 drawn label sets, official and flat."""
    for prevalence in ("official", 0.12):
        asked = controls.Controls(prevalence=prevalence)
        labels, views = [], []
        for patient in range(20000):
            rng = np.random.default_rng([1, patient])
            for _ in range(2):
                present, ap = population.draw_labels(
                    np.random.default_rng([2, patient]), rng, asked
                )
                labels.append(present)
                views.append(ap)
        share = np.mean(labels, axis=0)
        official, correlation = population.official_labels()
        expected = official[:14] if prevalence == "official" else np.full(14, 0.12)
        assert np.abs(share - expected).max() < 0.01
        assert abs(np.mean(views) - official[14]) < 0.01
        # Two normal variables cut at their medians agree with probability 1/2 + asin(r) / pi.
        both = np.array(labels, float)
        pair = [FINDINGS.index("Emphysema"), FINDINGS.index("Pneumothorax")]
        together = (both[:, pair[0]] * both[:, pair[1]]).mean()
        chance = share[pair[0]] * share[pair[1]]
        assert together > 1.8 * chance and correlation[pair[0], pair[1]] == 0.51


def test_official_tables_are_those_of_the_release(shared):
    table = pd.read_csv(shared / "nih-metadata" / "Data_Entry_2017_v2020.csv.gz")
    prevalence, correlation = population.official_labels()
    has = np.array([table["Finding Labels"].str.contains(name) for name in FINDINGS])
    assert np.abs(has.mean(axis=1) - prevalence[:14]).max() < 1e-4
    assert abs((table["View Position"] == "AP").mean() - prevalence[14]) < 1e-4
    for i, j in ((0, 2), (9, 6), (4, 5)):  # the table is rounded to two digits
        cut = special.ndtri(prevalence[[i, j]])
        for shift, sign in ((-0.01, 1), (0.01, -1)):
            r = correlation[i, j] + shift
            both = stats.multivariate_normal.cdf(cut, cov=[[1, r], [r, 1]])
            assert sign * ((has[i] & has[j]).mean() - both) > 0
    boxes = pd.read_csv(shared / "nih-metadata" / "BBox_List_2017.csv").iloc[:, :6]
    boxes.columns = ["image", "finding", "x", "y", "w", "h"]
    boxes["finding"] = boxes["finding"].replace("Infiltrate", "Infiltration")
    for finding, rows in boxes.groupby("finding"):
        area = rows["w"].astype(float) * rows["h"].astype(float) / 1024**2
        count, quantiles = targets.official_boxes()[finding, "area"]
        assert count == len(rows)
        assert np.allclose(np.quantile(area, targets.LEVELS), quantiles, atol=1e-4)


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


def test_views_are_those_that_were_drawn(cache):
    test = phantom.load(64, n_train=40, n_val=10, n_test=20, seed=3).test
    drawn = [population.render(int(name), 64, seed=3).chest.ap for name in test.image_ids]
    assert (test.views == "AP").tolist() == drawn
    assert {*test.views} == {"AP", "PA"}


def test_label_noise_reaches_training_labels_alone(cache):
    clean, noisy = (
        phantom.load(64, n_train=400, n_val=40, n_test=80, label_noise=noise) for noise in (0, 0.2)
    )
    flipped = (clean.train.labels != noisy.train.labels).mean()
    assert 0.17 < flipped < 0.23
    assert (clean.test.labels == noisy.test.labels).all()
    assert clean.data_hash != noisy.data_hash


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
        ({"size": 63}, "image_size = 63; the phantom has 64 to 1024"),
        ({"size": 1025}, "64 to 1024"),
        ({"prevalence": 1.1}, "prevalence = 1.1; a number from 0 to 1, or 'official'"),
        ({"prevalence": "officious"}, "prevalence = 'officious'; a number from 0 to 1"),
        ({"lesion_size": 0.1}, "from 0.3 to 2"),
        ({"lesion_contrast": -1}, "from 0 to 4"),
        ({"lesion_contrast": float("nan")}, "from 0 to 4"),
        ({"foci": 2.5}, "foci = 2.5; a whole number from 1 to 8, or None"),
        ({"foci": 0}, "from 1 to 8"),
        ({"label_noise": 0.6}, "from 0 to 0.5"),
        ({"dose": 0}, "from 0.01 to 100"),
        ({"chest_tube": 2}, "from 0 to 1"),
        ({"wires": True}, "wires = True; a number from 0 to 1"),
        ({"findings": ["Masses"]}, "no finding 'Masses'; did you mean 'Mass'"),
        ({"lesion_sizes": 1}, "no control 'lesion_sizes'; did you mean 'lesion_size'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        population.render(0, **{"size": 64, **arguments})


def test_bad_controls_are_refused_before_anything_is_drawn(cache):
    with pytest.raises(ValueError, match="label_noise = 2"):
        phantom.load(64, n_train=40, n_val=10, n_test=20, label_noise=2)
    assert list(cache.iterdir()) == []


def test_rendering_imports_no_torch():
    """The processes that render would each pay seconds and half a gigabyte for it."""
    code = "import sys, cxrlib.phantom.population; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
