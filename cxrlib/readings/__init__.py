"""A reading: what a model says of radiographs of one's own, files without labels.

:func:`find_files` and :func:`sound` choose the files, :func:`read` asks the model, and
:mod:`cxrlib.readings.folder` writes what it said: pictures, a document and a page. None of this is
a diagnosis.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrlib.datasets.base import scaled
from cxrlib.datasets.boxes import original_boxes
from cxrlib.datasets.images import SUFFIXES, inspect, read_grey
from cxrlib.datasets.square import square
from cxrlib.harvest import regions
from cxrlib.inference import device_type
from cxrlib.metrics.regions import upsample
from cxrlib.progress import track
from cxrlib.weights import Described

SIDE = 384
"""Of the picture of a radiograph, its longer side, pixels."""
BATCH = 16
SHARE = 0.5
"""Of a map's range, from which on a pixel is in a box: as ``cxrlib harvest`` has it."""


@dataclass(frozen=True)
class Reading:
    """What a model says of one radiograph.

    Attributes:
        file: as it was given.
        height, width: of the original image, pixels.
        picture: uint8 (SIDE, SIDE), the image padded to a square.
        scores: float32 (14,), probabilities as the model states them; they are not calibrated.
        maps: float32 (14, S, S), 0 to 1, in the frame of the images that the model sees.
    """

    file: Path
    height: int
    width: int
    picture: np.ndarray
    scores: np.ndarray
    maps: np.ndarray

    def top(self, count: int) -> list[int]:
        """The findings with the highest scores, the highest first."""
        return np.argsort(-self.scores, kind="stable")[:count].tolist()

    def peak(self, finding: int) -> tuple[float, float] | None:
        """Where a map is highest within the image: x and y in pixels of the original image.

        None for a constant map. It is the centre of the first pixel of the model's frame.
        """
        S = self.maps[finding]
        sides, long = (self.height, self.width), max(self.height, self.width)
        centres = (np.arange(len(S)) + 0.5) / len(S) * long
        y, x = (centres - (long - side) // 2 for side in sides)
        rows, columns = ((at >= 0) & (at < side) for at, side in zip((y, x), sides, strict=True))
        within = S[np.ix_(rows, columns)]
        if within.max() == within.min():
            return None
        row, column = np.unravel_index(within.argmax(), within.shape)
        return float(x[columns][column]), float(y[rows][row])

    def boxes(self, finding: int) -> list[dict[str, Any]]:
        """Boxes around the regions of a map, as :func:`cxrlib.harvest.harvest` mines them.

        Returns:
            ``box``, xyxy in pixels of the original image, half-open, and ``score``, 0 to 1, of
            each, the best first.
        """
        S = self.maps[finding]
        found, highest = regions(S, SHARE)
        heights, widths = np.full((2, len(found)), [[self.height], [self.width]])
        corners = original_boxes(found / len(S), heights, widths).round(1)
        kept = (corners[:, 2:] > corners[:, :2]).all(axis=1)  # the rest lie on the padding
        scores = self.scores[finding] * highest
        order = np.argsort(-scores[kept], kind="stable")
        pairs = zip(corners[kept][order].tolist(), scores[kept][order].tolist(), strict=True)
        return [{"box": box, "score": round(score, 4)} for box, score in pairs]


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and those of images in the folders that are.

    Args:
        paths: of files of any name, and of folders, which are searched at any depth for PNG, JPEG
            and DICOM by their suffixes.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a folder has no image.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            within = sorted(p for p in inside if not p.name.startswith("."))
            if not within:
                raise ValueError(f"{path} has no image; expected files {', '.join(SUFFIXES)}")
            files += within
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist; give files or folders of images")
    return [*dict.fromkeys(files)]


def sound(files: Sequence[Path]) -> dict[Path, str]:
    """What is wrong with each file by its header and its last bytes; ``""``: nothing."""
    return {path: inspect(str(path))[2] for path in track(files, "checking files", len(files))}


def read(described: Described, files: Sequence[Path]) -> Iterator[tuple[Path, Reading | str]]:
    """Ask a model about files, in batches.

    Args:
        described: the model and the size of the images it was trained on.
        files: PNG, JPEG or DICOM of any shape; padded with black, centred, to squares.

    Yields:
        each file in order, with its reading, or with what is wrong with it if it cannot be decoded.
    """
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    for batch in track(batches, "reading images", len(batches)):
        greys = {path: _decoded(path) for path in batch}
        good = {path: grey for path, grey in greys.items() if not isinstance(grey, str)}
        readings = {reading.file: reading for reading in _ask(described, good)}
        for path, grey in greys.items():
            yield path, grey if isinstance(grey, str) else readings[path]


def _ask(described: Described, greys: dict[Path, np.ndarray]) -> Iterator[Reading]:
    """The readings of a batch, of images of any shapes."""
    if not greys:
        return
    device, size = torch.device(device_type("auto")), described.about["image_size"]
    pixels = torch.from_numpy(np.stack([square(grey, size) for grey in greys.values()]))
    with torch.inference_mode():
        logits, maps = described.model.to(device)(scaled(pixels[:, None].to(device)))
    scores, cells = logits.float().sigmoid().cpu().numpy(), maps.float().cpu().numpy()
    for (path, grey), p, S in zip(greys.items(), scores, cells, strict=True):
        height, width = grey.shape
        wide = np.stack([upsample(of_finding, size) for of_finding in S])  # (14, S, S)
        yield Reading(path, height, width, square(grey, SIDE), p, wide)


def _decoded(path: Path) -> np.ndarray | str:
    """The grey image, or what is wrong with it."""
    try:
        return read_grey(path, "give a whole PNG, JPEG or DICOM")
    except OSError as error:
        return str(error).removeprefix(f"{path} ")
