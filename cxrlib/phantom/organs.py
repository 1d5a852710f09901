"""Where the organs of the phantom are, without drawing an image.

A prior of where findings may be is made of them, and a segmenter learns them
(:mod:`cxrlib.models.clarity_prior`).
"""

from typing import Any

import numpy as np

from cxrlib.datasets.base import CXRDataset
from cxrlib.phantom import anatomy
from cxrlib.phantom.controls import controls_of
from cxrlib.phantom.population import prepared

ORGANS = ("lungs", "heart")
"""What :func:`organs` gives, in this order."""


def organs(index: int, size: int, *, seed: int = 0, **options: Any) -> np.ndarray:
    """Lungs and heart of an image of the phantom, without drawing it.

    Args:
        index, seed, options: of :func:`cxrlib.phantom.population.render`.
        size: pixels per side, any.

    Returns:
        bool (2, size, size), in the order of :data:`ORGANS`; no pixel is in both.

    Raises:
        ValueError: an option is out of its range.

    >>> organs(3, 16).any(axis=(1, 2)).tolist()
    [True, True]
    """
    parts = anatomy.soft_parts(prepared(index, seed, controls_of(**options)).chest, size)
    heart = parts["heart"]
    return np.stack([(parts["fields"][0] | parts["fields"][1]) & ~heart, heart])


def organs_of(dataset: CXRDataset, size: int, seed: int, options: dict[str, Any]) -> np.ndarray:
    """Lungs and heart of a part of the phantom's dataset.

    Args:
        dataset: of :func:`cxrlib.phantom.dataset.load`.
        size: pixels per side.
        seed, options: given there; how many images it has does not matter.

    Returns:
        bool (N, 2, size, size).
    """
    drawn = {name: value for name, value in options.items() if not name.startswith("n_")}
    masks = [organs(int(name), size, seed=seed, **drawn) for name in dataset.image_ids]
    return np.stack(masks)
