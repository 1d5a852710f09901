"""What the notebook on HAM runs: sizes, schedules and parameters."""

from dataclasses import dataclass
from typing import Any

from cxrlib.models import lse_lba
from cxrlib.parameters import Parameters

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "image_size": 64,
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "network": {"encoder": "resnet18", "width": 16, "augmentation": "upright"},
        "phantom": {"n_train": 192, "n_val": 48, "n_test": 96},
        "nih": {"limit_train": 256},
    },
    "quick": {
        # Maps of 8 x 8 cells: at stride 8 the last stages cost as much per cell as the first.
        "image_size": 64,
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "network": {
            "encoder": "resnet18",
            "width": 16,
            "augmentation": "upright",
            "decay_every": 5,
        },
        # The population of LSE-LBA's quick preset, drawn smaller.
        "phantom": lse_lba.PRESETS["quick"]["phantom"],
        "nih": {},
    },
    "gpu": {
        "image_size": 256,
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 3e-4,
        "network": {"encoder": "resnet18", "augmentation": "upright"},
        "phantom": {"n_train": 12000, "n_val": 1200, "n_test": 2400},
        "nih": {},
    },
    "paper": {
        "image_size": 512,
        "epochs": 20,
        "batch_size": 24,
        "learning_rate": 2e-5,
        "network": {},
        "phantom": {"n_train": 86524, "n_val": 8640, "n_test": 25596},
        "nih": {},
    },
}
"""Sizes and schedules; ``"paper"`` is the released configuration without boxes (with: 30 epochs).

An empty ``network`` is the published one, the defaults of :class:`cxrlib.models.ham.HAM`.
"""


@dataclass(frozen=True, kw_only=True)
class HAMParameters(Parameters):
    """Parameters of ``notebooks/ham.ipynb``."""

    pretrained: bool
    ordinal: float
    box_share: float | None

    def __post_init__(self) -> None:
        """Refuse an impossible weight or share."""
        super().__post_init__()
        if not 0 <= self.ordinal <= 1e4:
            raise ValueError(
                f"ordinal = {self.ordinal}; the weight of the constraints is from 0 to 10000"
            )
        if self.box_share is not None and not 0 <= self.box_share <= 1:
            raise ValueError(
                f"box_share = {self.box_share}; the share of boxed patients whose boxes teach is "
                "from 0 to 1"
            )
