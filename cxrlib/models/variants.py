"""What the notebook on PYLON runs: sizes and schedules, the method's ablations, its baselines."""

from dataclasses import dataclass
from typing import Any

from cxrlib.models import lse_lba
from cxrlib.models.base import CXRModule
from cxrlib.models.baselines import Baseline
from cxrlib.models.pylon import PYLON
from cxrlib.parameters import Parameters, nearest

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "image_size": 64,
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "network": {"encoder": "resnet18", "width": 16, "augmentation": "upright"},
        "pa_depth": 1,
        "phantom": {"n_train": 192, "n_val": 48, "n_test": 96},
        "nih": {"limit_train": 256},
    },
    "quick": {
        "image_size": 96,
        "epochs": 12,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "network": {"encoder": "resnet18", "width": 16, "augmentation": "upright"},
        "pa_depth": 1,
        # Images and population of LSE-LBA's quick preset, which are rendered only once.
        "phantom": lse_lba.PRESETS["quick"]["phantom"],
        "nih": {},
    },
    "gpu": {
        "image_size": 256,
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 3e-4,
        "network": {"encoder": "resnet18", "augmentation": "upright"},
        "pa_depth": 3,
        "phantom": {"n_train": 12000, "n_val": 1200, "n_test": 2400},
        "nih": {},
    },
    "paper": {
        "image_size": 256,
        "epochs": 40,
        "batch_size": 64,
        "learning_rate": 1e-4,
        "network": {},
        "pa_depth": 3,
        "phantom": {"n_train": 78484, "n_val": 8040, "n_test": 25600},
        "nih": {},
    },
}
"""Sizes and schedules; ``"paper"`` is the released configuration.

An empty ``network`` is the published one. ``pa_depth`` is of PYLON alone.
"""

VARIANTS: dict[str, tuple[type[CXRModule], dict[str, Any]]] = {
    "pylon": (PYLON, {}),
    "pylon_no_pa": (PYLON, {"use_pa": False}),
    "pylon_gap": (PYLON, {"gap": True}),
    "pylon_1layer": (PYLON, {"up_type": "1layer"}),
    "pylon_group": (PYLON, {"norm": "group"}),
    "cam_max": (Baseline, {"head": "cam"}),
    "cam_mean": (Baseline, {"head": "cam", "pooling": "mean"}),
    "cam_lse": (Baseline, {"head": "cam", "pooling": "lse"}),
    "cam_lse_lba": (Baseline, {"head": "cam", "pooling": "lse_lba"}),
    "li2018": (Baseline, {"head": "li2018"}),
    "fpn": (Baseline, {"head": "fpn"}),
    "fpn_gap": (Baseline, {"head": "fpn", "gap": True}),
    "fpn_group": (Baseline, {"head": "fpn", "norm": "group"}),
    "unet": (Baseline, {"head": "unet"}),
    "unet_gap": (Baseline, {"head": "unet", "gap": True}),
    "deeplab": (Baseline, {"head": "deeplab"}),
    "deeplab_no_gap": (Baseline, {"head": "deeplab", "gap": False}),
}
"""The method, its ablations and what it is compared with: class and arguments."""


@dataclass(frozen=True, kw_only=True)
class PYLONParameters(Parameters):
    """Parameters of ``notebooks/pylon.ipynb``."""

    variant: str
    against: str | None
    pretrained: bool

    def __post_init__(self) -> None:
        """Refuse a variant that does not exist, and one beside itself."""
        super().__post_init__()
        for name in ("variant", "against"):
            value = getattr(self, name)
            if value not in (*VARIANTS, None):
                raise ValueError(f"{name} = {value!r}; {nearest(value, list(VARIANTS))}")
        if self.variant == self.against:
            raise ValueError(f"against = {self.against!r} is the variant itself; choose another")


def create_variant(variant: str, *, pa_depth: int, **network: Any) -> CXRModule:
    """Make the method, an ablation of it, or a baseline.

    Args:
        variant: a key of :data:`VARIANTS`.
        pa_depth: levels of the attention, for PYLON.
        network: what all of them take: encoder, width, pretrained, augmentation, learning_rate.

    Raises:
        ValueError: there is no such variant, or an argument is out of its range.

    >>> create_variant("pylon_gap", pa_depth=2, encoder="resnet18", width=16).hparams.gap
    True
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant = {variant!r}; {nearest(variant, list(VARIANTS))}")
    model, arguments = VARIANTS[variant]
    if model is PYLON:
        return PYLON(pa_depth=pa_depth, **arguments, **network)
    return Baseline(**arguments, **network)
