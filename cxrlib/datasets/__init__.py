"""Datasets behind one type; see :mod:`cxrlib.datasets.base` for what a sample holds."""

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cxrlib.parameters import nearest

if TYPE_CHECKING:
    from cxrlib.datasets.base import Split

LOADERS = {
    "phantom": "cxrlib.phantom.dataset",
    "nih": "cxrlib.datasets.nih",
    "chexpert": "cxrlib.datasets.chexpert",
    "vindr": "cxrlib.datasets.vindr",
    "folder": "cxrlib.datasets.folder",
}
"""Module of each dataset; its ``load`` has the dataset's options, and is imported on demand."""


def load(
    name: str, data_dir: str | None, image_size: int, *, seed: int = 0, **options: Any
) -> "Split":
    """The patient-disjoint split of a dataset by name.

    Args:
        name: one of :data:`LOADERS`.
        data_dir: folder of the release; the phantom has none.
        image_size: H = W of the samples, pixels.
        seed: of the split, and of the phantom's population.
        options: of the dataset's own ``load``, e.g. :func:`cxrlib.datasets.nih.load`.

    Raises:
        ValueError: no such dataset or option, a folder is missing or superfluous, or an option is
            out of range.
        OSError: a file of the dataset is absent or damaged.

    >>> load("nhi", "/data/nih", 256)
    Traceback (most recent call last):
    ValueError: no dataset 'nhi'; did you mean 'nih'? Valid: phantom, nih, chexpert, vindr, folder
    """
    if name not in LOADERS:
        raise ValueError(f"no dataset {name!r}; {nearest(name, [*LOADERS])}")
    if name == "phantom" and data_dir is not None:
        raise ValueError(
            f"data_dir {data_dir!r} has no use with the phantom, which is drawn; leave it out, or "
            f"name the dataset in it: {', '.join([*LOADERS][1:])}"
        )
    if name != "phantom" and data_dir is None:
        raise ValueError(
            f"dataset {name!r} needs data_dir, its folder, e.g. cxrlib data {name} "
            f"--data-dir /data/{name}"
        )
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more")
    loader = importlib.import_module(LOADERS[name]).load
    _refuse_unknown(options, name, loader)
    places = [] if data_dir is None else [data_dir]
    return loader(*places, image_size, seed=seed, **options)


def _refuse_unknown(options: dict[str, Any], name: str, loader: "Callable[..., Split]") -> None:
    takes = inspect.signature(loader).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        return  # the loader looks at them itself
    valid = [parameter.name for parameter in takes if parameter.kind is parameter.KEYWORD_ONLY]
    valid.remove("seed")
    for option in options:
        if option not in valid:
            raise ValueError(f"dataset {name!r} has no option {option!r}; {nearest(option, valid)}")
