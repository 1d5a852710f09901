"""What noise and leaks do: against the formula, and where the answer is known beforehand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib.datasets import experiments, folder
from cxrlib.datasets.experiments import Images
from cxrlib.datasets.export import export
from cxrlib.metrics.classification import replicate_classification, score_classification
from cxrlib.parameters import read_parameters
from cxrlib.phantom import dataset


def people(visits=3, n=60, own=1.0, signal=0.0, seed=0):
    """Patients with a face of their own (``own``) and labels that stay with them."""
    rng = np.random.default_rng(seed)
    patients = np.repeat([f"P{number:03d}" for number in range(n)], visits)
    labels = np.repeat(rng.random((n, 14)) < 0.4, visits, axis=0).astype(np.float32)
    faces = np.repeat(rng.standard_normal((n, 80)), visits, axis=0)
    features = own * faces + 0.3 * rng.standard_normal((len(faces), 80))
    features[:, :14] += signal * labels
    return Images(features.astype(np.float32), labels, patients)


def test_a_leak_is_worth_what_the_labels_owe_to_the_patient(monkeypatch):
    monkeypatch.setattr(experiments, "PENALTY", 1.0)
    worth, nearest = experiments.leak_worth(people(), halvings=2, replicates=50)
    row = worth.set_index("finding").loc["all"]
    # The face tells nothing of strangers and all of oneself.
    assert abs(row["clean"] - 0.5) < 0.05 and row["leaky"] > 0.9
    assert row["value"] == pytest.approx(row["leaky"] - row["clean"])
    assert row["low"] > 0.3 and row["n"] == 60
    assert nearest.loc[0, "k"] == nearest.loc[0, "n"] == 60
    assert nearest.loc[0, "chance"] == pytest.approx(2 / 179)


def test_without_faces_a_leak_is_worth_nothing(monkeypatch):
    monkeypatch.setattr(experiments, "PENALTY", 1.0)
    worth, nearest = experiments.leak_worth(
        people(n=200, own=0.0, signal=1.0), halvings=4, replicates=200
    )
    row = worth.set_index("finding").loc["all"]
    assert row["clean"] > 0.9 and abs(row["value"]) < 0.01
    assert row["low"] <= 0.002 and nearest.loc[0, "value"] < 0.5


def test_training_sets_are_of_one_size_and_differ_in_whose_images_they_hold(monkeypatch):
    images, seen = people(visits=2, n=20), []

    def spy(known, labels, asked):
        index = {row.tobytes(): number for number, row in enumerate(images.features)}
        owners = [{images.patients[index[r.tobytes()]] for r in part} for part in (known, asked)]
        seen.append((len(known), *owners))
        return np.random.default_rng(0).random((len(asked), 14))

    monkeypatch.setattr(experiments, "ridge_scores", spy)
    experiments.leak_worth(images, halvings=1, replicates=5)
    assert len(seen) == 4 and {size for size, _, _ in seen} == {10}
    assert [len(known & asked) for _, known, asked in seen] == [0, 0, 10, 10]


def test_single_images_cannot_leak():
    with pytest.raises(ValueError, match="0 patients have several images"):
        experiments.leak_worth(people(visits=1), halvings=1, replicates=5)


def test_the_formula_agrees_with_flipping_many_labels():
    rng = np.random.default_rng(1)
    truth = (rng.random(200_000) < 0.15).astype(float)
    score = truth + rng.standard_normal(len(truth))
    for noise in (0.05, 0.2, 0.4):
        wrong = experiments.flip(truth, noise, rng)
        assert (wrong != truth).mean() == pytest.approx(noise, abs=0.005)
        expected = experiments.diluted(
            roc_auc_score(truth, score), truth[wrong == 1].mean(), truth[wrong == 0].mean()
        )
        assert roc_auc_score(wrong, score) == pytest.approx(expected, abs=0.006)


def test_noise_of_the_test_labels_costs_more_than_that_of_training():
    images = people(visits=1, n=2400, own=0.6, signal=0.8)
    is_test = np.arange(len(images)) >= 1600
    table = experiments.label_noise(images, is_test, (0.0, 0.2), replicates=50)
    value = table.set_index(["noise", "flipped"])["value"]
    assert value[0.0].max() - value[0.0].min() < 1e-9
    clean, training, test = (
        value[0.0, "both"],
        value[0.2, "training labels"],
        value[0.2, "test labels"],
    )
    assert clean > 0.75 and clean - training < 0.06 < clean - test
    assert value[0.2, "both"] == pytest.approx(value[0.2, "formula"], abs=0.02)
    assert (table["n"] == 800).all()


def test_replicates_are_those_behind_the_scores():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((40, 14)), (rng.random((40, 14)) < 0.3).astype(float)
    patients = rng.integers(15, size=40).astype(str)
    both = replicate_classification(scores, labels, patients, 30, 3)
    auroc = score_classification(scores, labels, patients, 30, 3)["auroc"]["per_finding"]
    assert both.shape == (2, 14, 31)
    assert both[0, :, 0] == pytest.approx([estimate.value for estimate in auroc.values()])
    assert np.nanpercentile(both[0, 4, 1:], 97.5) == pytest.approx(auroc["Mass"].high)


@pytest.fixture(scope="module")
def small():
    return dataset.load(64, n_train=8, n_val=4, n_test=8)


def test_images_come_in_the_order_they_were_drawn(small):
    images = experiments.flatten(small)
    assert len(images) == 20 and images.features.shape == (20, 1024)
    assert list(images.patients) == sorted(images.patients)
    assert np.abs(images.features.mean(axis=1)).max() < 1e-4
    assert images.features.std(axis=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["png", "dicom"])
def test_an_exported_split_is_read_back_as_it_was(tmp_path, small, kind):
    export(small, tmp_path, kind)
    again = folder.load(tmp_path, 64)
    for name in ("train", "val", "test"):
        old, new = getattr(small, name), getattr(again, name)
        assert new.image_ids.tolist() == old.image_ids.tolist()
        assert new.patient_ids.tolist() == old.patient_ids.tolist()
        assert (new.labels == old.labels).all()
        for image_id in old.image_ids:
            assert (new.read_pixels(image_id) == old.read_pixels(image_id)).all()
    corners = ["x0", "y0", "x1", "y1"]
    assert again.test.boxes[corners].to_numpy() == pytest.approx(
        small.test.boxes[corners].to_numpy()
    )
    assert again.test.boxes["finding"].tolist() == small.test.boxes["finding"].tolist()


def test_unknown_labels_are_left_empty(tmp_path, small):
    small.train.labels[0, 4] = np.nan
    try:
        export(small, tmp_path)
        assert np.isnan(folder.load(tmp_path, 64).train.labels[0, 4])
    finally:
        small.train.labels[0, 4] = 0


def test_an_unknown_kind_is_refused(tmp_path, small):
    with pytest.raises(ValueError, match=r"no kind of image 'dcm'; .*dicom"):
        export(small, tmp_path, "dcm")
    assert not list(tmp_path.iterdir())


def test_a_wrong_seed_is_refused():
    with pytest.raises(ValueError, match="seed = -1"):
        read_parameters(
            experiments.DataParameters, {"preset": "quick", "data_dir": None, "seed": -1}
        )
