"""The scorer as torchmetrics: fed batch by batch, in any number of processes, with one result.

No number here is a mean over batches or processes: AUROC ranks all images, intervals draw patients,
thresholds are tuned on a part. So a class only collects what the model says, by the position of the
image in the dataset; ``compute`` gathers it from all processes and scores it as
:func:`cxrlib.metrics.evaluate` does. Two processes give exactly the numbers of one.

In a ``LightningModule``, call ``update`` in ``validation_step``, ``compute`` and ``reset`` in
``on_validation_epoch_end``, and set ``num_sanity_val_steps=0``: the sanity check sees a few batches
only, and a part of the images has no score.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from cxrlib.checks import finding_columns, some, unit_numbers
from cxrlib.datasets.base import CXRDataset
from cxrlib.findings import FINDINGS
from cxrlib.metrics.scorer import Scored, score
from cxrlib.predictions import Predictions

TOLERANCE = 0.05
"""How much two scores of one image may differ. Samplers give an image to two processes to fill up
the last batches, and in mixed precision its scores depend a little on what else is in the batch."""


class _Collected(Metric):
    """Scores and positions of images, gathered from all processes."""

    full_state_update = False  # else torchmetrics refuses merge_state
    index: list[Tensor] | Tensor  # int64 (B,) of each batch; one tensor while synchronised
    scores: list[Tensor] | Tensor  # float32 (B, C)

    def __init__(
        self, dataset: CXRDataset, findings: Sequence[str], replicates: int, seed: int
    ) -> None:
        super().__init__(dist_sync_fn=_gather)
        if not len(dataset):
            raise ValueError(f"{dataset.name!r} has no images; at least one was expected")
        finding_columns(findings)
        self.dataset, self.findings = dataset, tuple(findings)
        self.replicates, self.seed = replicates, seed
        self.add_state("index", [], "cat")
        self.add_state("scores", [], "cat")

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """The same as ``update``: a batch has no score of its own."""
        self.update(*args, **kwargs)

    def _checked(self, index: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """What to keep of every batch."""
        places = _positions(index, self.dataset)
        shape = (len(places), len(self.findings))
        if tuple(scores.shape) != shape:
            raise ValueError(
                f"scores have shape {tuple(scores.shape)}; {shape} was expected: a row for each "
                "position in index, a column for each finding"
            )
        return {"index": places, "scores": _copied("scores", scores, torch.float32)}

    def _keep(self, parts: dict[str, Tensor]) -> None:
        for name, part in parts.items():
            getattr(self, name).append(part)

    def _score(self, size: int | None = None, **located: Any) -> Scored:
        """Score what was collected, with the maps if there are any."""
        data, index, scores = self.dataset, _joined(self.index), _joined(self.scores)
        row = _last(index, len(data))
        _refuse_unseen(data, row)
        _refuse_drift(data, index, np.abs(scores - scores[row[index]]))
        names = self.findings
        made = Predictions.from_arrays(data.image_ids, scores[row], findings=names, **located)
        return score(made, data, size, replicates=self.replicates, seed=self.seed)


class ClassificationScores(_Collected):
    """``metrics.evaluate(...)["classification"]`` of a model that is still being run.

    The state is 8 + 4 C bytes for each image, on the CPU whatever the device of the model. After
    ``compute``, collecting goes on until ``reset``.

    Args:
        dataset: N images with labels, all of which must be seen before ``compute``.
        findings: names of the model's C findings, in any known spelling.
        replicates: R of the bootstrap over patients.
        seed: of the bootstrap.

    Raises:
        ValueError: the dataset is empty, or a finding is unknown or named twice.

    >>> from cxrlib.datasets.base import BOX_COLUMNS
    >>> import pandas as pd
    >>> labels, none = np.eye(3, 14), pd.DataFrame(columns=BOX_COLUMNS)
    >>> dataset = CXRDataset("toy", ["a", "b", "c"], ["1", "2", "3"], labels, none, 8, np.load)
    >>> metric = ClassificationScores(dataset, replicates=20)
    >>> for index in torch.tensor([[2, 0], [1, 2]]):  # as a sampler gives them; 2 fills up
    ...     metric.update(index, torch.eye(3, 14)[index])
    >>> metric.compute()["auroc"]["mean"]["value"]
    1.0
    """

    def __init__(
        self,
        dataset: CXRDataset,
        *,
        findings: Sequence[str] = FINDINGS,
        replicates: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, findings, replicates, seed)

    def update(self, index: Tensor, scores: Tensor) -> None:
        """Keep the scores of a batch.

        Args:
            index: integers (B,), positions of the images in the dataset.
            scores: (B, C), probabilities from 0 to 1, on any device.

        Raises:
            ValueError: a shape, a position or a score is wrong; nothing of the batch is kept.
        """
        self._keep(self._checked(index, scores))

    def compute(self) -> dict[str, dict]:
        """The scores of the whole dataset, the same in every process; all of them must call it.

        Returns:
            metric -> mean and per finding, each number ``{"value", "low", "high", "n"}``.

        Raises:
            ValueError: an image was never seen, or twice with scores that differ by more than
                :data:`TOLERANCE`.
        """
        return self._score().to_json()["classification"]


class PredictionScores(_Collected):
    """:func:`cxrlib.metrics.evaluate` of a model that is still being run.

    Maps are kept of images with boxes only, as float16 and on the CPU whatever the device of the
    model, as :func:`cxrlib.inference.predict` does: 880 images of ChestX-ray14 with maps of 16 × 16
    take 6 MB. After ``compute``, collecting goes on until ``reset``.

    Args:
        dataset, findings, replicates, seed: of :class:`ClassificationScores`.
        size: S, side in pixels of the frame in which maps and truth are compared; by default that
            of the dataset's images.

    Raises:
        ValueError: as :class:`ClassificationScores`.

    >>> from cxrlib.datasets.base import BOX_COLUMNS
    >>> import pandas as pd
    >>> labels, boxes = np.eye(2, 14), pd.DataFrame([("b", 1, 0, 0, 0.5, 1)], columns=BOX_COLUMNS)
    >>> dataset = CXRDataset("toy", ["a", "b"], ["1", "2"], labels, boxes, 8, np.load)
    >>> metric = PredictionScores(dataset, replicates=20)
    >>> left = torch.tensor([0.9, 0.1]).expand(2, 14, 2, 2)
    >>> metric.update(torch.tensor([1, 0]), torch.rand(2, 14), left)
    >>> metric.compute()["localization"]["pointing"]["micro"]
    {'value': 1.0, 'low': 1.0, 'high': 1.0, 'n': 1}
    """

    map_index: list[Tensor] | Tensor  # int64 (b,), of the b images with boxes
    maps: list[Tensor] | Tensor  # float16 (b, C, h, h)

    def __init__(
        self,
        dataset: CXRDataset,
        size: int | None = None,
        *,
        findings: Sequence[str] = FINDINGS,
        replicates: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, findings, replicates, seed)
        self.size = size or dataset.image_size
        self.boxed = np.isin(dataset.image_ids, dataset.boxes["image_id"].to_numpy(str))
        self.add_state("map_index", [], "cat")
        self.add_state("maps", [], "cat")

    def update(self, index: Tensor, scores: Tensor, maps: Tensor) -> None:
        """Keep the scores of a batch, and the maps of its images with boxes.

        Args:
            index, scores: of :meth:`ClassificationScores.update`.
            maps: (B, C, h, h), 0 to 1, h <= S, on any device; h is the same in every batch.

        Raises:
            ValueError: a shape, a position, a score or the map of an image with a box is wrong;
                nothing of the batch is kept.
        """
        parts = self._checked(index, scores)
        self._refuse_shape(maps, len(parts["index"]))
        boxed = torch.from_numpy(self.boxed)[parts["index"]]  # (B,)
        if boxed.any():
            chosen = _copied("maps", maps[boxed.to(maps.device)], torch.float16)
            parts |= {"map_index": parts["index"][boxed], "maps": chosen}
        self._keep(parts)

    def compute(self) -> dict[str, dict]:
        """What :func:`cxrlib.metrics.evaluate` returns, in every process; all of them must call it.

        Raises:
            ValueError: as :meth:`ClassificationScores.compute`.
        """
        row = _last(_joined(self.map_index), len(self.dataset))
        ids, row = self.dataset.image_ids[row >= 0], row[row >= 0]
        if not len(ids):
            return self._score(self.size).to_json()
        located = {"map_ids": ids, "maps": _joined(self.maps)[row], "frame": self.size}
        return self._score(self.size, **located).to_json()

    def _refuse_shape(self, maps: Tensor, batch: int) -> None:
        given, h = tuple(maps.shape), maps.shape[-1] if maps.ndim else 0
        expected = (batch, len(self.findings), h, h)
        if given != expected or not 0 < h <= self.size:
            raise ValueError(
                f"maps have shape {given}; ({batch}, {len(self.findings)}, h, h) was expected, "
                f"square maps of at most the frame, {self.size} px"
            )
        kept = self.maps[0].shape[-1] if len(self.maps) else h
        if kept != h:
            raise ValueError(
                f"maps of {h} x {h} after maps of {kept} x {kept}; one size was expected: feed "
                "images of one size, or bring the maps to one size first"
            )


def _gather(part: Tensor, group: Any) -> list[Tensor]:
    """A state of every process that has one, by rank.

    torchmetrics' own gathering wants tensors of one type and number of dimensions on the backend's
    device; a process that saw no (boxed) image has none, and ours are on the CPU under NCCL too.
    """
    parts = [part] * distributed.get_world_size(group)
    distributed.all_gather_object(parts, part.cpu(), group)
    return [part for part in parts if len(part)] or parts[:1]


def _joined(state: list[Tensor] | Tensor) -> np.ndarray:
    """A state as one array; where nothing was collected, an empty one of integers."""
    return dim_zero_cat(state).cpu().numpy() if len(state) else np.empty(0, int)


def _last(index: np.ndarray, images: int) -> np.ndarray:
    """The row in which each image was last seen, -1 for never: int64 (N,)."""
    row = np.full(images, -1)
    row[index] = np.arange(len(index))
    return row


def _positions(index: Tensor, dataset: CXRDataset) -> Tensor:
    """The checked index, a copy on the CPU."""
    given = torch.as_tensor(index)
    if given.ndim != 1 or given.is_floating_point() or given.dtype == torch.bool:
        raise ValueError(
            f"index is {given.dtype} of shape {tuple(given.shape)}; integers of shape (B,) were "
            "expected, the position of each image in the dataset"
        )
    places = given.to("cpu", torch.int64, copy=True)
    outside = places[(places < 0) | (places >= len(dataset))]
    if len(outside):
        raise ValueError(
            f"index holds {int(outside[0])}, but {dataset.name!r} has {len(dataset)} images: 0 to "
            f"{len(dataset) - 1} was expected, positions in the dataset that the metric was made of"
        )
    return places


def _copied(what: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Checked numbers on the CPU, without their graph and apart from the caller's memory."""
    return torch.from_numpy(unit_numbers(what, values, values.shape[:2])).to(dtype, copy=True)


def _refuse_unseen(dataset: CXRDataset, row: np.ndarray) -> None:
    unseen = dataset.image_ids[row < 0]
    if len(unseen):
        raise ValueError(
            f"update() never saw {some(unseen)} of the {len(dataset)} images of {dataset.name!r}; "
            "call it for every batch, drop none, and give positions in the whole dataset, not in "
            "the share of one process"
        )


def _refuse_drift(dataset: CXRDataset, index: np.ndarray, difference: np.ndarray) -> None:
    """Raise if an image that was seen again, (K, C) rows, had another score by then."""
    drifted = np.unique(index[difference.max(axis=1) > TOLERANCE])
    if len(drifted):
        raise ValueError(
            f"images seen more than once, with scores that differ by up to {difference.max():.2g}: "
            f"{some(dataset.image_ids[drifted])}; call reset() before each pass over the data, and "
            "give the position of each image in the dataset"
        )
