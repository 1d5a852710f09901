"""What every paper's model shares: its output, augmentation, validation and optimizer."""

from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from cxrlib.datasets.base import Batch, scaled
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.transforms import random_affine


class Output(NamedTuple):
    """What a network says of a batch.

    Attributes:
        logits: (B, C) log-odds of each finding, float32.
        maps: (B, C, h, w) saliency, 0 to 1.
    """

    logits: Tensor
    maps: Tensor


class CXRModule(pl.LightningModule):
    """Base of the papers' models: augmentation, validation loss, Adam with a one-cycle schedule.

    ``weight_decay`` is AdamW's; at zero AdamW is Adam.

    A paper's module writes its own ``forward`` (images (B, 1, H, W) -> :class:`Output`) and
    ``training_step``, and where the paper has another ``augment`` or ``configure_optimizers``.
    """

    learning_rate: float
    weight_decay: float = 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the class, whose arguments Lightning stores: see :mod:`cxrlib.checkpoints`."""
        checkpoint["model_class"] = type(self).__name__

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move the images as bytes, then make them floats."""
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch._replace(images=scaled(batch.images))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment on the device the model is on."""
        if self.trainer.training:
            return batch._replace(images=self.augment(batch.images))
        return batch

    def augment(self, images: Tensor) -> Tensor:
        """Float (B, 1, H, W) -> the same shape, changed at random; a paper may have its own way."""
        return random_affine(images)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the classification loss, which chooses the checkpoint."""
        loss = multilabel_cross_entropy(self(batch.images).logits, batch.labels)
        self.log("val_loss", loss, batch_size=len(batch.images), on_epoch=True)

    def groups(self) -> list[dict[str, Any]]:
        """Groups of parameters, each with its peak learning rate."""
        return [{"params": self.parameters(), "lr": self.learning_rate}]

    def configure_optimizers(self) -> Any:
        """The learning rates rise to their peaks and anneal to zero."""
        groups = self.groups()
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
