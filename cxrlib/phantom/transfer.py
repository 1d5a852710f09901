"""From the phantom to patients: a network trained on phantom images alone, scored on real boxes.

``python -m cxrlib.phantom.transfer --data-dir <ChestX-ray14 folder> --run-dir <folder>`` draws the
phantom, trains on its image labels, and scores the maps on every official box of the folder's test
images. No real image, box or label takes part before the scoring; what the phantom knows of the
official boxes are their quantiles (:mod:`cxrlib.phantom.targets`), as much as the location prior
knows.
"""

import argparse
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from cxrlib import datasets, metrics, runs, training
from cxrlib.datasets.base import Batch, Split
from cxrlib.files import digest
from cxrlib.findings import FINDINGS
from cxrlib.inference import predict
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.lse_lba import down, standardize
from cxrlib.parameters import Parameters
from cxrlib.pooling import LSELBAPool
from cxrlib.transforms import random_exposure

SETTINGS: dict[str, Any] = {
    "image_size": 128,
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "width": 32,
    "r0": 15.0,
    "phantom": {"n_train": 8000, "n_val": 300, "n_test": 60, "prevalence": 0.2},
}
"""Of the committed run."""


@dataclass(frozen=True, kw_only=True)
class TransferParameters(Parameters):
    """Parameters of a run of this module; dataset and data_dir are what is scored."""

    width: int
    r0: float


class PatchNet(CXRModule):
    """A network whose every place judges only its surroundings, and knows where in the image it is.

    A network that overlooks the whole image may take its evidence for an effusion from the abdomen,
    where image labels never forbid it, and point there. Here a place of the map sees 72 of 128
    pixels (cf. Brendel & Bethge, *BagNets*, ICLR 2019), and two channels hold its coordinates (Liu
    et al., *CoordConv*, NeurIPS 2018). A locally contrast-normalised copy of the image makes films
    of different exposure and processing alike.

    Args:
        width: channels at stride 2; they double with the resolution's every halving.
        r0: lower bound of the sharpness of the pooling, :class:`cxrlib.pooling.LSELBAPool`.
        learning_rate: peak of AdamW's schedule.

    >>> PatchNet(width=4)(torch.rand(2, 1, 64, 64)).maps.shape
    torch.Size([2, 14, 8, 8])
    """

    weight_decay = 0.01

    def __init__(self, width: int = 32, r0: float = 15.0, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.features = nn.Sequential(
            nn.Conv2d(4, width, 6, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            BasicBlock(width, width),
            down(width, 2 * width),
            BasicBlock(2 * width, 2 * width),
            down(2 * width, 4 * width),
            nn.Conv2d(4 * width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(4 * width, len(FINDINGS), 1, bias=False)
        self.bias = nn.Parameter(torch.full((len(FINDINGS), 1, 1), -2.0))  # findings are rare
        self.pool = LSELBAPool(r0)

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds and maps at stride 8."""
        inputs = torch.cat(
            [standardize(images), normalize_locally(images), coordinates(images)], dim=1
        )  # (B, 4, H, W)
        scores = (self.head(self.features(inputs)) + self.bias).float()  # (B, C, H/8, W/8)
        return Output(logits=self.pool.log_odds(scores), maps=scores.sigmoid())

    def configure_callbacks(self) -> list[Callback]:
        """What is validated, kept and scored is a running mean of the weights of some 500 steps."""
        return [EMAWeightAveraging(decay=0.998)]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Move, turn and zoom images as all models do, and change their exposure."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer.training:
            return batch._replace(images=random_exposure(batch.images))
        return batch

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy between the pooled probabilities and the image labels."""
        loss = multilabel_cross_entropy(self(batch.images).logits, batch.labels)
        self.log("loss", loss, batch_size=len(batch.images), on_epoch=True, on_step=False)
        return loss


def normalize_locally(images: Tensor) -> Tensor:
    """Difference from the local mean, over the local standard deviation; float32 (B, 1, H, W).

    Neighbourhoods are Gaussian, a sixteenth of the image wide for the mean.
    """
    sigma = images.shape[-1] / 16
    centred = images - blur(images, sigma)
    return (centred / (blur(centred**2, 1.5 * sigma).sqrt() + 0.02)).clamp(-4, 4)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, sigma in pixels, mirrored at the border: (B, 1, H, W) -> the same."""
    reach = int(3 * sigma)
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.softmax(-((steps / sigma) ** 2) / 2, dim=0)
    padded = nn.functional.pad(images, (reach,) * 4, mode="reflect")
    across = nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return nn.functional.conv2d(across, kernel.view(1, 1, -1, 1))


def coordinates(images: Tensor) -> Tensor:
    """Two channels, x and y from -1 to 1: (B, 1, H, W) -> (B, 2, H, W)."""
    batch, _, height, width = images.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([x, y]).to(images).expand(batch, -1, -1, -1)


def load(parameters: TransferParameters, settings: dict[str, Any]) -> Split:
    """Phantom patients to train on, all test images of a real release to score on."""
    size, seed = settings["image_size"], parameters.seed
    drawn = datasets.load("phantom", None, size, seed=seed, **settings["phantom"])
    real = datasets.load("nih", parameters.data_dir, size, seed=seed)
    return dataclasses.replace(
        drawn,
        test=real.test,
        data_hash=digest(drawn.data_hash, real.data_hash),
        notes=("Trained on a digital phantom alone, scored on real radiographs.",),
    )


def run(parameters: TransferParameters) -> Path:
    """Train and score; the run folder is like a notebook's, and resumes as one does.

    Raises:
        OSError: the real images are absent or damaged, or the run folder cannot be written.
        ValueError: a parameter is out of its range.
    """
    settings = {**SETTINGS, **dataclasses.asdict(parameters)}
    split = load(parameters, settings)
    opened = runs.start("phantom_transfer", parameters, settings, split)
    torch.manual_seed(parameters.seed)
    model = PatchNet(parameters.width, parameters.r0, settings["learning_rate"])
    history = training.fit(
        model,
        split,
        opened.workspace,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        seed=parameters.seed,
        accelerator=parameters.accelerator,
    )
    begin = time.monotonic()
    predictions = predict(model, split.test, batch_size=64, accelerator=parameters.accelerator)
    results = metrics.evaluate(predictions, split.test, seed=parameters.seed)
    seconds = {"train": history["seconds"].sum(), "evaluate": time.monotonic() - begin}
    return opened.finish(results, seconds, predictions)


def parameters_of(arguments: list[str] | None = None) -> TransferParameters:
    """Parameters from the words of a command line."""
    parser = argparse.ArgumentParser(prog="python -m cxrlib.phantom.transfer", description=__doc__)
    parser.add_argument("--data-dir", required=True, help="real radiographs, as ChestX-ray14")
    parser.add_argument("--run-dir", help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--accelerator", default="auto", choices=["auto", "cpu", "gpu", "mps"])
    chosen = parser.parse_args(arguments)
    names = ("image_size", "batch_size", "learning_rate", "width", "r0")
    return TransferParameters(
        preset="quick",
        dataset="nih",
        data_dir=chosen.data_dir,
        run_dir=chosen.run_dir,
        seed=chosen.seed,
        epochs=chosen.epochs,
        accelerator=chosen.accelerator,
        num_workers=0,
        **{name: SETTINGS[name] for name in names},
    )


def main(arguments: list[str] | None = None) -> None:
    """Train, score, and name the folder of the results."""
    print(run(parameters_of(arguments)))


if __name__ == "__main__":
    main()
