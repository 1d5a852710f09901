"""What each part of a trained CLARiTy says of a dataset, before and after it is put together."""

from typing import NamedTuple

import numpy as np
import torch

from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.inference import answers
from cxrlib.models.clarity import CLARiTy, Evidence


class Looks(NamedTuple):
    """Of N images with P (image, finding) pairs.

    Attributes:
        stages: name -> (P, h, w) float32, 0 to 1: attention of the pair's token, and with
            SegmentCAM class map, class map with the background suppressed, and the final map.
        foreground: (N, h, w) float32, 0 to 1; None without SegmentCAM.
        cosines: (C, C) mean cosine between the final tokens of two findings.
    """

    stages: dict[str, np.ndarray]
    foreground: np.ndarray | None
    cosines: np.ndarray


def stages_of(seen: Evidence) -> dict[str, torch.Tensor]:
    """The maps (B, C, h, w) from which the final one is made, 0 to 1, in order."""
    attention = seen.attention / seen.attention.amax(dim=(-2, -1), keepdim=True)
    if seen.class_map is None or seen.foreground is None:
        return {"attention": attention}
    foreground = torch.nn.functional.logsigmoid(seen.foreground)
    return {
        "attention": attention,
        "class map": seen.class_map.sigmoid(),
        "class map, foreground": (seen.class_map + foreground).sigmoid(),
        "final map": seen.maps,
    }


def look_at(
    model: CLARiTy, dataset: CXRDataset, *, batch_size: int, accelerator: str = "auto"
) -> Looks:
    """Ask a model for all that it sees.

    Args:
        model: in evaluation mode.
        dataset: N images.
        batch_size: images per step.
        accelerator: as in :func:`cxrlib.training.fit`.
    """
    truth = Truth(dataset)
    stages: dict[str, list[np.ndarray]] = {}
    foreground, cosines, first = [], [], 0
    for seen in answers(model, dataset, batch_size, accelerator, ask=model.look):
        here = (truth.image >= first) & (truth.image < first + len(seen.tokens))
        image, finding = truth.image[here] - first, truth.finding[here]
        for name, maps in stages_of(seen).items():
            stages.setdefault(name, []).append(maps.float().cpu().numpy()[image, finding])
        if seen.foreground is not None:
            foreground.append(seen.foreground[:, 0].sigmoid().cpu().numpy())
        T = torch.nn.functional.normalize(seen.tokens.float(), dim=-1)
        cosines.append((T @ T.transpose(1, 2)).sum(dim=0).cpu().numpy())  # (C, C)
        first += len(seen.tokens)
    return Looks(
        {name: np.concatenate(parts) for name, parts in stages.items()},
        np.concatenate(foreground) if foreground else None,
        np.sum(cosines, axis=0) / first,
    )
