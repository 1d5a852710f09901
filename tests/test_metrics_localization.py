import json

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Truth
from cxrlib.findings import BOXED, FINDINGS, finding_index
from cxrlib.metrics.localization import (
    METRICS,
    continuous_dice,
    iou_half,
    pointing,
    score_pairs,
    summarise,
    upsample,
)


def make_truth(rows, patients, size=32, read_masks=None):
    """Truth of (image, finding index, x0, y0, x1, y1) rows; image i belongs to patients[i]."""
    ids = np.array([f"i{index:04d}" for index in range(len(patients))])
    boxes = pd.DataFrame([(ids[row[0]], *row[1:]) for row in rows], columns=BOX_COLUMNS)
    labels = np.zeros((len(ids), 14))
    return Truth(
        CXRDataset("case", ids, np.array(patients), labels, boxes, size, np.zeros, read_masks)
    )


def random_truth(pairs, seed=0, patients=20, size=32):
    """One box for each image, of one of the eight boxed findings."""
    rng = np.random.default_rng(seed)
    corner, extent = rng.uniform(0, 0.6, (pairs, 2)), rng.uniform(0.1, 0.4, (pairs, 2))
    rows = [
        (image, rng.integers(8), *corner[image], *(corner[image] + extent[image]))
        for image in range(pairs)
    ]
    return make_truth(rows, rng.integers(0, patients, pairs).astype(str), size)


def naive(name, map_, mask, boxes):
    """The formulas, pixel by pixel."""
    size = len(map_)
    if name == "continuous_dice":
        return 2 * (map_ * mask).sum() / (map_.sum() + mask.sum())
    if name == "iou@0.5":
        predicted, true = map_ >= map_.max() / 2, mask >= 0.5
        return (predicted & true).sum() / (predicted | true).sum()
    hits = [
        any(
            x0 * size <= column + 0.5 < x1 * size and y0 * size <= row + 0.5 < y1 * size
            for x0, y0, x1, y1 in boxes
        )
        for row, column in zip(*np.nonzero(np.isclose(map_, map_.max(), rtol=1e-6)), strict=True)
    ]
    return np.mean(hits)


def test_fast_equals_naive_on_random_maps():
    truth = random_truth(130)  # more than two chunks
    maps = torch.rand(130, 7, 9, generator=torch.Generator().manual_seed(0))
    values = score_pairs(maps, truth, 32)
    frames, masks = upsample(maps, 32).numpy(), truth.masks(np.arange(130), 32).numpy()
    for name in METRICS:
        expected = [
            naive(name, frame, mask, boxes)
            for frame, mask, boxes in zip(frames, masks, truth.boxes, strict=True)
        ]
        np.testing.assert_allclose(values[name], expected, atol=1e-6, err_msg=name)
        assert values[name].dtype == np.float32


def test_agrees_with_the_released_code_except_where_the_peak_is_on_an_edge(shared):
    """PYLON compares the *index* of the peak pixel with inclusive edges, we its centre."""
    folder = shared / "fixtures"
    case = np.load(folder / "localization.npz")
    released = json.loads((folder / "localization.json").read_text())["pylon_point"]
    findings, xywh = case["finding"], case["boxes_xywh_1024"]
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1) / 1024
    rows = [
        (i, finding_index(name), *box)
        for i, (name, box) in enumerate(zip(findings, xyxy, strict=True))
    ]
    maps = torch.from_numpy(case["logits"]).float().sigmoid()
    truth = make_truth(rows, [str(i) for i in range(len(rows))], 256)
    ours = score_pairs(maps, truth, 256)["pointing"]

    row, column = np.divmod(upsample(maps, 256).flatten(1).argmax(dim=1).numpy(), 256)
    x0, y0, x1, y1 = xyxy.T * 256
    theirs = (x0 <= column) & (column <= x1) & (y0 <= row) & (row <= y1)
    assert [theirs[findings == name].mean() for name in BOXED] == pytest.approx(
        released["per_class"]
    )
    gaps = [x0 - column - 0.5, x1 - column - 0.5, y0 - row - 0.5, y1 - row - 0.5]
    on_edge = np.min(np.abs(gaps), axis=0) <= 0.5
    assert (ours == theirs)[~on_edge].all()
    assert (ours != theirs).sum() == 4  # of 160


def test_a_perfect_map_points_and_scores_one():
    truth = random_truth(20)
    masks = truth.masks(np.arange(20), 32)
    values = score_pairs((masks >= 0.5).float(), truth, 32)
    assert (values["pointing"] == 1).all()
    assert (values["iou@0.5"] == 1).all()
    assert (score_pairs(1 - (masks > 0).float(), truth, 32)["pointing"] == 0).all()


def test_no_information_points_by_area():
    truth = random_truth(40)
    area = truth.masks(np.arange(40), 64).mean(dim=(1, 2)).numpy()
    for level in (0.0, 0.3, 1.0):  # all pixels share the maximum
        flat = score_pairs(torch.full((40, 5, 5), level), truth, 64)
        np.testing.assert_allclose(flat["pointing"], area, atol=0.03)
        assert flat["pointing"].max() < 1


def test_any_of_several_boxes_is_a_hit_and_padding_is_not():
    rows = [(0, 4, 0.0, 0.0, 0.25, 0.25), (0, 4, 0.75, 0.75, 1.0, 1.0), (1, 4, 0.0, 0.0, 0.1, 0.1)]
    truth = make_truth(rows, ["a", "b"])
    assert truth.boxes.shape == (2, 2, 4)
    maps = torch.zeros(2, 8, 8)
    maps[:, 7, 7] = 1
    assert score_pairs(maps, truth, 8)["pointing"].tolist() == [1, 0]


def test_boxes_are_half_open_at_the_pixel_centre():
    map_ = torch.zeros(1, 4, 4)
    map_[0, 1, 1] = 1  # centre at 1.5 / 4 = 0.375
    for x0, x1, hit in ((0.375, 1.0, 1.0), (0.0, 0.375, 0.0), (0.0, 0.376, 1.0)):
        assert pointing(map_, map_, torch.tensor([[[x0, 0.0, x1, 1.0]]])).item() == hit


def test_an_all_zero_map_scores_zero_where_it_predicts_nothing():
    truth = random_truth(5)
    values = score_pairs(torch.zeros(5, 4, 4), truth, 32)
    assert (values["iou@0.5"] == 0).all() and (values["continuous_dice"] == 0).all()


def test_a_box_smaller_than_half_a_pixel_still_counts():
    truth = make_truth([(0, 5, 0.51, 0.51, 0.53, 0.53)], ["a"])
    maps = torch.zeros(1, 4, 4)
    maps[0, 2, 2] = 1
    assert truth.masks(np.array([0]), 4).max() < 0.5
    assert score_pairs(maps, truth, 4)["iou@0.5"].tolist() == [1]


def test_overlap_metrics_agree_for_binary_maps():
    """Dice = 2 IoU / (1 + IoU)."""
    maps = (torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    truth = (torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    iou = iou_half(maps, truth, torch.zeros(6, 1, 4))
    dice = continuous_dice(maps, truth, torch.zeros(6, 1, 4))
    torch.testing.assert_close(dice, 2 * iou / (1 + iou))


def test_pixel_masks_are_averaged_to_any_size():
    own = np.zeros((14, 12, 12), bool)
    own[4, :6, :4] = True
    truth = make_truth([(0, 4, 0.0, 0.0, 0.5, 0.6)], ["a"], 12, lambda _: own)
    for size in (3, 5, 8, 12, 24):
        mask = truth.masks(np.array([0]), size)
        assert mask.mean().item() == pytest.approx(24 / 144, abs=1e-6)
        assert mask.min() >= 0 and mask.max() <= 1
    assert truth.masks(np.array([0]), 6)[0].tolist() == (
        torch.nn.functional.avg_pool2d(torch.from_numpy(own[4:5]).float(), 2)[0].tolist()
    )


def test_summary_equals_the_naive_means_and_lists_every_finding():
    truth = random_truth(60)
    values = np.random.default_rng(0).random(60).astype(np.float32)
    result = summarise(values, truth, replicates=100)
    each = result["per_finding"]
    assert list(each) == list(FINDINGS)
    means = {f: values[truth.finding == f].mean() for f in np.unique(truth.finding)}
    for finding, mean in means.items():
        assert each[FINDINGS[finding]].value == pytest.approx(mean)
        assert each[FINDINGS[finding]].n == (truth.finding == finding).sum()
    assert result["macro"].value == pytest.approx(np.mean(list(means.values())))
    assert result["micro"].value == pytest.approx(values.mean())
    assert result["macro"].low < result["macro"].value < result["macro"].high
    assert np.isnan(each["Hernia"].value) and each["Hernia"].n == 0


def test_summary_leaves_undefined_values_out_of_mean_and_count():
    truth = random_truth(30)
    values = np.ones(30)
    values[:10] = np.nan
    result = summarise(values, truth, replicates=20)
    assert (result["micro"].value, result["micro"].n) == (1, 20)


def test_summary_does_not_depend_on_the_order_of_the_images():
    rng = np.random.default_rng(5)
    rows = [(i, int(rng.integers(8)), 0.1, 0.1, 0.5, 0.5) for i in range(40)]
    patients, values = rng.integers(0, 12, 40).astype(str), rng.random(40)
    order = rng.permutation(40)
    moved = [(new, *rows[old][1:]) for new, old in enumerate(order)]
    first = summarise(values, make_truth(rows, patients), replicates=50)
    second = summarise(values[order], make_truth(moved, patients[order]), replicates=50)
    for name in ("macro", "micro"):
        assert second[name].to_json() == pytest.approx(first[name].to_json())


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(4, 8, 8), r"\(4, 8, 8\), expected \(5, h, w\)"),
        (torch.zeros(5, 64), "expected"),
        (torch.full((5, 8, 8), 1.01), "320 of 320"),
        (torch.full((5, 8, 8), float("nan")), "NaN"),
    ],
)
def test_bad_maps_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        score_pairs(maps, random_truth(5), 32)
