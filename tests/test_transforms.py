"""Boxes and masks stay on what they show: hundreds of painted rectangles through each transform."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from cxrlib.datasets.base import Sample
from cxrlib.transforms import AUGMENTATIONS, MIRRORING, augment, augmentation

LINEAR, CUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC
FINDING = 4
CASES = 300


def painted(side, corners):
    """A black image with one white rectangle, its box and its mask."""
    x0, y0, x1, y1 = corners
    image = torch.zeros(1, side, side)
    image[:, y0:y1, x0:x1] = 1
    masks = torch.zeros(14, side, side, dtype=torch.bool)
    masks[FINDING] = image[0] > 0
    labels = torch.full((14,), torch.nan)
    labels[FINDING] = 1
    box = torch.tensor([corners], dtype=torch.float32)
    return Sample(image, labels, box, torch.tensor([FINDING]), masks, "00000001_000", "1")


def rectangles(seed, margin=0, least=12):
    """Sides, and whole corners at least ``margin`` pixels from the frame."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for _ in range(CASES):
        side = int(rng.integers(60, 130))
        low = rng.integers(margin, side - margin - least, 2)
        high = [int(rng.integers(start + least, side - margin + 1)) for start in low]
        yield side, (int(low[0]), int(low[1]), *high)


def hull(on):
    """Half-open edges, xyxy, of the pixels that are on."""
    rows, columns = np.flatnonzero(on.any(1)), np.flatnonzero(on.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def edges(profile):
    """Where a blurred step up and a blurred step down lie, to a fraction of a pixel."""
    width = profile.sum()
    centre = ((np.arange(len(profile)) + 0.5) * profile).sum() / width
    return centre - width / 2, centre + width / 2


def shown(image, box):
    """Edges, xyxy, of the white rectangle around the middle of a box."""
    x, y = (int((box[axis] + box[axis + 2]) / 2) for axis in (0, 1))
    (x0, x1), (y0, y1) = edges(image[y]), edges(image[:, x])
    return np.array([x0, y0, x1, y1])


AXIS_ALIGNED = {
    "reduce": lambda side: v2.Resize((37, 41)),
    "enlarge": lambda side: v2.Resize((200, 173)),
    "resize cubic": lambda side: v2.Resize((90, 90), CUBIC),
    "resize the longer edge": lambda side: v2.Resize(None, max_size=77),
    "crop": lambda side: v2.RandomCrop(side - 9),
    "resized crop": lambda side: v2.RandomResizedCrop(96, scale=(0.4, 1), interpolation=CUBIC),
    "mirror": lambda side: v2.RandomHorizontalFlip(0.5),
    "turn upside down": lambda side: v2.RandomVerticalFlip(0.5),
    "shift": lambda side: v2.RandomAffine(0, translate=(0.3, 0.3), interpolation=LINEAR),
    "zoom": lambda side: v2.RandomAffine(0, scale=(0.7, 1.4), interpolation=LINEAR),
    "shift and zoom": lambda side: v2.RandomAffine(
        0, translate=(0.1, 0.1), scale=(0.8, 1.2), interpolation=LINEAR
    ),
    "pad": lambda side: v2.Pad([3, 0, 7, 11]),
    "quarter turn": lambda side: v2.RandomRotation((90, 90), LINEAR),
    "ham": lambda side: augmentation("ham", 96),
}


@pytest.mark.parametrize("name", AXIS_ALIGNED)
def test_boxes_and_masks_stay_within_half_a_pixel(name):
    compared = 0
    for side, corners in rectangles(seed=len(name)):
        after = augment(painted(side, corners), AXIS_ALIGNED[name](side))
        mask = after.masks[FINDING].numpy()
        if not len(after.boxes):
            assert not mask.any() or min(hull(mask)[2:] - hull(mask)[:2]) <= 1
            continue
        box = after.boxes[0].numpy()
        assert np.abs(hull(mask) - box).max() <= 0.501, (side, corners)
        if min(box[2:] - box[:2]) >= 4:  # narrower ones blur to grey
            compared += 1
            assert np.abs(shown(after.image[0].numpy(), box) - box).max() <= 0.5, (side, corners)
    assert compared > 0.7 * CASES


def depth_of(x, y, corners):
    """How far inside a rectangle points lie, pixels; negative outside."""
    x0, y0, x1, y1 = corners
    return np.minimum.reduce([x - x0, x1 - x, y - y0, y1 - y])


def test_a_rotated_box_is_the_upright_hull_of_its_corners():
    rng = np.random.default_rng(0)
    kept = 0
    for side, (x0, y0, x1, y1) in rectangles(seed=0):
        degrees = rng.uniform(-90, 90)
        transform = v2.RandomRotation((degrees, degrees), LINEAR)
        after = augment(painted(side, (x0, y0, x1, y1)), transform)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn = np.array([[cos, sin], [-sin, cos]])  # counter-clockwise; the y axis points down
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - side / 2
        turned = corners @ turn.T + side / 2
        expected = np.concatenate([turned.min(0), turned.max(0)]).clip(0, side)
        if (expected[2:] - expected[:2] < 1).any():
            continue
        kept += 1
        np.testing.assert_allclose(after.boxes[0], expected, atol=1e-3)
        down, across = np.indices((side, side)) + 0.5 - side / 2  # pixel centres, turned back:
        x, y = cos * across - sin * down + side / 2, sin * across + cos * down + side / 2
        depth = depth_of(x, y, (x0, y0, x1, y1))
        for on in (after.image[0].numpy() > 0.5, after.masks[FINDING].numpy()):
            assert on[depth > 0.5].all()
            assert not on[depth < -0.5].any()
    assert kept > 0.8 * CASES


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_image_box_and_mask_get_the_same_draw(name):
    compared = 0
    for side, corners in rectangles(seed=1, margin=12):
        after = augment(painted(side, corners), augmentation(name, 64))
        image, mask = after.image, after.masks[FINDING].float()[None]
        dark, bright = image.aminmax()
        if not len(after.boxes) or bright - dark < 0.1:  # the exposure may drown the rectangle
            continue
        compared += 1
        on = (image > (dark + bright) / 2).float()
        grown, shrunk = max_pool2d(mask, 3, 1, 1), 1 - max_pool2d(1 - mask, 3, 1, 1)
        assert (on <= grown).all(), (side, corners)
        assert (on >= shrunk).all(), (side, corners)
        x0, y0, x1, y1 = after.boxes[0].numpy()
        left, top, right, bottom = hull(mask[0].numpy())
        assert min(left - x0, top - y0, x1 - right, y1 - bottom) >= -1.001  # resampled twice
    assert compared > 0.7 * CASES


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_only_the_papers_that_mirror_show_a_mirrored_chest(name):
    """Three findings make a triangle; mirroring it, and nothing else here, reverses its sense."""
    sample = painted(96, (0, 0, 1, 1))
    for finding, (row, column) in enumerate([(36, 36), (36, 54), (54, 36)]):
        sample.masks[finding, row : row + 6, column : column + 6] = True
    torch.manual_seed(0)
    mirrored = []
    for _ in range(CASES):
        masks = augment(sample, augmentation(name, 64)).masks
        heart, right, below = (mask.nonzero().float().mean(0) for mask in masks[:3])
        (a, b), (c, d) = (right - heart).tolist(), (below - heart).tolist()
        mirrored.append(a * d - b * c > 0)
    share = np.mean(mirrored)
    assert 0.4 < share < 0.6 if name in MIRRORING else share == 0


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [32, 100])
def test_every_augmentation_gives_a_whole_sample(name, size):
    before = painted(64, (10, 20, 30, 50))
    image = torch.from_numpy(np.random.default_rng(0).random((1, 64, 64), np.float32))
    before = dataclasses.replace(before, image=image)
    copy = pickle.loads(pickle.dumps(before))
    transform = pickle.loads(pickle.dumps(augmentation(name, size)))  # loader processes are sent it
    torch.manual_seed(3)
    for _ in range(20):
        after = augment(before, transform)
        assert type(after.image) is type(after.boxes) is type(after.masks) is torch.Tensor
        assert after.image.shape == (1, size, size)
        assert after.image.dtype == torch.float32
        assert 0 <= after.image.min() < after.image.max() <= 1
        assert after.masks.shape == (14, size, size)
        assert after.masks.dtype == torch.bool
        assert len(after.boxes) == len(after.box_findings)
        assert 0 <= after.boxes.min() <= after.boxes.max() <= size
    assert after.labels is before.labels
    assert (after.image_id, after.patient_id) == (before.image_id, before.patient_id)
    for field in ("image", "boxes", "masks"):
        assert torch.equal(getattr(before, field), getattr(copy, field)), field


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_seed_decides_the_draw(name):
    sample, transform = painted(64, (10, 20, 30, 50)), augmentation(name, 64)
    images = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        images.append(torch.stack([augment(sample, transform).image for _ in range(4)]))
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_a_box_that_leaves_the_frame_is_dropped_with_its_finding():
    boxes = [(0, 0, 16.5, 64), (0, 0, 17.5, 64), (20, 30, 40, 47.9), (30, 47, 40, 60)]
    sample = dataclasses.replace(
        painted(64, (0, 0, 8, 8)),
        boxes=torch.tensor(boxes, dtype=torch.float32),
        box_findings=torch.tensor([0, 1, 2, 3]),
    )
    after = augment(sample, v2.CenterCrop(32))  # columns and rows 16 to 48
    assert after.box_findings.tolist() == [1, 2, 3]
    assert after.boxes[0].tolist() == [0, 0, 1.5, 32]
    assert after.boxes[2].tolist() == [14, 31, 24, 32]
    assert torch.equal(after.labels.nan_to_num(0), sample.labels.nan_to_num(0))
    assert not after.masks.any()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_sample_without_boxes_and_masks(name):
    sample = dataclasses.replace(
        painted(64, (10, 20, 30, 50)),
        boxes=torch.zeros(0, 4),
        box_findings=torch.zeros(0, dtype=torch.int64),
        masks=None,
    )
    after = augment(sample, augmentation(name, 48))
    assert after.image.shape == (1, 48, 48)
    assert after.boxes.shape == (0, 4)
    assert after.box_findings.shape == (0,)
    assert after.box_findings.dtype == torch.int64
    assert after.masks is None


def test_pylon_exposes_half_of_the_images_anew():
    torch.manual_seed(0)
    grey = dataclasses.replace(painted(64, (24, 24, 40, 40)), image=torch.full((1, 64, 64), 0.5))
    after = [augment(grey, augmentation("pylon", 64)) for _ in range(CASES)]
    greys = torch.stack([sample.image[0, 31, 31] for sample in after])
    unchanged = (greys - 0.5).abs() < 1e-4
    assert 0.4 < unchanged.float().mean() < 0.6
    assert greys[~unchanged].std() > 0.2


def test_bad_names_and_sizes_are_refused():
    hint = r"no augmentation 'pylone'; did you mean 'pylon'\? Valid: lse_lba, attention_mining, ham"
    with pytest.raises(ValueError, match=hint):
        augmentation("pylone", 64)
    with pytest.raises(ValueError, match="size is 0; give the side of the result, at least 1 pix"):
        augmentation("ham", 0)
