"""Where findings may be: CLARiTy's anatomical prior, of the phantom, of a segmenter, of a folder.

The paper names explicit anatomical priors; that they are masks of lungs and heart is our reading.
The phantom's are known. ChestX-ray14 has none: a small U-Net (Ronneberger et al. 2015,
arXiv:1505.04597) that has seen the phantom's organs, and no real image, says where they are; how
well, only pictures and proxies such as :func:`share_inside` can tell. Who has masks gives their
folder.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cxrlib import datasets
from cxrlib.datasets.base import CXRDataset, Split, Truth, scaled
from cxrlib.files import write_atomic
from cxrlib.findings import FINDINGS
from cxrlib.inference import loader
from cxrlib.metrics.bootstrap import Estimate, patient_weights
from cxrlib.models.clarity_presets import CHESTS, PRESETS
from cxrlib.models.encoders import quiet_import
from cxrlib.models.lse_lba import standardize
from cxrlib.phantom.organs import ORGANS, organs_of
from cxrlib.provenance import git_commit
from cxrlib.training import EpochSampler
from cxrlib.transforms import random_affine, random_exposure

LEARNING_RATE = 3e-3
"""Peak of Adam's one-cycle schedule."""


def by_image(image_ids: Iterable[str], maps: np.ndarray) -> Callable[[str], np.ndarray]:
    """Maps (N, h, w) by image id, for :class:`cxrlib.models.clarity_teacher.Guided`.

    >>> by_image(["a"], np.ones((1, 2, 2), bool))("a").all()
    np.True_
    """
    return dict(zip(map(str, image_ids), maps, strict=True)).__getitem__


def from_folder(folder: Path | str, size: int) -> Callable[[str], np.ndarray]:
    """Masks of one's own: ``<image id>.png``, white where a finding may be.

    Args:
        folder: of the files; they may be of any size, square as the images are.
        size: pixels per side to bring them to.

    Returns:
        image id -> float32 (size, size), 0 to 1.

    Raises:
        FileNotFoundError: when asked for an image without a file; the message names the file.
    """

    def read(image_id: str) -> np.ndarray:
        path = Path(folder).expanduser() / f"{image_id}.png"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; a folder of masks holds <image id>.png for every image "
                "of the training part, white where a finding may be"
            )
        with Image.open(path) as file:
            mask = file.convert("L").resize((size, size), Image.Resampling.BOX)
        return np.asarray(mask, np.float32) / 255

    return read


class Segmenter(nn.Module):
    """A small U-Net for lungs and heart.

    >>> Segmenter()(torch.rand(1, 1, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    """

    def __init__(self) -> None:
        super().__init__()
        with quiet_import():
            import segmentation_models_pytorch as smp
        self.network = smp.Unet(
            "tu-resnet18",
            encoder_depth=4,
            encoder_weights=None,
            decoder_channels=(48, 32, 24, 16),
            in_channels=1,
            classes=len(ORGANS),
            channels=(16, 32, 64, 128),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (B, 1, H, W), 0 to 1, sides multiples of 16 -> log-odds (B, 2, H, W)."""
        return self.network(standardize(images))


def fit_segmenter(
    dataset: CXRDataset, masks: np.ndarray, *, epochs: int, batch_size: int = 16, seed: int = 0
) -> Segmenter:
    """Train a segmenter from scratch; images are turned, moved, and exposed differently.

    Args:
        dataset: N images.
        masks: bool (N, 2, h, w), of any size, as :func:`cxrlib.phantom.organs.organs_of` gives.
        epochs: passes over the images.
        batch_size: images per step.
        seed: of weights, order and augmentation.

    Returns:
        the segmenter in evaluation mode.
    """
    torch.manual_seed(seed)
    model = Segmenter()
    truth = torch.from_numpy(masks).float()
    steps = epochs * (len(dataset) // batch_size)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    sampler = EpochSampler(len(dataset), seed)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        order = torch.tensor(list(sampler))
        for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
            images = scaled(dataset.__getitems__(rows.tolist()).images)  # (B, 1, H, W)
            target = F.interpolate(truth[rows], images.shape[-2:], mode="bilinear")
            moved = random_affine(torch.cat([images, target], dim=1))
            images, target = moved.split([1, len(ORGANS)], dim=1)
            loss = F.binary_cross_entropy_with_logits(model(random_exposure(images)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def segment(model: nn.Module, dataset: CXRDataset, size: int, batch_size: int = 64) -> np.ndarray:
    """What a segmenter says of all images.

    Args:
        model: a trained :class:`Segmenter`.
        dataset: N images.
        size: pixels per side of the answer, at most that of the images.
        batch_size: images per step.

    Returns:
        float32 (N, 2, size, size), 0 to 1.
    """
    said = []
    with torch.inference_mode():
        for batch in loader(dataset, batch_size, 0):
            organs = model(scaled(batch.images)).sigmoid()  # (B, 2, H, W)
            said.append(F.adaptive_avg_pool2d(organs, size).numpy())
    return np.concatenate(said)


def dice(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Dice of masks (..., h, w), image by image; NaN where both are empty.

    >>> dice(np.array([[[1, 1, 0]]]), np.array([[[0, 1, 0]]])).round(2).tolist()
    [0.67]
    """
    one, other = np.asarray(one, bool), np.asarray(other, bool)
    both = 2.0 * (one & other).sum(axis=(-2, -1))
    total = (one.sum(axis=(-2, -1)) + other.sum(axis=(-2, -1))).astype(float)
    return np.divide(both, total, out=np.full_like(total, np.nan), where=total > 0)


def share_inside(truth: Truth, masks: np.ndarray) -> np.ndarray:
    """Share of the boxes of each (image, finding) pair that lies inside its image's mask.

    Args:
        truth: P pairs.
        masks: bool (N, h, w), of all images of its dataset.

    Returns:
        float64 (P,), 0 to 1.
    """
    size = masks.shape[-1]
    boxes = truth.masks(np.arange(len(truth)), size).double()  # (P, h, w)
    inside = boxes * torch.from_numpy(masks[truth.image])
    return (inside.sum(dim=(1, 2)) / boxes.sum(dim=(1, 2))).numpy()


def mean_over_patients(values: np.ndarray, patients: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of one number per image, with its 95 % interval over patients; NaN is left out.

    Args:
        values: float (N,).
        patients: (N,) strings.
        seed: of the bootstrap.

    >>> mean_over_patients(np.array([0.5, 0.7]), np.array(["a", "a"]))
    Estimate(value=0.6, low=0.6, high=0.6, n=2)
    """
    known = ~np.isnan(values)
    values, drawn = values[known], patient_weights(patients[known], seed=seed)
    cases, row = np.arange(len(values)), np.zeros(len(values), int)
    sums, counts = drawn.gather(row, 1, cases, values), drawn.gather(row, 1, cases)
    return Estimate.of(drawn.apply(lambda c: (sums @ c) / (counts @ c))[0], len(values))


def trust(
    nih: Split, phantom: Split, phantom_seed: int, options: dict[str, Any], epochs: int
) -> pd.DataFrame:
    """How far a segmenter that has learned from the phantom can be trusted on real radiographs.

    Args:
        nih: ChestX-ray14; the test part has official boxes.
        phantom: to learn from, in images of the same size.
        phantom_seed, options: given to :func:`cxrlib.phantom.dataset.load` for it.
        epochs: passes over its training images.

    Returns:
        a row for each number: what, of, value, low, high (over patients), n. The Dice with the
        organs of the phantom's test images; of the official boxes the share inside the predicted
        lungs and heart and, as controls, inside those of the next image, and the share of the
        image that they cover.
    """
    size = nih.test.image_size
    masks = organs_of(phantom.train, size, phantom_seed, options)
    model = fit_segmenter(phantom.train, masks, epochs=epochs, seed=phantom_seed)
    rows = []
    overlap = dice(
        segment(model, phantom.test, size) > 0.5,
        organs_of(phantom.test, size, phantom_seed, options),
    )  # (N, 2)
    for organ, values in zip(ORGANS, overlap.T, strict=True):
        number = mean_over_patients(values, phantom.test.patient_ids)
        rows.append({"what": "Dice on the phantom", "of": organ} | number.to_json())
    truth = Truth(nih.test)
    boxed = nih.test.subset(np.unique(truth.image))
    truth = Truth(boxed)
    inside = np.any(segment(model, boxed, size) > 0.5, axis=1)  # (N, H, W)
    shares = {
        "box inside its patient's organs": share_inside(truth, inside),
        "box inside the next image's organs": share_inside(truth, np.roll(inside, 1, axis=0)),
        "image covered by organs": inside.mean(axis=(1, 2))[truth.image],
    }
    for what, values in shares.items():
        for name in (*np.unique(truth.finding), None):
            here = slice(None) if name is None else truth.finding == name
            number = mean_over_patients(values[here], truth.patient[here])
            of = "all boxes" if name is None else FINDINGS[name]
            rows.append({"what": what, "of": of} | number.to_json())
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Write the table of :func:`trust`, with preset ``quick``: folder of ChestX-ray14, table."""
    folder, table = arguments or sys.argv[1:]
    settings = PRESETS["quick"]
    size, recipe = settings["image_size"], dict(settings["segmenter"])
    epochs = recipe.pop("epochs")
    phantom = datasets.load("phantom", None, size, seed=0, **CHESTS, **recipe)
    nih = datasets.load("nih", folder, size)
    found = trust(nih, phantom, 0, CHESTS, epochs)
    found = found.assign(seed=0, epochs=epochs, image_size=size, data_hash=nih.data_hash)
    found = found.assign(phantom_hash=phantom.data_hash, commit=git_commit())
    write_atomic(Path(table), lambda file: file.write(found.to_csv(index=False).encode()))


if __name__ == "__main__":
    main()
