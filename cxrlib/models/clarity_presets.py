"""What the notebook on CLARiTy runs: sizes and schedules, and the paper's ablation."""

from dataclasses import dataclass
from typing import Any

from cxrlib.models import lse_lba
from cxrlib.parameters import Parameters, nearest

SMALL: dict[str, Any] = {"width": 64, "depth": 2, "heads": 4, "patch": 8, "stem": True}
"""A ViT for one CPU: its patches of 8 px make 12 x 12 of a 96 px image.

From scratch, without the stem, it learns far less; see ``results/clarity_ablation.csv``.
"""

ATTO: dict[str, Any] = {"encoder": "convnextv2_atto", "learning_rate": 4e-3}
"""The smallest teacher of timm, for training from scratch."""

CHESTS: dict[str, Any] = {"prevalence": 0.2}
"""Of the phantom that the segmenter of organs learns from: lifelike, but with many findings."""

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "image_size": 64,
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "network": {**SMALL, "width": 32, "depth": 1},
        "teacher": {"network": {**ATTO, "width": 8, "depths": (1, 1, 1, 1)}, "epochs": 1},
        "segmenter": {"epochs": 1, "n_train": 48, "n_val": 8, "n_test": 16},
        "phantom": {"n_train": 192, "n_val": 48, "n_test": 96},
        "nih": {"limit_train": 256},
    },
    "quick": {
        "image_size": 96,
        "epochs": 8,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "network": {**SMALL, "distillation": 0.0},  # a teacher takes as long as the student
        "teacher": {"network": {**ATTO, "width": 16, "depths": (1, 1, 2, 1)}, "epochs": 6},
        "segmenter": {"epochs": 6, "n_train": 600, "n_val": 60, "n_test": 120},
        # Images and population of LSE-LBA's quick preset, which are rendered only once.
        "phantom": lse_lba.PRESETS["quick"]["phantom"],
        "nih": {},
    },
    "gpu": {
        "image_size": 224,
        "epochs": 30,
        "batch_size": 64,
        "learning_rate": 3e-4,
        "network": {"width": 192, "heads": 3},
        "teacher": {"network": ATTO, "epochs": 20},
        "segmenter": {"epochs": 6, "n_train": 1200, "n_val": 60, "n_test": 240},
        "phantom": {"n_train": 12000, "n_val": 1200, "n_test": 2400},
        "nih": {},
    },
    "paper": {
        "image_size": 512,
        "epochs": 45,
        "batch_size": 32,
        "learning_rate": 1e-4,
        "network": {},
        "teacher": {"network": {}, "epochs": 30},
        "segmenter": {"epochs": 6, "n_train": 1200, "n_val": 60, "n_test": 240},
        "phantom": {"n_train": 78484, "n_val": 8040, "n_test": 25600},
        "nih": {},
    },
}
"""Sizes and schedules; ``"paper"`` has the published input size and our reading of the rest.

An empty ``network`` is the published one, the defaults of :class:`cxrlib.models.clarity.CLARiTy`,
and an empty one of the ``teacher`` that of :class:`cxrlib.models.clarity_teacher.Teacher`. The
``segmenter`` makes the prior of real images from images of the phantom.
"""

VARIANTS: dict[str, dict[str, Any]] = {
    "clarity": {},
    "no_segment_cam": {"segment_cam": False},
    "no_orthogonal": {"orthogonal": 0.0},
    "no_attention_pooling": {"attention_pooling": False},
    "no_teacher": {"distillation": 0.0},
    "teacher": {"distillation": 0.5},
    "no_prior": {"foreground": 0.0, "suppression": 0.0},
    "no_stem": {"stem": False},
    "lungs_only": {},
}
"""The method and its ablations: arguments of :class:`cxrlib.models.clarity.CLARiTy`."""

PRIORS: dict[str, tuple[str, ...]] = {"lungs_only": ("lungs",)}
"""Organs that make a variant's prior, where they are not all of them."""


@dataclass(frozen=True, kw_only=True)
class CLARiTyParameters(Parameters):
    """Parameters of ``notebooks/clarity.ipynb``."""

    variant: str
    masks: str | None
    pretrained: bool

    def __post_init__(self) -> None:
        """Refuse a variant that does not exist, and masks where the phantom knows its own."""
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise ValueError(f"variant = {self.variant!r}; {nearest(self.variant, list(VARIANTS))}")
        if self.masks is not None and self.dataset == "phantom":
            raise ValueError(
                f"masks = {self.masks!r} has no use with dataset = 'phantom', whose own are known"
            )
        if self.masks is not None and self.variant in PRIORS:
            raise ValueError(
                f"masks = {self.masks!r} has no use with variant = {self.variant!r}, which chooses "
                "among the organs itself; give masks that show what you want"
            )
