"""The papers' models by name: ``create_model("lse_lba", r0=5)``."""

import inspect
from typing import Any

from cxrlib.models.attention_mining import AttentionMining
from cxrlib.models.base import CXRModule, Output
from cxrlib.models.baselines import Baseline
from cxrlib.models.clarity import CLARiTy
from cxrlib.models.ham import HAM
from cxrlib.models.lse_lba import LSELBA
from cxrlib.models.pylon import PYLON
from cxrlib.parameters import nearest

__all__ = [
    "HAM",
    "LSELBA",
    "MODELS",
    "PYLON",
    "AttentionMining",
    "Baseline",
    "CLARiTy",
    "CXRModule",
    "Output",
    "create_model",
]

MODELS: dict[str, type[CXRModule]] = {
    "lse_lba": LSELBA,
    "pylon": PYLON,
    "attention_mining": AttentionMining,
    "baseline": Baseline,
    "ham": HAM,
    "clarity": CLARiTy,
}
"""Every paper's model, and what PYLON is compared with."""


def create_model(name: str, **arguments: Any) -> CXRModule:
    """Make a paper's model; with no further arguments, the published network for the 14 findings.

    Args:
        name: a key of :data:`MODELS`.
        arguments: of the model's class.

    Raises:
        ValueError: the name or an argument does not exist; the valid ones are listed.

    >>> create_model("lse_lba", r0=5).hparams.r0
    5
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; {nearest(name, list(MODELS))}")
    valid = list(inspect.signature(MODELS[name].__init__).parameters)[1:]
    for argument in arguments:
        if argument not in valid:
            raise ValueError(f"{name!r} takes no argument {argument!r}; {nearest(argument, valid)}")
    return MODELS[name](**arguments)
