import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn.functional import interpolate

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Truth
from cxrlib.findings import FINDINGS
from cxrlib.metrics.conventions import CONVENTIONS, TIOBB, TIOU, WANG_THRESHOLDS, Case
from cxrlib.metrics.localization import check_maps, frames_of, measure, of_pairs

BOXES_OF_WANG = len(TIOU) + len(TIOBB)


def make_dataset(rows, patients, size=32, read_masks=None, name="case", views=None):
    """A dataset of (image, finding index, x0, y0, x1, y1) rows; image i is of patients[i]."""
    ids = np.array([f"i{index:04d}" for index in range(len(patients))])
    boxes = pd.DataFrame([(ids[row[0]], *row[1:]) for row in rows], columns=BOX_COLUMNS)
    labels = (np.arange(len(ids) * 14).reshape(-1, 14) % 3 == 0).astype(float)
    return CXRDataset(
        name, ids, np.array(patients), labels, boxes, size, np.zeros, read_masks, views
    )


def make_truth(*args, **kwargs):
    return Truth(make_dataset(*args, **kwargs))


def random_rows(images, seed=0, findings=8):
    """One box for each image, of one of the boxed findings."""
    rng = np.random.default_rng(seed)
    corner, extent = rng.uniform(0, 0.6, (images, 2)), rng.uniform(0.1, 0.4, (images, 2))
    return [
        (image, int(rng.integers(findings)), *corner[image], *(corner[image] + extent[image]))
        for image in range(images)
    ]


def random_dataset(images, seed=0, patients=20, size=32, **kwargs):
    owners = np.random.default_rng(seed + 1).integers(0, patients, images).astype(str)
    return make_dataset(random_rows(images, seed), owners, size, **kwargs)


def random_truth(images, seed=0, patients=20, size=32):
    return Truth(random_dataset(images, seed, patients, size))


def random_images(images, grid=6, seed=0):
    """Maps of every finding: float32 (images, 14, grid, grid)."""
    return np.random.default_rng(seed).random((images, 14, grid, grid), np.float32)


def of_images(maps, size):
    return frames_of(lambda image, finding: maps[image, finding], size)


def test_every_pair_gets_the_conventions_of_its_own_map():
    truth, maps = random_truth(30), random_images(30)
    sources = {"one": of_images(maps, 32), "other": of_images(maps[::-1], 32)}
    measured = measure(sources, truth, 32)
    assert list(measured) == ["one", "other"]
    for name, given_maps in (("one", maps), ("other", maps[::-1])):
        for pair, (image, finding) in enumerate(zip(truth.image, truth.finding, strict=True)):
            map_ = torch.from_numpy(given_maps[image, finding].copy())[None, None]
            frame, aligned = (
                interpolate(map_, (32, 32), mode="bilinear", align_corners=flag)[0, 0].numpy()
                for flag in (False, True)
            )
            case = Case(
                frame,
                lambda aligned=aligned: aligned,
                truth.masks(np.array([pair]), 32)[0].numpy(),
                truth.boxes[pair].astype(float) * 32,
            )
            # cv2 and torch differ in the last bit, which may move a level by one of 255.
            for convention in ("maps", "pylon", "ham"):
                for key, value in CONVENTIONS[convention](case).items():
                    ours = measured[name].pairs[key][pair]
                    assert ours == pytest.approx(value, abs=0.02), key


def test_measurements_have_a_row_for_each_pair():
    measured = measure({"maps": of_images(random_images(7), 32)}, random_truth(7), 32)["maps"]
    shapes = {name: values.shape for name, values in measured.pairs.items()}
    assert shapes["pointing"] == shapes["ham_iou"] == (7,)
    assert shapes["wsol_largest"] == shapes["wsol_all"] == (7, 100)
    assert shapes["wsol_inside"] == shapes["wsol_outside"] == (7, 101)
    assert (shapes["clarity"], shapes["chexlocalize_iou"]) == ((7, 20), (7, 6))
    assert measured.false_boxes.shape == (7, len(FINDINGS), BOXES_OF_WANG)
    pixels = measured.pairs["wsol_inside"].sum(axis=1) + measured.pairs["wsol_outside"].sum(axis=1)
    assert (pixels == 32 * 32).all()
    assert (measured.size, len(measured.boxval)) == (32, 7)


def test_only_what_is_asked_is_measured():
    truth = random_truth(3)
    measured = measure({"maps": of_images(random_images(3), 32)}, truth, 32, ["ham"])["maps"]
    assert measured.pairs.keys() == {"ham_iou", "ham_ior"}
    assert measured.false_boxes is None


@given(st.permutations(range(12)))
@settings(deadline=None, max_examples=10)
def test_order_of_the_images_moves_the_rows_and_no_value(order):
    dataset, maps, order = random_dataset(12, patients=5), random_images(12), np.array(order)
    truth, moved = Truth(dataset), Truth(dataset.subset(order))
    before = measure({"maps": of_images(maps, 16)}, truth, 16)["maps"]
    after = measure({"maps": of_images(maps[order], 16)}, moved, 16)["maps"]
    assert (truth.image == np.arange(12)).all()
    for name, values in after.pairs.items():
        assert np.array_equal(values, before.pairs[name][order]), name
    assert np.array_equal(after.false_boxes, before.false_boxes[order], equal_nan=True)
    assert np.array_equal(after.boxval, before.boxval[order])


def test_any_of_several_boxes_is_a_hit_and_padding_is_not():
    rows = [(0, 4, 0.0, 0.0, 0.25, 0.25), (0, 4, 0.75, 0.75, 1.0, 1.0), (1, 4, 0.0, 0.0, 0.1, 0.1)]
    truth = make_truth(rows, ["a", "b"])
    assert truth.boxes.shape == (2, 2, 4)
    corner = np.zeros((2, 8, 8))
    corner[:, 7, 7] = 1
    pairs = measure({"maps": of_pairs(corner, truth, 8)}, truth, 8)["maps"].pairs
    for name in ("pointing", "pylon_point"):
        assert pairs[name].tolist() == [1, 0]
    assert pairs["wang_iou"].tolist() == [pytest.approx(1 / 4), 0]
    assert pairs["iou_half"].tolist() == [pytest.approx(1 / 8), 0]  # of both boxes' pixels
    assert not any(np.isnan(values).any() for values in pairs.values())


def test_padding_is_no_box_in_the_corner():
    """Inclusive edges would find the pixel (0, 0) in a box (0, 0, 0, 0)."""
    rows = [(0, 4, 0.0, 0.0, 0.2, 0.2), (0, 4, 0.5, 0.5, 1.0, 1.0), (1, 4, 0.5, 0.5, 0.9, 0.9)]
    truth = make_truth(rows, ["a", "b"])
    corner = np.zeros((2, 8, 8))
    corner[:, 0, 0] = 1
    pairs = measure({"maps": of_pairs(corner, truth, 8)}, truth, 8)["maps"].pairs
    assert pairs["pylon_point"].tolist() == [1, 0]
    assert not pairs["wsol_all"][1].any() and pairs["wsol_all"][0].all()


def test_outlines_are_the_truth_where_a_dataset_has_them():
    outline = np.zeros((14, 16, 16), bool)
    outline[4, 4:12, 4:6] = outline[4, 10:12, 4:12] = True
    rows = [(0, 4, 0.25, 0.25, 0.75, 0.75)]
    maps = outline[4][None].astype(float)
    perfect = {}
    for kind, read in (("outline", lambda _: outline), ("box", None)):
        truth = make_truth(rows, ["a"], 16, read)
        perfect[kind] = measure({"m": of_pairs(maps, truth, 16)}, truth, 16)["m"].pairs
    for name in ("continuous_dice", "iou_half", "pylon_iou", "ham_iou", "chexlocalize_otsu"):
        assert perfect["outline"][name] == pytest.approx(1), name
        assert perfect["box"][name] < 0.75, name
    assert perfect["outline"]["wsol_inside"].sum() == outline[4].sum()
    for name in ("wang_iou", "wsol_largest", "clarity"):  # boxes are compared with boxes
        assert np.array_equal(perfect["outline"][name], perfect["box"][name])


def test_a_pair_without_a_map_is_nan_everywhere():
    truth, maps = random_truth(20), random_images(20)
    maps[:, 2] = np.nan
    measured = measure({"maps": of_images(maps, 32)}, truth, 32)["maps"]
    missing = truth.finding == 2
    assert 0 < missing.sum() < 20
    for name, values in measured.pairs.items():
        absent = np.isnan(values.reshape(20, -1))
        assert np.array_equal(absent.any(axis=1), missing), name
        assert np.array_equal(absent.all(axis=1), missing), name
    assert np.isnan(measured.false_boxes[:, 2]).all()
    assert not np.isnan(measured.false_boxes[:, truth.finding[~missing]]).any()


def naive_false_boxes(maps, truth, size):
    """For each boxed image and finding, by scipy: boxes that match no true one, at each IoU."""
    counts = {}
    for image in np.unique(truth.image):
        for finding in np.unique(truth.finding):
            map_ = torch.from_numpy(maps[image, finding])[None, None]
            frame = interpolate(map_, (size, size), mode="bilinear")[0, 0].numpy()
            levels = (frame - frame.min()) / (frame.max() - frame.min()) * 255
            own = (truth.image == image) & (truth.finding == finding)
            true = truth.boxes[own].reshape(-1, 4) * size
            ious = []
            for threshold in WANG_THRESHOLDS:
                regions = ndimage.label(levels > threshold, np.ones((3, 3)))[0]
                for y, x in ndimage.find_objects(regions):
                    ious.append(best_iou((x.start, y.start, x.stop, y.stop), true))
            counts[image, finding] = (np.array(ious)[:, None] <= TIOU).sum(axis=0)
    return counts


def best_iou(box, true):
    """Of half-open boxes; padding is left out."""
    best = 0.0
    for other in true[~np.isnan(true[:, 0])].astype(float):
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        common = max(width, 0) * max(height, 0)
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
        best = max(best, common / (sum(areas) - common))
    return best


def test_false_boxes_are_counted_on_every_boxed_image():
    """Wang 2017: the maps of a finding count on the records of other findings too."""
    rows = [*random_rows(10, findings=3), (0, 6, 0.1, 0.1, 0.5, 0.6), (0, 6, 0.6, 0.5, 0.9, 0.9)]
    truth, maps = make_truth(rows, list("abcdefghij")), random_images(10)
    measured = measure({"maps": of_images(maps, 32)}, truth, 32)["maps"]
    expected = naive_false_boxes(maps, truth, 32)
    boxed = np.unique(truth.finding)
    assert len(truth) == 11 and boxed.tolist() == [0, 1, 2, 6]
    for pair, image in enumerate(truth.image):
        for finding in boxed:
            ours = measured.false_boxes[pair, finding, : len(TIOU)]
            assert ours.tolist() == expected[image, finding].tolist()
    # Where the image has not got the finding no box is right, whatever the threshold.
    absent = [(p, f) for p in range(11) for f in boxed if (truth.image[p], f) not in places(truth)]
    for pair, finding in absent:
        assert len(set(measured.false_boxes[pair, finding])) == 1
        assert measured.false_boxes[pair, finding, 0] > 0
    never = np.setdiff1d(np.arange(14), boxed)
    assert np.isnan(measured.false_boxes[:, never]).all()


def places(truth):
    return set(zip(truth.image.tolist(), truth.finding.tolist(), strict=True))


def test_nothing_to_measure():
    truth = make_truth([], ["a", "b"])
    measured = measure({"maps": of_images(random_images(2), 32)}, truth, 32)["maps"]
    assert measured.pairs["pointing"].shape == (0,)
    assert measured.pairs["wsol_largest"].shape == (0, 100)
    assert measured.false_boxes.shape == (0, len(FINDINGS), BOXES_OF_WANG)


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (32, 32)])
def test_grids_from_one_cell_to_the_frame(grid):
    truth = random_truth(4)
    maps = np.random.default_rng(0).random((4, *grid))
    pairs = measure({"maps": of_pairs(maps, truth, 32)}, truth, 32)["maps"].pairs
    area = truth.masks(np.arange(4), 32).numpy().mean(axis=(1, 2))
    if grid == (1, 1):  # a constant map
        np.testing.assert_allclose(pairs["pointing"], area, atol=0.05)
        assert not pairs["ham_iou"].any() and not pairs["wang_iou"].any()
    assert all(np.isfinite(values).all() for values in pairs.values())


def test_maps_of_pairs_are_zero_where_there_is_no_pair():
    truth = random_truth(3)
    frames = of_pairs(np.ones((3, 2, 2)), truth, 8)
    finding = int(truth.finding[0])
    assert (frames(0, finding, False) == 1).all()
    assert not frames(0, (finding + 1) % 14, False).any()


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.zeros((4, 8, 8)), r"4 maps for 5 \(image, finding\) pairs"),
        (np.zeros((5, 64)), r"maps have shape \(5, 64\), expected \(n, h, w\)"),
        (np.full((5, 8, 8), 1.01), "320 of 320 map values are NaN or not in 0 to 1"),
        (np.full((5, 8, 8), -1e-3), "320 of 320"),
        (np.where(np.eye(8), np.nan, np.zeros((5, 8, 8))), "40 of 320 map values are NaN"),
        (np.full((5, 8, 8), np.inf), "320 of 320"),
        (np.zeros((5, 8, 40)), "a frame of 32 px is smaller than maps of 8 × 40; give the side"),
    ],
)
def test_bad_maps_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        of_pairs(maps, random_truth(5), 32)


def test_good_maps_are_not_refused():
    for maps in (np.zeros((0, 4, 4)), np.ones((2, 4, 4)), np.zeros((2, 32, 32), np.float16)):
        check_maps(maps, 32)
