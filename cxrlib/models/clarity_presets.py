"""What the notebook on CLARiTy runs: sizes and schedules, and the paper's ablation."""

from dataclasses import dataclass
from typing import Any

from cxrlib.models import lse_lba
from cxrlib.models.clarity_losses import refuse_weights
from cxrlib.parameters import Parameters

SMALL: dict[str, Any] = {"width": 64, "depth": 2, "heads": 4, "patch": 8}
"""A ViT for one CPU: its patches of 8 px make 12 x 12 of a 96 px image."""

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "image_size": 64,
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "network": {**SMALL, "width": 32, "depth": 1, "foreground": 0.0, "distillation": 0.0},
        "teacher": {"encoder": "convnextv2_atto", "width": 8, "depths": (1, 1, 1, 1)},
        "phantom": {"n_train": 192, "n_val": 48, "n_test": 96},
        "nih": {"limit_train": 256},
    },
    "quick": {
        "image_size": 96,
        "epochs": 15,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "network": {**SMALL, "foreground": 0.0, "distillation": 0.0},
        "teacher": {"encoder": "convnextv2_atto", "width": 16, "depths": (1, 1, 2, 1)},
        # Images and population of LSE-LBA's quick preset, which are rendered only once.
        "phantom": lse_lba.PRESETS["quick"]["phantom"],
        "nih": {},
    },
    "gpu": {
        "image_size": 224,
        "epochs": 30,
        "batch_size": 64,
        "learning_rate": 3e-4,
        "network": {"width": 192, "heads": 3, "foreground": 0.0, "distillation": 0.0},
        "teacher": {"encoder": "convnextv2_atto"},
        "phantom": {"n_train": 12000, "n_val": 1200, "n_test": 2400},
        "nih": {},
    },
    "paper": {
        "image_size": 512,
        "epochs": 45,
        "batch_size": 32,
        "learning_rate": 1e-4,
        "network": {},
        "teacher": {},
        "phantom": {"n_train": 78484, "n_val": 8040, "n_test": 25600},
        "nih": {},
    },
}
"""Sizes and schedules; ``"paper"`` has the published input size and our reading of the rest.

An empty ``network`` is the published one, the defaults of :class:`cxrlib.models.clarity.CLARiTy`,
and an empty ``teacher`` that of :class:`cxrlib.models.clarity_teacher.Teacher`.
"""


@dataclass(frozen=True, kw_only=True)
class CLARiTyParameters(Parameters):
    """Parameters of ``notebooks/clarity.ipynb``: the paper's ablation."""

    segment_cam: bool
    attention_pooling: bool
    orthogonal: float
    pretrained: bool

    def __post_init__(self) -> None:
        """Refuse an impossible weight."""
        super().__post_init__()
        refuse_weights(orthogonal=self.orthogonal)
