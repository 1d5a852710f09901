"""Datasets behind one type; see :mod:`cxrlib.datasets.base` for what a sample holds."""

from typing import Any

from cxrlib.datasets.base import Split


def load(
    name: str, data_dir: str | None, image_size: int, *, seed: int = 0, **options: Any
) -> Split:
    """The patient-disjoint split of a dataset by name.

    Args:
        name: ``"phantom"`` or ``"nih"``.
        data_dir: folder of the release; the phantom has none.
        image_size: H = W of the samples, pixels.
        seed: of the split, and of the phantom's population.
        options: of :func:`cxrlib.phantom.dataset.load` or :func:`cxrlib.datasets.nih.load`.

    Raises:
        ValueError: no such dataset, or an option is out of range.
        OSError: a file of the dataset is absent or damaged.
    """
    if name == "phantom":
        from cxrlib.phantom import dataset as phantom

        return phantom.load(image_size, seed=seed, **options)
    if name == "nih" and data_dir is not None:
        from cxrlib.datasets import nih

        return nih.load(data_dir, image_size, seed=seed, **options)
    raise ValueError(
        f"dataset {name!r} with data_dir {data_dir!r}; expected 'phantom', or 'nih' with "
        "the folder of the release"
    )
