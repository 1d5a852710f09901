"""Readers of files, and the rules that they keep with damaged and hostile ones.

``test_fuzzing.py`` tries them with hypothesis, ``fuzz.py`` for longer with atheris.
"""

import io
import json
import os
import pickle
import resource
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from test_datasets_dicom import RAMP, look_up, make, noise, to_bytes

from cxrlib.checkpoints import load_model
from cxrlib.datasets import folder, images, nih
from cxrlib.models import create_model
from cxrlib.predictions import Predictions
from cxrlib.weights import read_weights
from cxrlib.weights.ship import write_weights

MORE_MEMORY = 2**31
"""Bytes of address space that a reader may take for a file of a few kilobytes."""

SMALL = {"width": 2, "levels": 1, "growth": 2, "layers": 1}


@dataclass(frozen=True)
class Target:
    """A reader, the name of its file, whole files to start from, and what it may raise."""

    file: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...] = (ValueError,)


class Payload:
    """An object that is unpickled by making a folder, which no reader may do."""

    folder = Path(tempfile.gettempdir()) / f"unpickled-{os.getpid()}"

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def _image_seeds() -> list[bytes]:
    grey = Image.fromarray(noise(8))
    made = []
    for picture, options in (
        (grey, {"format": "PNG"}),
        (Image.fromarray(RAMP), {"format": "PNG"}),
        (grey.convert("RGBA"), {"format": "PNG"}),
        (grey.convert("P"), {"format": "PNG"}),
        (grey, {"format": "JPEG"}),
        (grey.convert("RGB"), {"format": "JPEG", "progressive": True}),
    ):
        picture.save(file := io.BytesIO(), **options)
        made.append(file.getvalue())
    return made


def _dicom_seeds() -> list[bytes]:
    window = {"WindowCenter": 700, "WindowWidth": 300, "RescaleSlope": 2, "RescaleIntercept": -9}
    table = look_up(list(range(0, 4096, 16)), first=5)
    data = [
        make(noise(), **window),
        make(noise(), syntax=ImplicitVRLittleEndian, PixelPaddingValue=7),
        make(noise(8), 8, DeflatedExplicitVRLittleEndian, VOILUTSequence=table),
        make(noise(12, signed=True), ModalityLUTSequence=table),
        make(RAMP, syntax=RLELossless, frames=[_run_lengths(RAMP)]),
    ]
    return [to_bytes(of) for of in data]


def _run_lengths(stored: np.ndarray) -> bytes:
    """Pixels of 16 bits as one RLE frame (PS3.5, annex G): all high bytes, then all low ones."""
    planes = [bytes(stored.astype(">u2").tobytes()[byte::2]) for byte in (0, 1)]
    parts = []
    for plane in planes:
        runs = [plane[i : i + 128] for i in range(0, len(plane), 128)]
        packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
        parts.append(packed + bytes(len(packed) % 2))
    offsets = np.zeros(16, "<u4")
    offsets[:3] = 2, 64, 64 + len(parts[0])
    return offsets.tobytes() + b"".join(parts)


def _prediction_seeds() -> list[bytes]:
    names = [f"i{n}" for n in range(3)]
    scores, maps = np.full((3, 14), 0.25), np.full((2, 14, 4, 4), 0.5)
    made = []
    for parts in ({}, {"map_ids": names[:2], "maps": maps, "frame": 32}):
        Predictions.from_arrays(names, scores, **parts).write(file := io.BytesIO())
        made.append(file.getvalue())
    np.savez(file := io.BytesIO(), image_ids=np.array([Payload()]), scores=scores)
    return [*made, file.getvalue()]


@cache
def _checkpoint_seeds() -> list[bytes]:
    model = create_model("lse_lba", **SMALL)
    kept = {
        "model_class": "LSELBA",
        "hyper_parameters": dict(model.hparams),
        "state_dict": model.state_dict(),
    }
    made = []
    for stored in (kept, kept | {"callbacks": Payload()}):
        torch.save(stored, file := io.BytesIO())
        made.append(file.getvalue())
    return [*made, pickle.dumps(Payload(), protocol=2)]


def _read_checkpoint(path: Path) -> object:
    for name, content in (("metrics", {}), ("params", {}), ("environment", {"key": "k"})):
        (path.parent / f"{name}.json").write_text(json.dumps(content))
    return load_model(path.parent)


def _run_seeds() -> list[bytes]:
    return [b'{"key": "k", "git_commit": null}', b"[]", b'"key"', b"{}"]


def _read_run(path: Path) -> object:
    (path.parent / "best.ckpt").write_bytes(_checkpoint_seeds()[0])
    for name in ("metrics", "params"):
        (path.parent / f"{name}.json").write_text("{}")
    return load_model(path.parent)


def _weight_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "w.safetensors"
        about = {"method": "lse_lba", "arguments": SMALL}
        write_weights(create_model("lse_lba", **SMALL), about, path)
        return [path.read_bytes()]


def _label_seeds() -> list[bytes]:
    rows = "a.png,p1,train,1,,0\nb.png,p2,val,0,1,\nc.png,p3,test,1,0,1\n"
    return [
        f"image,patient,split,Mass,Nodule,Hernia\n{rows}".encode(),
        b'\xef\xbb\xbfimage,Mass\r\n"a.png", 1\r\nb.png,0\r\nc.png,\r\n',
    ]


def _read_labels(path: Path) -> object:
    for name in "abc":
        Image.new("L", (32, 40), 9).save(path.parent / f"{name}.png")
    return folder.load(path.parent, 32, cache=False)


def _box_seeds() -> list[bytes]:
    return [b"image,finding,x0,y0,x1,y1\nc.png,Mass,1,2,20,30\nc.png,Hernia,0,0,32,40\n"]


def _read_boxes(path: Path) -> object:
    (path.parent / "labels.csv").write_bytes(_label_seeds()[0])
    return _read_labels(path.parent / "labels.csv")


def _nih_seeds() -> list[bytes]:
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,View Position\n"
    rows = ("00000001_000.png,Mass|Nodule,0,1,58,PA\n", "00000002_000.png,No Finding,0,2,41,AP\n")
    return [(head + "".join(rows)).encode()]


def _read_nih(path: Path) -> object:
    place = path.parent
    (place / "train_val_list.txt").write_text("00000001_000.png\n")
    (place / "test_list.txt").write_text("00000002_000.png\n")
    (place / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000002_000.png,Mass,1,2,30,40\n"
    )
    return nih.read_tables(place)


TARGETS = {
    "image": Target("a.png", _image_seeds, images.read_grey, (OSError,)),
    "shape": Target("a.jpg", _image_seeds, images.image_shape, (OSError,)),
    "dicom": Target("a.dcm", _dicom_seeds, images.read_grey, (OSError,)),
    "labels": Target("labels.csv", _label_seeds, _read_labels),
    "boxes": Target("boxes.csv", _box_seeds, _read_boxes),
    "nih": Target("Data_Entry_2017.csv", _nih_seeds, _read_nih),
    "predictions": Target("p.npz", _prediction_seeds, Predictions.read),
    "checkpoint": Target("best.ckpt", _checkpoint_seeds, _read_checkpoint),
    "run": Target("environment.json", _run_seeds, _read_run),
    "weights": Target("w.safetensors", _weight_seeds, read_weights),
}


def probe(target: Target, data: bytes) -> bool:
    """Read a file with this content; whether it was taken.

    Raises:
        AssertionError: the refusal does not name the file, something was written or unpickled.
        Exception: whatever else than a refusal the reader raises, MemoryError among it.
    """
    with tempfile.TemporaryDirectory() as place:
        inside = Path(place) / "given"
        inside.mkdir()
        path = inside / target.file
        path.write_bytes(data)
        try:
            with memory_limited():
                target.read(path)
            taken = True
        except target.refuses as error:
            named = str(path) in str(error) or str(inside) in str(error)
            assert named and len(str(error)) < 4000, f"a refusal that helps nobody: {error!r}"
            taken = False
        assert [entry.name for entry in Path(place).iterdir()] == ["given"]
        assert path.read_bytes() == data, "the reader changed the file"
        assert not Payload.folder.exists(), "the reader ran code from the file"
    return taken


@contextmanager
def memory_limited() -> Iterator[None]:
    """Within it no more than :data:`MORE_MEMORY` can be allocated on top of what there is."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def repacked(data: bytes, member: int, edit: Callable[[bytes], bytes]) -> bytes:
    """A zip archive with one member edited and its checksum right; of other files all is edited."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return edit(data)
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        names = given.namelist()
        kept = {name: given.read(name) for name in names}
    chosen = names[member % len(names)]
    kept[chosen] = edit(kept[chosen])
    with zipfile.ZipFile(file := io.BytesIO(), "w") as made:
        for name, content in kept.items():
            made.writestr(name, content)
    return file.getvalue()
