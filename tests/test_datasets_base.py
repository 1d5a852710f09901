import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlib.datasets.base import (
    BOX_COLUMNS,
    CXRDataset,
    Split,
    Truth,
    scaled,
    split_patients,
)
from cxrlib.datasets.coverage import rasterize

SIDE = 12
BOXES = pd.DataFrame(
    [
        ("b1", 4, 0.25, 0.0, 0.5, 0.75),
        ("a0", 5, 0.5, 0.5, 1.0, 1.0),
        ("b1", 4, 0.0, 0.5, 0.5, 1.0),
        ("b1", 0, 0.0, 0.0, 0.1, 0.1),
    ],
    columns=BOX_COLUMNS,
)
NO_BOXES = BOXES.iloc[:0]


def read_pixels(image_id: str) -> np.ndarray:
    return np.full((SIDE, SIDE), 51 * int(image_id[-1]), np.uint8)


def read_masks(image_id: str) -> np.ndarray:
    return np.random.default_rng(int(image_id[-1])).random((14, SIDE, SIDE)) < 0.5


def make(ids, boxes=NO_BOXES, masks=None, patients=None) -> CXRDataset:
    labels = np.arange(14 * len(ids)).reshape(len(ids), 14) % 2
    patients = [name[0] for name in ids] if patients is None else patients
    return CXRDataset("toy", ids, patients, labels, boxes, SIDE, read_pixels, masks)


def test_views_are_kept_and_unknown_by_default():
    data = make(["a0", "a1", "b1"])
    assert data.views.tolist() == ["", "", ""]
    views = np.array(["PA", "AP", ""])
    data = CXRDataset(
        "toy", [*"abc"], [*"abc"], data.labels, NO_BOXES, SIDE, read_pixels, views=views
    )
    assert data.subset(np.array([2, 0])).views.tolist() == ["", "PA"]
    assert data.reading(read_masks).views.tolist() == views.tolist()


def test_sample():
    data = make(["a0", "a1", "b1"], BOXES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns when it is given read-only memory
        sample = data[2]
    assert len(data) == 3
    assert (sample.image_id, sample.patient_id, sample.masks) == ("b1", "b", None)
    assert sample.image.shape == (1, SIDE, SIDE)
    torch.testing.assert_close(sample.image, torch.full((1, SIDE, SIDE), 0.2))
    assert sample.labels.dtype == torch.float32
    assert sample.boxes.tolist()[:2] == [[3, 0, 6, 9], [0, 6, 6, 12]]
    assert sample.box_findings.tolist() == [4, 4, 0]
    assert data[1].boxes.shape == (0, 4)
    assert data[1].box_findings.dtype == torch.int64


def test_sample_without_any_boxes_and_with_masks():
    sample = make(["a0"], masks=read_masks)[0]
    assert sample.boxes.shape == (0, 4)
    assert sample.masks is not None
    assert sample.masks.dtype == torch.bool
    assert sample.masks.shape == (14, SIDE, SIDE)


def test_a_batch_is_its_samples_stacked():
    data = make(["a0", "b1", "c2"])
    batch = data.__getitems__([2, 0])
    for row, sample in enumerate((data[2], data[0])):
        assert torch.equal(scaled(batch.images[row]), sample.image)
        assert torch.equal(batch.labels[row], sample.labels)
    assert batch.images.shape == (2, 1, SIDE, SIDE)
    assert batch.images.dtype == torch.uint8


def test_bytes_are_scaled_as_numpy_does():
    levels = np.arange(256, dtype=np.uint8)
    found = scaled(torch.from_numpy(levels)).numpy()
    assert found.dtype == np.float32
    assert (found == levels.astype(np.float32) / 255).all()


def test_subset_keeps_order_and_its_own_boxes():
    part = make(["a0", "a1", "b1"], BOXES).subset(np.array([2, 1]))
    assert part.image_ids.tolist() == ["b1", "a1"]
    assert part.patient_ids.tolist() == ["b", "a"]
    assert set(part.boxes["image_id"]) == {"b1"}
    assert len(part[0].boxes) == 3
    assert len(part.subset(np.array([], int))) == 0


def test_datasets_can_be_sent_to_loader_processes():
    again = pickle.loads(pickle.dumps(make(["a0"], BOXES)))
    assert len(again[0].boxes) == 1


def test_truth_has_one_entry_per_image_and_finding():
    truth = Truth(make(["a0", "a1", "b1"], BOXES))
    assert len(truth) == 3
    assert truth.image.tolist() == [0, 2, 2]
    assert truth.finding.tolist() == [5, 0, 4]
    assert truth.patient.tolist() == ["a", "b", "b"]
    assert truth.boxes.shape == (3, 2, 4)
    assert np.isnan(truth.boxes[:2, 1]).all()
    assert truth.boxes[2].tolist() == [[0.25, 0, 0.5, 0.75], [0, 0.5, 0.5, 1]]
    assert truth.masks(np.array([2]), 4)[0].tolist() == [
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]


def test_truth_of_no_boxes_is_empty():
    truth = Truth(make(["a0"]))
    assert len(truth) == 0
    assert truth.masks(np.arange(0), 4).shape == (0, 4, 4)


@pytest.mark.parametrize("size", [SIDE, 4, 5, 24])
def test_truth_averages_the_datasets_own_masks(size):
    truth = Truth(make(["a0", "b1"], BOXES, read_masks))
    masks = truth.masks(np.array([2, 0]), size)
    assert masks.shape == (2, size, size)
    for mask, (name, finding) in zip(masks, [("b1", 4), ("a0", 5)], strict=True):
        own = np.kron(read_masks(name)[finding], np.ones((size, size)))
        blocks = own.reshape(size, SIDE, size, SIDE).mean(axis=(1, 3))
        np.testing.assert_allclose(mask, blocks, atol=1e-5)


def naive_rasterize(boxes, size):
    masks = np.zeros((len(boxes), size, size))
    for pair, row, column in np.ndindex(*masks.shape):
        for x0, y0, x1, y1 in boxes[pair][~np.isnan(boxes[pair]).any(axis=1)] * size:
            across = max(0, min(x1, column + 1) - max(x0, column))
            down = max(0, min(y1, row + 1) - max(y0, row))
            masks[pair, row, column] = max(masks[pair, row, column], across * down)
    return masks


@pytest.mark.parametrize("size", [1, 7, 16])
def test_rasterize_is_the_naive_loop(size):
    corners = np.random.default_rng(0).random((5, 3, 2, 2))
    corners.sort(axis=2)
    boxes = corners.reshape(5, 3, 4)  # x0, y0, x1, y1
    boxes[1, 2] = boxes[4] = np.nan
    masks = rasterize(boxes, size)
    assert masks.dtype == np.float32
    np.testing.assert_allclose(masks, naive_rasterize(boxes, size), atol=1e-5)


def test_rasterize_keeps_the_area_of_a_box():
    box = np.array([[[0.103, 0.2, 0.777, 0.61]]])
    assert rasterize(box, 13).mean().item() == pytest.approx(0.674 * 0.41, abs=1e-6)


def split(train, val, test, **parts) -> Split:
    return Split(make(train, **parts), make(val), make(test, BOXES), "hash")


def test_split_without_leaks():
    good = split(["c0"], ["d0"], ["a0", "b1"])
    good.refuse_leaks()
    assert good.empty_part() is None
    assert split(["c0"], [], ["a0"]).empty_part() == "val"


@pytest.mark.parametrize(
    ("train", "val", "test", "names"),
    [
        (["c0"], ["c1"], ["a0"], "'train' and 'val', such as c;"),
        (["c0", "a1"], ["d0"], ["a0"], "'train' and 'test', such as a;"),
        (["c0"], ["a2"], ["a0"], "'val' and 'test', such as a;"),
    ],
)
def test_split_refuses_a_shared_patient(train, val, test, names):
    with pytest.raises(ValueError, match=f"1 patients are in both {names} split by patient"):
        split(train, val, test).refuse_leaks()


def test_split_refuses_boxes_outside_test():
    box = BOXES.iloc[:1].assign(image_id="c0")
    with pytest.raises(ValueError, match=r"'train' holds images with boxes; .* 'test' only"):
        split(["c0"], ["d0"], ["a0"], boxes=box).refuse_leaks()


def test_split_hash_names_the_parts_not_their_order():
    one = split(["c0", "c1"], ["d0"], ["a0"]).split_hash
    assert one == split(["c1", "c0"], ["d0"], ["a0"]).split_hash
    assert one != split(["c0"], ["c1", "d0"], ["a0"]).split_hash
    assert one != split(["d0"], ["c0", "c1"], ["a0"]).split_hash
    run_together = split(["c0c1"], ["d0"], ["a0"])
    assert one != run_together.split_hash


def test_split_patients_is_by_patient_exact_and_seeded():
    patients = np.repeat(np.arange(100).astype(str), np.arange(100) % 5 + 1)
    chosen = split_patients(patients, 0.2, seed=1)
    assert len(np.unique(patients[chosen])) == 20
    assert not set(patients[chosen]) & set(patients[~chosen])
    assert (chosen == split_patients(patients, 0.2, seed=1)).all()
    assert (chosen != split_patients(patients, 0.2, seed=2)).any()
    order = np.random.default_rng(0).permutation(len(patients))
    assert (chosen[order] == split_patients(patients[order], 0.2, seed=1)).all()
