"""cxrlib: weakly supervised chest X-ray diagnosis and localization, five papers compared.

This file imports nothing heavy, so that ``import cxrlib`` stays instant; take what you need from
the modules: :mod:`cxrlib.models`, :mod:`cxrlib.datasets`, :mod:`cxrlib.pooling`,
:mod:`cxrlib.metrics`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrlib.models.base import CXRModule

__version__ = "0.1.0"


def load_pretrained(name: str) -> "CXRModule":
    """A trained model that comes with the library, on the CPU and in evaluation mode.

    It was trained on the chest phantom: it shows what a method does, and diagnoses nobody. What it
    was trained on, in images of which size, is told by :func:`cxrlib.weights.open_pretrained` and
    by the model card beside its file.

    Args:
        name: ``"lse_lba"``, ``"attention_mining"``, ``"ham"``, ``"pylon"`` or ``"clarity"``.

    Raises:
        ValueError: there is no such model, and the valid names are listed; or its file is damaged.
        FileNotFoundError: its file is absent.

    >>> import torch
    >>> load_pretrained("lse_lba")(torch.rand(1, 1, 96, 96)).maps.shape
    torch.Size([1, 14, 24, 24])
    """
    from cxrlib import weights

    return weights.load_pretrained(name)
