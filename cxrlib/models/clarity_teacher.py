"""What guides CLARiTy beside labels: a teacher's answers and an anatomical prior, batch by batch.

A teacher is trained once, with :func:`cxrlib.training.fit`; what it says of the training images is
a predictions file (:func:`cxrlib.inference.predict`), which is kept. :class:`Guided` puts its rows,
and a prior where there is one, beside the images.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxrlib import training
from cxrlib.datasets.base import Batch, CXRDataset, Split
from cxrlib.files import write_atomic
from cxrlib.findings import FINDINGS
from cxrlib.inference import predict
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.encoders import STRIDE, load_timm, refuse_sides
from cxrlib.models.lse_lba import standardize
from cxrlib.pooling import mean_pool
from cxrlib.predictions import Predictions

STAGES = 4
"""Of a ConvNeXt; each has twice the channels of the one before."""

SURE = 1e-6
"""A cached probability is taken to be no nearer to 0 or 1 than this, so that its log-odds exist."""


class Guided(CXRDataset):
    """Radiographs with guidance, to train on; samples are the dataset's own.

    Args:
        dataset: the radiographs.
        teacher: what a teacher says of all of them; None: no teacher.
        read_prior: image id -> (h, w), 0 to 1 or bool, one size for all: the share of each cell
            that may show a finding, such as a mask of lungs and heart; None: no prior.

    Raises:
        ValueError: the teacher has not seen an image, or the first image's prior is none.

    >>> import pandas as pd
    >>> from cxrlib.datasets.base import BOX_COLUMNS
    >>> none, grey = pd.DataFrame(columns=BOX_COLUMNS), np.zeros((8, 8), np.uint8)
    >>> films = CXRDataset("mine", ["a"], ["p"], np.zeros((1, 14)), none, 8, lambda name: grey)
    >>> guided = Guided(films, teacher=Predictions.from_arrays(["a"], np.full((1, 14), 0.5)))
    >>> guided.__getitems__([0]).teacher.shape
    torch.Size([1, 14])
    """

    def __init__(
        self,
        dataset: CXRDataset,
        *,
        teacher: Predictions | None = None,
        read_prior: Callable[[str], np.ndarray] | None = None,
    ) -> None:
        super().__init__(
            dataset.name,
            dataset.image_ids,
            dataset.patient_ids,
            dataset.labels,
            dataset.boxes,
            dataset.image_size,
            dataset.read_pixels,
            dataset.read_masks,
            dataset.views,
            dataset.read_original,
        )
        self.teacher = None if teacher is None else teacher.aligned(dataset)
        self.read_prior = read_prior
        if read_prior is not None:
            refuse_prior(torch.from_numpy(read_prior(str(dataset.image_ids[0]))))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch at ``indices`` with its guidance, for a ``DataLoader``."""
        batch = super().__getitems__(indices)
        if self.teacher is not None:
            scores = torch.from_numpy(self.teacher.scores[indices])
            batch = batch._replace(teacher=scores.logit(eps=SURE))
        if self.read_prior is not None:
            maps = [self.read_prior(name) for name in self.image_ids[indices].tolist()]
            prior = torch.from_numpy(np.stack(maps).astype(np.float32))[:, None]  # (B, 1, h, w)
            batch = batch._replace(prior=prior)
        return batch

    def subset(self, indices: np.ndarray) -> "Guided":
        """The same dataset with only these images, in this order, and their guidance."""
        part = super().subset(indices)
        return Guided(part, teacher=self.teacher, read_prior=self.read_prior)


class Teacher(CXRModule):
    """A ConvNeXt V2 (Woo et al. 2023, arXiv:2301.00808) with class activation maps.

    Args:
        encoder: a ConvNeXt V2 of timm; the tag says which ImageNet weights ``pretrained`` means.
        width: channels of the first stage, doubled in each further one; None: the encoder's.
        depths: blocks of the four stages; None: the encoder's.
        pretrained: start from ImageNet's weights, which are downloaded on first use.
        num_classes: number of findings.
        learning_rate: peak of Adam's schedule.

    Raises:
        ValueError: timm has no such encoder, or it has no weights of this size.
        OSError: the weights are neither in the cache nor can they be downloaded.

    >>> model = Teacher("convnextv2_atto", width=8, depths=(1, 1, 1, 1))
    >>> output = model(torch.rand(2, 1, 64, 64))
    >>> output.logits.shape, output.maps.shape
    (torch.Size([2, 14]), torch.Size([2, 14, 2, 2]))
    """

    def __init__(
        self,
        encoder: str = "convnextv2_base.fcmae_ft_in22k_in1k",
        *,
        width: int | None = None,
        depths: Sequence[int] | None = None,
        pretrained: bool = False,
        num_classes: int = len(FINDINGS),
        learning_rate: float = 1e-4,
    ) -> None:
        super().__init__()
        if not encoder.startswith("convnextv2_"):
            raise ValueError(
                f"encoder = {encoder!r}; a ConvNeXt V2 of timm was expected: 'convnextv2_base'"
            )
        sizes: dict[str, Any] = {} if depths is None else {"depths": tuple(depths)}
        if width is not None:
            sizes["dims"] = tuple(width * 2**stage for stage in range(STAGES))
        if pretrained and sizes:
            raise ValueError(
                f"{sizes} with pretrained=True; ImageNet's weights are of the encoder's own sizes: "
                "leave out width and depths"
            )
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        # Its head without pooling and classifier is a normalization of the map.
        self.encoder = load_timm(
            encoder, pretrained, in_chans=1, num_classes=0, global_pool="", **sizes
        )
        self.head = nn.Conv2d(self.encoder.num_features, num_classes, 1)

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds (B, C) and maps (B, C, H/32, W/32).

        Raises:
            ValueError: a side is not a multiple of 32.
        """
        refuse_sides(images, STRIDE)
        scores = self.head(self.encoder(standardize(images))).float()  # (B, C, H/32, W/32)
        return Output(logits=mean_pool(scores), maps=scores.sigmoid())

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy between the mean of each map and the image label."""
        loss = multilabel_cross_entropy(self(batch.images).logits, batch.labels)
        self.log("loss", loss, batch_size=len(batch.images), on_epoch=True, on_step=False)
        return loss


def teach(
    split: Split,
    folder: Path,
    *,
    network: dict[str, Any],
    epochs: int,
    batch_size: int,
    seed: int,
    accelerator: str = "auto",
    num_workers: int = 0,
) -> Predictions:
    """What a teacher says of the training images; it is trained first, unless it was before.

    Args:
        split: the teacher sees its labels as the student does, and no box.
        folder: of checkpoints and answers, ``predictions.npz``; is made.
        network: arguments of :class:`Teacher`.
        epochs, batch_size, seed, accelerator, num_workers: of :func:`cxrlib.training.fit`.
    """
    answers = folder / "predictions.npz"
    if not answers.exists():
        folder.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        teacher = Teacher(**network)
        how: dict[str, Any] = {"batch_size": batch_size, "accelerator": accelerator}
        how["num_workers"] = num_workers
        training.fit(teacher, split, folder, epochs=epochs, seed=seed, **how)
        said = predict(teacher, split.train, **how)
        write_atomic(answers, said.write)
    return Predictions.read(answers)


def refuse_prior(prior: Tensor) -> None:
    """Raise unless a prior is a map (h, w) of shares from 0 to 1.

    >>> refuse_prior(torch.ones(2, 2))
    """
    if prior.ndim != 2 or not prior.numel() or not ((prior >= 0) & (prior <= 1)).all():
        values = f", {prior.min()} to {prior.max()}" if prior.numel() else ""
        raise ValueError(
            f"a prior of shape {tuple(prior.shape)}{values} was given; one map (h, w) of shares "
            "from 0 to 1 was expected, such as a mask of lungs and heart"
        )
