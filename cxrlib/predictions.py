"""The predictions file: what a model says of a dataset, in a format that anyone's model can write.

The file is an ``.npz`` of plain arrays, read without pickle. ``predictions.schema.json`` describes
its header; the book's page "The predictions file" shows how to write one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from cxrlib.archives import load_arrays
from cxrlib.checks import finding_columns, some, unique_names, unit_numbers
from cxrlib.datasets.base import CXRDataset, Truth
from cxrlib.findings import FINDINGS
from cxrlib.parameters import nearest

SCHEMA: dict[str, Any] = json.loads(
    (resources.files("cxrlib") / "predictions.schema.json").read_text()
)
"""JSON Schema (draft 2020-12) of the header: what ``predictions.schema.json`` holds."""

_PAGE = "the book's page 'The predictions file' describes the format"
_VALUES = ("schema", "findings", "frame")  # what a header holds itself, not its dtype and shape


@dataclass(frozen=True)
class Predictions:
    """What a model says of a dataset.

    Made and checked by :meth:`from_arrays`, :meth:`read` or :func:`cxrlib.inference.predict`.

    Attributes:
        image_ids: (N,) strings.
        scores: float32 (N, 14), probabilities; a finding the model does not know is all NaN.
        map_ids: (M,) strings: the images whose maps are kept, such as those with boxes.
        maps: float16 or float32 (M, 14, h, h), 0 to 1; NaN where ``scores`` are.
        frame: side in pixels of the square images the maps cover; 0 if there are no maps.
    """

    image_ids: np.ndarray
    scores: np.ndarray
    map_ids: np.ndarray
    maps: np.ndarray
    frame: int

    @classmethod
    def from_arrays(
        cls,
        image_ids: Iterable[str],
        scores: ArrayLike | Tensor,
        *,
        findings: Sequence[str] = FINDINGS,
        map_ids: Iterable[str] | None = None,
        maps: ArrayLike | Tensor | None = None,
        frame: int | None = None,
    ) -> "Predictions":
        """Check any model's arrays, lists or tensors, and put their columns into our order.

        Arrays of all 14 findings in our order are taken over without a copy.

        Args:
            image_ids: N names of images, without folder and suffix, each once.
            scores: (N, C), probabilities from 0 to 1.
            findings: names of the C columns, in any known spelling.
            map_ids: M of ``image_ids``; none if the model has no maps.
            maps: (M, C, h, h), 0 to 1. Float64 is stored as float16.
            frame: side in pixels of the square images the maps cover, at least h.

        Raises:
            ValueError: says what was given, what was expected and how to mend it.

        >>> made = Predictions.from_arrays(["a", "b"], [[0.2], [0.9]], findings=["Infiltrate"])
        >>> made.scores.shape, made.scores[:, 3].tolist(), len(made.maps)
        ((2, 14), [0.20000000298023224, 0.8999999761581421], 0)
        """
        columns = finding_columns(findings)
        images = unique_names("image_ids", image_ids)
        if not len(images):
            raise ValueError("image_ids are empty; at least one image was expected")
        numbers = unit_numbers("scores", scores, (len(images), len(columns)))  # (N, C)
        if numbers.ndim != 2:
            raise ValueError(f"scores have shape {numbers.shape}; (N, C) was expected")
        parts = {"map_ids": map_ids, "maps": maps, "frame": frame}
        absent = [name for name, part in parts.items() if part is None]
        if absent and len(absent) < len(parts):
            raise ValueError(
                f"{' and '.join(absent)} missing: map_ids, maps and frame are given together, or "
                "none of them"
            )
        full = _all_columns(numbers.astype(np.float32, copy=False), columns)  # (N, 14)
        if map_ids is None or maps is None or frame is None:
            nothing = np.empty((0, len(FINDINGS), 0, 0), np.float16)
            return cls(images, full, images[:0], nothing, 0)
        return cls(images, full, *_located(images, columns, map_ids, maps, frame))

    @property
    def known(self) -> np.ndarray:
        """Which findings the model predicts: bool (14,)."""
        return ~np.isnan(self.scores).all(axis=0)

    def write(self, file: Any) -> None:
        """Write the ``.npz``, of known findings only, to an open binary file."""
        arrays: dict[str, Any] = {"image_ids": self.image_ids, "scores": self.scores[:, self.known]}
        if len(self.map_ids):
            maps = self.maps[:, self.known]
            arrays |= {"map_ids": self.map_ids, "maps": maps, "frame": self.frame}
        np.savez_compressed(file, schema=1, findings=np.array(FINDINGS)[self.known], **arrays)

    @classmethod
    def read(cls, path: Path | str) -> "Predictions":
        """Read and check a file that :meth:`write`, or anyone, has written.

        Raises:
            ValueError: the file is none, is damaged or breaks the format.
        """
        try:
            held = load_arrays(path, [*SCHEMA["properties"]])
            _check_header({name: _described(name, array) for name, array in held.items()})
            frame = int(held["frame"]) if "frame" in held else None
            findings = held["findings"].tolist()
            parts = {name: held.get(name) for name in ("map_ids", "maps")}
            return cls.from_arrays(
                held["image_ids"], held["scores"], findings=findings, frame=frame, **parts
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}; {_PAGE}") from error

    def aligned(self, dataset: CXRDataset) -> "Predictions":
        """The same predictions for a dataset's images, in the order of the dataset.

        Images that the dataset does not have are left out.

        Args:
            dataset: every image must have scores, and, if there are maps at all, every image with
                a box a map.

        Raises:
            ValueError: an image is missing; the message counts them and names three.
        """
        rows = _rows(self.image_ids, dataset.image_ids)
        _refuse_missing(self.image_ids, dataset, rows < 0)
        places = _rows(self.map_ids, dataset.image_ids)
        kept = places >= 0
        boxed = np.isin(dataset.image_ids, dataset.boxes["image_id"].to_numpy(str))
        if len(self.map_ids):
            _refuse_unmapped(dataset.image_ids[boxed & ~kept])
        return replace(
            self,
            image_ids=dataset.image_ids,
            scores=self.scores[rows],
            map_ids=dataset.image_ids[kept],
            maps=self.maps[places[kept]],
        )

    def pairs(self, truth: Truth) -> np.ndarray:
        """The maps of the truth's (image, finding) pairs, (P, h, h).

        Args:
            truth: of the dataset that these predictions are :meth:`aligned` with.

        Raises:
            ValueError: an image of the truth has no map.
        """
        wanted = self.image_ids[truth.image]
        rows = _rows(self.map_ids, wanted)
        _refuse_unmapped(np.unique(wanted[rows < 0]))
        return self.maps[rows, truth.finding]


def _described(name: str, array: np.ndarray) -> Any:
    """The header's entry for an array."""
    if name in _VALUES:
        return array.tolist()
    dtype = "string" if array.dtype.kind == "U" else array.dtype.name
    return {"dtype": dtype, "shape": list(array.shape)}


def _check_header(header: Mapping[str, Any]) -> None:
    """Raise unless the header is valid; of several faults the message tells the plainest."""
    unknown = [name for name in header if name not in SCHEMA["properties"]]
    if unknown:
        valid = nearest(unknown[0], [*SCHEMA["properties"]])
        raise ValueError(f"the format has no array {unknown[0]!r}; {valid}")
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(SCHEMA).iter_errors(header)
    )
    if error is None:
        return
    if not error.absolute_path:
        raise ValueError(f"it holds {', '.join(header)}, but {error.message}")
    name = error.absolute_path[0]
    expected = SCHEMA["properties"][name]["description"]
    raise ValueError(f"{name!r} is {str(header[name])[:200]}; expected {expected}")


def _located(
    images: np.ndarray,
    columns: list[int],
    map_ids: Iterable[str],
    maps: ArrayLike | Tensor,
    frame: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The checked ``map_ids``, ``maps`` and ``frame``."""
    ids = unique_names("map_ids", map_ids)
    stray = ids[_rows(images, ids) < 0]
    if len(stray):
        raise ValueError(f"map_ids: {some(stray)} not in image_ids, such as {str(images[0])!r}")
    numbers = unit_numbers("maps", maps, (len(ids), len(columns)))  # (M, C, h, h)
    h = numbers.shape[2] if numbers.ndim == 4 else 0
    if numbers.shape[2:] != (h, h) or (len(ids) and not h):
        raise ValueError(f"maps have shape {numbers.shape}; (M, C, h, h) was expected, square maps")
    if not isinstance(frame, int | np.integer) or frame < max(h, 1):
        raise ValueError(
            f"frame = {frame!r}; the side in pixels of the image that a map of {h} x {h} cells "
            f"covers was expected, an integer of at least {max(h, 1)}"
        )
    if numbers.dtype.itemsize > 4:
        numbers = numbers.astype(np.float16)
    return ids, _all_columns(numbers, columns), int(frame)


def _all_columns(values: np.ndarray, columns: list[int]) -> np.ndarray:
    """Known columns (K, C, ...) among all: (K, 14, ...), NaN elsewhere."""
    if columns == list(range(len(FINDINGS))):
        return values  # of the whole test part they are gigabytes
    full = np.full((len(values), len(FINDINGS), *values.shape[2:]), np.nan, values.dtype)
    full[:, columns] = values
    return full


def _rows(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted name is among ``ids``, -1 where it is not."""
    return pd.Index(ids).get_indexer(wanted)


def _refuse_missing(ids: np.ndarray, dataset: CXRDataset, missing: np.ndarray) -> None:
    """Raise if any of the dataset's images is missing from ``ids``."""
    absent = dataset.image_ids[missing]
    if len(absent) and len(absent) == len(dataset):
        raise ValueError(
            f"none of the {len(dataset)} images of {dataset.name!r} is in the predictions: the "
            f"dataset has {str(absent[0])!r} and the predictions {str(ids[0])!r}; ids are names "
            "of files without folder and suffix, '00000013_005' and not '00000013_005.png'"
        )
    if len(absent):
        raise ValueError(
            f"{some(absent)} of the {len(dataset)} images of {dataset.name!r} are missing from "
            "the predictions; run the model on them too"
        )


def _refuse_unmapped(ids: np.ndarray) -> None:
    """Raise if any image needs a map and has none."""
    if len(ids):
        raise ValueError(
            f"images with boxes but without a map: {some(ids)}; write the maps of every image "
            "with a box"
        )
