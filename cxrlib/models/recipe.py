"""PYLON's training recipe, which its baselines share: intensities, augmentation, loss, schedule.

Preechakul et al. 2022 (iScience 25(3):103933) and the released code; what is our reading stands in
``cxrlib/literature/fidelity.csv``.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors

from cxrlib import transforms
from cxrlib.datasets.base import Batch
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.encoders import STRIDE, Normalization

MEAN, SD = 0.4984, 0.2483
"""Of the pixels of ChestX-ray14, 0 to 1; from the released code."""

PATIENCE, FACTOR, LEAST_RATE = 1, 0.2, 1e-6
"""After more than ``PATIENCE`` epochs without a lower validation loss the learning rate is
multiplied by ``FACTOR``; at ``LEAST_RATE`` training ends."""


class RecipeModule(CXRModule):
    """Base of PYLON and its baselines: cross-entropy, Adam, a learning rate that falls on plateaus.

    A network writes its own ``forward`` and sets the attributes.

    Attributes:
        coarsest: side of a cell of the coarsest level, pixels; an image holds at least one.
        has_gap: whether the network normalizes a global average.
        norm: which normalization its decoder has.
    """

    coarsest: int
    has_gap: bool
    norm: Normalization

    def __init__(self, augmentation: Literal["pylon", "upright"], learning_rate: float) -> None:
        super().__init__()
        if augmentation not in ("pylon", "upright"):
            raise ValueError(f"augmentation = {augmentation!r}; 'pylon' or 'upright' was expected")
        self.augmentation = augmentation
        self.learning_rate = learning_rate

    def augment(self, images: Tensor) -> Tensor:
        """The paper's augmentation, drawn anew for each image; or the library's upright one."""
        if self.augmentation == "upright":
            return super().augment(images)
        transform = transforms.augmentation("pylon", images.shape[-1])
        return torch.stack([transform(tv_tensors.Image(image)) for image in images])

    @staticmethod
    def standardize(images: Tensor) -> Tensor:
        """Pixels 0 to 1 -> about zero mean and unit variance over ChestX-ray14."""
        return (images - MEAN) / SD

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy between the pooled maps and the image labels."""
        output: Output = self(batch.images)
        loss = multilabel_cross_entropy(output.logits, batch.labels)
        self.log("loss", loss, batch_size=len(batch.images), on_epoch=True, on_step=False)
        self.log("learning_rate", self._rate(), on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> Any:
        """Adam without weight decay; the learning rate follows the validation loss."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, fused=True)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=FACTOR, patience=PATIENCE
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: Lightning would step after it has saved, and a resumed run would miss a step."""

    def on_train_epoch_end(self) -> None:
        """Step the schedule before the checkpoint is written, so that the checkpoint has it."""
        scheduler: Any = self.lr_schedulers()
        scheduler.step(float(self.trainer.callback_metrics["val_loss"]))
        self._stop_at_least_rate()

    def on_train_start(self) -> None:
        """A run that was killed after its last epoch has nothing left to do."""
        self._stop_at_least_rate()

    def _rate(self) -> float:
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    def _stop_at_least_rate(self) -> None:
        if self._rate() <= LEAST_RATE:
            self.trainer.should_stop = True

    def refuse_shape(self, images: Tensor) -> None:
        """Raise if the network cannot divide or normalize images (B, 1, H, W)."""
        batch, _, height, width = images.shape
        given = f"images of {height} x {width} px were given"
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"{given}; the encoder shrinks {STRIDE} px to one, so an image_size that is a "
                f"multiple of {STRIDE} was expected, such as {-(-height // STRIDE) * STRIDE} px"
            )
        if min(height, width) < self.coarsest:
            raise ValueError(
                f"{given}; a cell of the coarsest level is {self.coarsest} px, so at least as much "
                "was expected: give larger images, or use fewer levels of attention (pa_depth)"
            )
        coarsest = self.coarsest if self.norm == "batch" else STRIDE
        averaged = self.norm == "batch" and self.has_gap
        if self.training and batch * (1 if averaged else cells(images, coarsest)) == 1:
            raise ValueError(
                f"one image of {height} x {width} px was given to train on; batch normalization "
                "needs more than a single value at its coarsest level: give 2 images, batch_size=2"
            )


def cells(images: Tensor, side: int) -> int:
    """How many cells of this side cover one of the images."""
    return math.prod(pixels // side for pixels in images.shape[-2:])
