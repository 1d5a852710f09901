"""Iterative attention mining: hide what the network looks at, and it has to look elsewhere too.

Cai, Lu, Harrison, Shi, Chen, Yang, "Iterative Attention Mining for Weakly Supervised Thoracic
Disease Pattern Localization in Chest X-Rays", MICCAI 2018, LNCS 11071:589-598 (arXiv:1807.00958).

A classifier f_0 with class activation maps (CAM) finds what tells findings apart best, often only a
part of a lesion. In step t of attention mining (AM) a copy f_t of its predecessor must name the
finding also when what f_0 ... f_(t-1) looked at is hidden. Left alone it would turn to unrelated
parts and forget, so knowledge preservation (KP) holds it to what f_0 answers to the whole image.
Multi-scale aggregation (MSA) adds finer features, for small findings. The final map is the union of
all steps' maps. :mod:`cxrlib.models.mining_network` is the network of a step,
:mod:`cxrlib.models.mining_stages` trains f_0, f_1, ... in turn.

Only the abstract was at hand, and no code was released: what is the paper's and what is our reading
stands in ``cxrlib/literature/fidelity.csv``.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrlib import saliency
from cxrlib.datasets.base import Batch
from cxrlib.findings import FINDINGS
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.mining_network import CAMNetwork, Response
from cxrlib.models.recipe import MEAN
from cxrlib.parameters import nearest

Erase = Literal["features", "image"]
Preserve = Literal["features", "responses", "both"]
Union = Literal["max", "mean"]


class AttentionMining(CXRModule):
    """The method: networks f_0 to f_T, of which one is trained while those before it are frozen.

    Args:
        steps: T, of attention mining; at 0 the model is a classifier with its CAM.
        msa: whether features at all ``strides`` are aggregated (maps have the finest), or those
            at the coarsest are used alone.
        strides: of the encoder's features, among 4, 8, 16 and 32, ascending; the encoder ends with
            the last of them.
        tau: a cell is erased where a map reaches this share of its maximum, above 0 to 1.
        erase: hide cells of the ``"features"``, or the pixels they stand for (``"image"``).
        kp_weight: lambda, of knowledge preservation, >= 0; 0 is attention mining without it.
        kp_on: what of the answer is preserved: ``"features"`` (their means), ``"responses"`` (the
            logits) or ``"both"``.
        union: of the steps' maps, ``"max"`` or ``"mean"``.
        pooling: of the maps of logits, see :func:`cxrlib.pooling.logit_pooling`; ``"mean"`` is CAM.
        num_classes: number of findings.
        stem: of the encoder, see :func:`cxrlib.models.encoders.resnet`.
        encoder, width, pretrained: as in :class:`cxrlib.models.pylon.PYLON`; aggregated features
            have 4 times the width.
        learning_rate: peak of Adam's schedule for the base network.
        mining_rate: the peak in each mining step, as a share of ``learning_rate``.

    Attributes:
        networks: f_0 to f_T.
        step: t, of the network that is trained, and the last one that is asked; see :meth:`begin`.

    Raises:
        ValueError: an argument is out of its range.

    >>> model = AttentionMining(steps=1, encoder="resnet18", width=16)
    >>> output = model(torch.rand(2, 1, 64, 64))
    >>> output.logits.shape, output.maps.shape
    (torch.Size([2, 14]), torch.Size([2, 14, 8, 8]))
    """

    def __init__(
        self,
        *,
        steps: int = 3,
        msa: bool = True,
        strides: Sequence[int] = (8, 16, 32),
        tau: float = 0.5,
        erase: Erase = "features",
        kp_weight: float = 1.0,
        kp_on: Preserve = "both",
        union: Union = "max",
        pooling: str = "mean",
        num_classes: int = len(FINDINGS),
        encoder: str = "resnet50.tv_in1k",
        width: int = 64,
        stem: int | None = None,
        pretrained: bool = False,
        learning_rate: float = 1e-4,
        mining_rate: float = 0.1,
    ) -> None:
        super().__init__()
        refuse_numbers(steps, tau, kp_weight)
        for given, kind in ((erase, Erase), (kp_on, Preserve), (union, Union)):
            if given not in get_args(kind):
                raise ValueError(f"{given!r} was given; {nearest(given, [*get_args(kind)])}")
        self.save_hyperparameters()
        self.tau, self.erase, self.union = tau, erase, union
        self.kp_weight, self.kp_on = kp_weight, kp_on
        self.rates = learning_rate, learning_rate * mining_rate
        base = CAMNetwork(num_classes, encoder, width, pretrained, msa, strides, pooling, stem)
        self.networks: Any = nn.ModuleList([base, *(copy.deepcopy(base) for _ in range(steps))])
        self.begin(steps)

    def begin(self, step: int) -> None:
        """Make f_t, ``step`` = t, the network that is trained: it starts as f_(t-1)."""
        self.step = step
        f = self.networks[step]
        if step:
            f.load_state_dict(self.networks[step - 1].state_dict())
        self.networks.requires_grad_(False)
        f.requires_grad_(True)
        self.learning_rate = self.rates[min(step, 1)]
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As usual, but in mining steps batch normalization keeps the base network's statistics.

        So f_t answers as f_(t-1) before its first update, and hidden images do not change how whole
        ones are normalized.
        """
        super().train(mode)
        if self.step:
            self.networks.eval()
        return self

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds (B, C) of f_t and maps (B, C, h, w).

        Raises ValueError where the encoder cannot divide this size.
        """
        logits, maps = self.by_step(images)
        return Output(logits[-1], maps.amax(dim=0) if self.union == "max" else maps.mean(dim=0))

    def by_step(self, images: Tensor) -> Output:
        """As ``forward``, of each network by itself: (t + 1, B, C) and (t + 1, B, C, h, w)."""
        answers = [f.answer(f(images)) for f in self.networks[: self.step + 1]]
        return Output(torch.stack([a.logits for a in answers]), unit_maps(answers))

    def losses(self, batch: Batch, chosen: Tensor) -> dict[str, Tensor]:
        r"""The loss :math:`L(y, f_t(x)) + L(y, f_t(x \odot (1 - E_t))) + \lambda L_{KP}` of f_t.

        Args:
            batch: images float32 (B, 1, H, W), 0 to 1, and labels (B, C).
            chosen: int64 (B,), the finding whose cells are hidden, -1 for none.

        Returns:
            scalars: ``loss`` and, of a mining step, its terms ``whole``, ``hidden``, ``kp``.
        """
        x, f = batch.images, self.networks[self.step]
        A = f(x)
        answer = f.answer(A)
        whole = multilabel_cross_entropy(answer.logits, batch.labels)
        if not self.step:
            return {"loss": whole}
        with torch.no_grad():
            before = [g.answer(g(x)) for g in self.networks[: self.step]]
            E = erased_sets(unit_maps(before), chosen, self.tau)[-1]  # E_t: (B, 1, h, w)
        if self.erase == "features":
            A = A.masked_fill(E, 0)
        else:
            pixels = F.interpolate(E.float(), size=x.shape[-2:]) > 0
            A = f(x.masked_fill(pixels, MEAN))
        hidden = multilabel_cross_entropy(f.answer(A).logits, batch.labels)
        kp = distance(answer, before[0], self.kp_on)
        loss = whole + hidden + self.kp_weight * kp
        return {"loss": loss, "whole": whole, "hidden": hidden, "kp": kp}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of f_t, with one finding of each image hidden, drawn at random."""
        losses = self.losses(batch, one_present(batch.labels))
        self.log_dict(losses, batch_size=len(batch.images), on_epoch=True, on_step=False)
        return losses["loss"]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the same loss, which chooses the checkpoint; each epoch hides the same findings."""
        generator = torch.Generator(batch.labels.device).manual_seed(batch_index)
        loss = self.losses(batch, one_present(batch.labels, generator))["loss"]
        self.log("val_loss", loss, batch_size=len(batch.images), on_epoch=True)


def unit_maps(answers: list[Response]) -> Tensor:
    """Maps of n networks, 0 to 1, each relative to its maximum: (n, B, C, h, w)."""
    return saliency.unit_maps(torch.stack([answer.M for answer in answers]))


def erased_sets(maps: Tensor, chosen: Tensor, tau: float) -> Tensor:
    r"""What each step hides, :math:`E_t = E_{t-1} \cup \{M_c^{t-1} \ge \tau\}`, :math:`E_0 = \{\}`.

    Args:
        maps: (t, B, C, h, w), 0 to 1, of f_0 to f_(t-1).
        chosen: int64 (B,), the finding c of each image, -1 for none: nothing is hidden.
        tau: above 0 to 1.

    Returns:
        bool (t, B, 1, h, w), E_1 to E_t.

    >>> maps = torch.tensor([[1.0, 0.4, 0.0], [0.2, 1.0, 0.0]]).view(2, 1, 1, 1, 3)
    >>> erased_sets(maps, torch.tensor([0]), tau=0.5).view(2, 3)
    tensor([[ True, False, False],
            [ True,  True, False]])
    """
    image = torch.arange(len(chosen), device=chosen.device)
    M = maps[:, image, chosen.clamp(min=0)]  # (t, B, h, w)
    above = M.ge(tau) & (chosen >= 0)[:, None, None]
    return (above.cumsum(dim=0) > 0)[:, :, None]


def one_present(labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One of the findings that each image has, at random.

    Labels (B, C), 1 present, 0 absent, NaN unknown -> int64 (B,), -1 for an image without any.

    >>> one_present(torch.tensor([[0.0, 1.0], [0.0, float("nan")]]))
    tensor([ 1, -1])
    """
    present = labels == 1
    has = present.any(dim=1)
    weights = (present | ~has[:, None]).float()  # each row needs something to draw
    return torch.multinomial(weights, 1, generator=generator)[:, 0].where(has, -1)


def distance(answer: Response, original: Response, kp_on: Preserve) -> Tensor:
    r"""Knowledge preservation: mean squared difference of features g, of logits z, or their sum.

    .. math:: L_{KP} = \frac{1}{BK} \|g_t - g_0\|^2 + \frac{1}{BC} \|z_t - z_0\|^2
    """
    g = F.mse_loss(answer.features, original.features)
    z = F.mse_loss(answer.logits, original.logits)
    return {"features": g, "responses": z, "both": g + z}[kp_on]


def refuse_numbers(steps: int, tau: float, kp_weight: float) -> None:
    """Raise ValueError unless the method's numbers are in their range."""
    if steps < 0:
        raise ValueError(f"steps = {steps}; a number of mining steps from 0 up was expected")
    if not 0 < tau <= 1:
        raise ValueError(f"tau = {tau}; a share of a map's maximum, above 0 to 1, was expected")
    if not 0 <= kp_weight < math.inf:
        raise ValueError(f"kp_weight = {kp_weight}; a finite number >= 0 was expected")
