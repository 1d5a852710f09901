"""Where a classifier looks: CAM, Grad-CAM, Grad-CAM++, integrated gradients and occlusion.

For every model of this library and for any network (B, 1, H, W) -> logits (B, C). All C findings of
a batch share their forward passes. The network is only asked: training mode, weights, ``.grad`` and
hooks are afterwards what they were, and no result holds a graph. A network of three channels is
``nn.Sequential(v2.RGB(), v2.Normalize(mean, std), network)`` of torchvision's ``transforms.v2``.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxrlib.checks import finding_columns
from cxrlib.datasets.base import CXRDataset, scaled
from cxrlib.findings import FINDINGS
from cxrlib.inference import device_type, loader
from cxrlib.parameters import nearest
from cxrlib.predictions import Predictions
from cxrlib.progress import track
from cxrlib.saliency.activation import cam, default_layer, grad_cam, grad_cam_plus_plus
from cxrlib.saliency.network import Findings, evaluating, logits_of
from cxrlib.saliency.pixels import integrated_gradients, occlusion

__all__ = [
    "METHODS",
    "cam",
    "default_layer",
    "grad_cam",
    "grad_cam_plus_plus",
    "integrated_gradients",
    "occlusion",
    "predict_saliency",
    "saliency_maps",
    "unit_maps",
]

METHODS: dict[str, Callable[..., Tensor]] = {
    "cam": cam,
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}
"""Every method: (model, images, findings, options) -> values of any sign, (B, C, h, w)."""


def saliency_maps(
    model: nn.Module,
    images: Tensor,
    method: str = "grad_cam",
    findings: Findings = None,
    **options: Any,
) -> Tensor:
    """Evidence for each finding, 0 to 1: a method's values by :func:`unit_maps`.

    Args:
        model: images -> logits (B, C), or :class:`~cxrlib.models.Output`.
        images: float (B, 1, H, W), finite, in the range that the model knows.
        method: a key of :data:`METHODS`.
        findings: which of the C, see :data:`~cxrlib.saliency.network.Findings`.
        options: of the method's function.

    Returns:
        (B, C, h, w), 0 to 1, on the model's device.

    Raises:
        ValueError: method or option do not exist, images or findings are not as above, or the
            method does not fit the model.

    >>> from cxrlib.models import create_model
    >>> model = create_model("lse_lba", width=8, levels=2, growth=4, layers=1)
    >>> saliency_maps(model, torch.rand(2, 1, 64, 64), findings=["Mass", "Nodule"]).shape
    torch.Size([2, 2, 16, 16])
    """
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; {nearest(method, list(METHODS))}")
    valid = list(inspect.signature(METHODS[method]).parameters)[3:]
    for option in options:
        if option not in valid:
            raise ValueError(f"{method!r} takes no option {option!r}; {nearest(option, valid)}")
    return unit_maps(METHODS[method](model, images, findings, **options))


def unit_maps(values: Tensor) -> Tensor:
    """Only what speaks for the finding, relative to the map's maximum; nothing stays nothing.

    Args:
        values: (..., h, w), any sign.

    Returns:
        (..., h, w), 0 to 1; all 0 where no value is above 0.

    >>> unit_maps(torch.tensor([[-2.0, 1.0, 4.0]]))
    tensor([[0.0000, 0.2500, 1.0000]])
    """
    positive = values.relu()
    peak = positive.amax(dim=(-2, -1), keepdim=True)
    return positive / peak.where(peak > 0, 1)


def predict_saliency(
    model: nn.Module,
    dataset: CXRDataset,
    method: str = "grad_cam",
    *,
    findings: Sequence[str] = FINDINGS,
    batch_size: int,
    accelerator: str = "auto",
    num_workers: int = 0,
    **options: Any,
) -> Predictions:
    """Scores of all images, and saliency of those with boxes or masks, to be scored as any map.

    Args:
        model: of :func:`saliency_maps`; its logits are log-odds.
        dataset: N images.
        method: a key of :data:`METHODS`.
        findings: names of the model's C logits, in any known spelling.
        batch_size: images per step.
        accelerator: as in :func:`cxrlib.training.fit`.
        num_workers: processes that read images.
        options: of the method's function. Maps of integrated gradients are as large as the images
            unless ``stride`` says otherwise.

    Raises:
        ValueError: as :func:`saliency_maps`, or ``findings`` are not the model's; before the work,
            on one image.

    >>> from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset
    >>> import pandas as pd
    >>> box = pd.DataFrame([["a", 4, 0, 0, 1, 1]], columns=BOX_COLUMNS)
    >>> black = lambda image_id: np.zeros((8, 8), np.uint8)
    >>> data = CXRDataset("toy", np.array(["a", "b"]), np.array(["1", "2"]), np.zeros((2, 14)),
    ...                   box, 8, black)
    >>> net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 36, 1))
    >>> made = predict_saliency(net, data, findings=["Mass"], batch_size=2)
    >>> made.scores.shape, made.map_ids.tolist(), made.maps.shape
    ((2, 14), ['a'], (1, 14, 6, 6))
    """
    device = torch.device(device_type(accelerator))
    model = model.to(device)
    first = dataset[0].image[None].to(device)  # (1, 1, H, W)
    known = len(finding_columns(findings))
    C = saliency_maps(model, first, method, **options).shape[1]
    if known != C:
        raise ValueError(f"the model has {C} logits, but findings name {known}; name each once")

    def batches(data: CXRDataset, task: str) -> Iterator[Tensor]:
        read = loader(data, batch_size, num_workers)
        return (scaled(batch.images.to(device)) for batch in track(read, task, len(read)))

    boxed = np.flatnonzero(np.isin(dataset.image_ids, dataset.boxes["image_id"].to_numpy(str)))
    maps = [
        saliency_maps(model, images, method, **options).half().cpu()
        for images in batches(dataset.subset(boxed), method)
    ]
    scores = []
    for images in batches(dataset, "predicting"):
        with evaluating(model, images) as x:
            scores.append(logits_of(model, x).float().sigmoid().cpu())
    return Predictions.from_arrays(
        dataset.image_ids,
        torch.cat(scores),
        findings=findings,
        map_ids=dataset.image_ids[boxed] if maps else None,
        maps=torch.cat(maps) if maps else None,
        frame=dataset.image_size if maps else None,
    )
