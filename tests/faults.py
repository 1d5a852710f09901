"""A bench of faults: ``python tests/faults.py --rounds 10``.

Five kinds of work are disturbed at random moments: filling the cache of images, training a run,
downloading, mining boxes, scoring. They are killed, find a full disk or one that cannot be written,
lose a file while they read, or are done twice at once. Afterwards every file that is there is
whole, whoever gave up said why, and the same work once more gives what it gives undisturbed.

Each piece of work is a process that is forked from this one, which computes nothing itself. Linux
only: disks are mounted in namespaces of their own, for which root or user namespaces are needed.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from loopback import Loopback
from PIL import Image

from cxrlib import cli, metrics, runs, training
from cxrlib.datasets import fetch, folder
from cxrlib.files import write_atomic
from cxrlib.inference import predict
from cxrlib.models import create_model
from cxrlib.models.lse_lba import LSELBAParameters
from cxrlib.predictions import Predictions

DONE, REFUSED, CRASHED, STOPPED = 0, 1, 3, 143
SIZE, EPOCHS = 32, 3
SMALL = {"width": 4, "levels": 1, "growth": 2, "layers": 1}
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


@dataclass(frozen=True)
class Work:
    """What is disturbed: done in a place, from inputs beside it, with results to compare."""

    do: Callable[[Path, Path], object]  # inputs, place
    results: Callable[[Path], dict[str, object]]  # of the files that are there
    reads: str  # pattern of the input files that may be lost


def _images(inputs: Path) -> Path:
    return inputs / "images"


def fill_cache(inputs: Path, place: Path) -> None:
    """Decode all images once."""
    os.environ["CXRLIB_CACHE"] = str(place / "cache")
    split = folder.load(_images(inputs), SIZE)
    kept = np.stack([split.train[i].image.numpy() for i in range(len(split.train))])
    # What a reader of the cache gets.
    write_atomic(place / "seen.npy", lambda file: np.save(file, kept))


def train(inputs: Path, place: Path) -> None:
    """A run of a small network, as a notebook makes it."""
    os.environ["CXRLIB_CACHE"] = str(inputs / "cache")
    params = LSELBAParameters(
        preset="smoke",
        dataset="folder",
        data_dir=str(_images(inputs)),
        run_dir=str(place / "run"),
        seed=0,
        image_size=SIZE,
        epochs=EPOCHS,
        batch_size=8,
        learning_rate=None,
        accelerator="cpu",
        num_workers=0,
        r0=5.0,
    )
    split = folder.load(_images(inputs), SIZE)
    run = runs.start("lse_lba", params, {**vars(params), "network": SMALL}, split)
    torch.manual_seed(0)
    model = create_model("lse_lba", **SMALL)
    how = {"batch_size": 8, "accelerator": "cpu"}
    training.fit(model, split, run.workspace, epochs=EPOCHS, **how)
    predictions = predict(model, split.test, **how)
    run.finish(metrics.evaluate(predictions, split.test, replicates=10), {}, predictions)


def download(inputs: Path, place: Path) -> None:
    """One file over HTTP."""
    fetch.fetch((inputs / "link").read_text(), place / "file", timeout_s=5)


def mine(inputs: Path, place: Path) -> int:
    """``cxrlib harvest``, both of its files."""
    os.environ["CXRLIB_CACHE"] = str(inputs / "cache")
    where = ["--dataset", "folder", "--data-dir", str(_images(inputs))]
    outputs = ["--csv", str(place / "boxes.csv"), "--coco", str(place / "boxes.json")]
    return cli.main(["harvest", str(inputs / "run"), *where, *outputs])


def score(inputs: Path, place: Path) -> int:
    """``cxrlib score``, three of its files."""
    os.environ["CXRLIB_CACHE"] = str(inputs / "cache")
    where = ["--dataset", "folder", "--data-dir", str(_images(inputs)), "--replicates", "10"]
    outputs = [
        word
        for suffix in ("csv", "json", "html")
        for word in (f"--{suffix}", str(place / f"report.{suffix}"))
    ]
    return cli.main(["score", str(inputs / "predictions.npz"), *where, *outputs])


def files(*names: str) -> Callable[[Path], dict[str, object]]:
    """Results that are files, equal in every byte."""
    return lambda place: {
        name: (place / name).read_bytes() for name in names if (place / name).exists()
    }


def of_run(place: Path) -> dict[str, object]:
    """What a finished run says, without its times."""
    run = place / "run"
    if not run.exists():
        return {}
    json.loads((run / "metrics.json").read_text())
    assert (run / "best.ckpt").exists() and (run / "history.json").exists()
    held = Predictions.read(run / "predictions.npz")
    return {"scores": held.scores, "maps": held.maps}


WORKS = {
    "cache": Work(fill_cache, files("seen.npy"), "images/*.png"),
    "training": Work(train, of_run, "images/labels.csv"),
    "download": Work(download, files("file"), "link"),
    "harvest": Work(mine, files("boxes.csv", "boxes.json"), "run/*.*"),
    "score": Work(score, files("report.csv", "report.json", "report.html"), "predictions.npz"),
}


def prepare(inputs: Path) -> None:
    """Images with labels and boxes, a finished run on them, and its predictions."""
    images = _images(inputs)
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels, boxes = ["image,split,Mass,Effusion"], ["image,finding,x0,y0,x1,y1"]
    for i in range(60):
        part, positive = ("train", "val", "test")[min(i // 24, 2)], i % 2
        labels.append(f"i{i:02}.png,{part},{positive},{i // 2 % 2}")
        if positive and part == "test":
            boxes.append(f"i{i:02}.png,Mass,10,20,60,80")
        pixels = rng.integers(0, 256, (96, 96), np.uint8)
        Image.fromarray(pixels).save(images / f"i{i:02}.png")
    (images / "labels.csv").write_text("\n".join(labels) + "\n")
    (images / "boxes.csv").write_text("\n".join(boxes) + "\n")
    train(inputs, inputs)
    shutil.copy(inputs / "run" / "predictions.npz", inputs / "predictions.npz")


def equal(one: object, other: object) -> bool:
    """Bytes to the last one; what training gives to what adding up in another order may change."""
    if isinstance(one, bytes):
        return one == other
    return np.shape(one) == np.shape(other) and np.allclose(one, other, atol=2e-3, equal_nan=True)


def started(act: Callable[[], object], log: Path) -> int:
    """Fork a process that does something and says in its status how it ended; its number."""
    if number := os.fork():
        return number
    status = CRASHED
    try:
        with open(log, "a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            status = REFUSED if act() == 1 else DONE
    except (OSError, ValueError, RuntimeError) as error:
        status = REFUSED if str(error) else CRASHED
        print(f"refused: {error}", file=sys.stderr, flush=True)
    except SystemExit:  # on SIGTERM Lightning leaves at the end of a step
        status = STOPPED
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def ended(number: int) -> int:
    """The status with which a process ended; of a killed one minus its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def namespace() -> None:
    """From here on this process mounts for itself alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER
    _called(libc.unshare(flags), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source.encode(), str(target).encode(), kind.encode() or None)
    _called(libc.mount(*words, flags, options.encode() or None), f"mount {target}")


def _called(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise PermissionError(number, f"{what}: {os.strerror(number)}; run as root")


class Bench:
    """The works in a folder, what each gives undisturbed, and how long it takes."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.inputs, self.log = root, root / "inputs", root / "log"
        self.chance = random.Random(seed)
        self.expected: dict[str, dict[str, object]] = {}
        self.seconds: dict[str, float] = {}

    def begin(self, content: bytes, link: str) -> None:
        """Make the inputs, and do each work once in peace."""
        assert ended(started(lambda: prepare(self.inputs), self.log)) == DONE, self.said()
        (self.inputs / "link").write_text(link)
        for name, work in WORKS.items():
            place = self.fresh()
            start = time.monotonic()
            assert self.done(name, place) == DONE, self.said()
            self.seconds[name] = time.monotonic() - start
            self.expected[name] = work.results(place)
        assert self.expected["download"] == {"file": content}

    def fresh(self) -> Path:
        place = self.root / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def said(self) -> str:
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def start(self, name: str, place: Path) -> int:
        return started(lambda: WORKS[name].do(self.inputs, place), self.log)

    def done(self, name: str, place: Path) -> int:
        return ended(self.start(name, place))

    def moment(self, name: str) -> None:
        time.sleep(self.chance.uniform(0, self.seconds[name]))

    def whole(self, name: str, place: Path) -> None:
        """What is there is as if nothing had happened."""
        for artefact, value in WORKS[name].results(place).items():
            same = equal(value, self.expected[name][artefact])
            assert same, f"{name}: {artefact} is not as undisturbed"

    def again(self, name: str, place: Path) -> None:
        """The same work once more succeeds with the same results."""
        self.whole(name, place)
        assert self.done(name, place) == DONE, self.said()
        self.whole(name, place)
        assert WORKS[name].results(place).keys() == self.expected[name].keys(), name
        left = [path for path in place.rglob("*") if path.suffix in (".part", ".partial")]
        assert not left, f"{name} left {left}"

    def killed(self, name: str, by: signal.Signals) -> int:
        """Killed, twice in a row; how often before it had ended."""
        place, struck = self.fresh(), 0
        for _ in range(2):
            number = self.start(name, place)
            self.moment(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, by)
            status = ended(number)
            assert status in (DONE, REFUSED, STOPPED, -by), self.said()
            struck += status != DONE
            self.whole(name, place)
        self.again(name, place)
        return struck

    def full_disk(self, name: str) -> int:
        """A disk that holds a part of what is written; then there is room."""
        share = self.chance.uniform(0, 0.9)
        return self.on_disk(name, lambda need: int(need * share))

    def read_only(self, name: str) -> int:
        """A disk that cannot be written; then it can."""
        return self.on_disk(name, lambda need: None)

    def on_disk(self, name: str, size: Callable[[int], int | None]) -> int:
        """Work on a disk of some bytes, or, for None, on one that is read-only; then mend it."""
        place = self.fresh()
        assert self.done(name, place) == DONE, self.said()
        need = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        place = self.fresh()

        def act() -> None:
            namespace()
            room = size(need)
            limit = f"size={max(room or 0, 4096)}"
            mount("tmpfs", place, "tmpfs", options=limit)
            if room is None:
                mount("tmpfs", place, "tmpfs", MS_REMOUNT | MS_RDONLY, limit)
            status = self.done(name, place)
            assert status == REFUSED, f"{name} on a disk with {limit} ended with {status}"
            self.whole(name, place)
            mount("tmpfs", place, "tmpfs", MS_REMOUNT, "size=2g")
            self.again(name, place)

        assert ended(started(act, self.log)) == DONE, self.said()
        return 1

    def robbed(self, name: str) -> int:
        """A file that is read goes away at some moment, and comes back."""
        place = self.fresh()
        path = self.chance.choice(sorted(self.inputs.glob(WORKS[name].reads)))
        away = self.root / "away"
        number = self.start(name, place)
        self.moment(name)
        path.rename(away)
        status = ended(number)
        away.rename(path)
        assert status in (DONE, REFUSED), self.said()
        self.again(name, place)
        return 1

    def twice(self, name: str) -> int:
        """Two processes do it at once."""
        place = self.fresh()
        numbers = [self.start(name, place) for _ in range(2)]
        statuses = [ended(number) for number in numbers]
        assert set(statuses) <= {DONE, REFUSED} and DONE in statuses, self.said()
        self.again(name, place)
        return 1


FAULTS: dict[str, Callable[[Bench, str], int]] = {
    "SIGKILL": lambda bench, name: bench.killed(name, signal.SIGKILL),
    "SIGTERM": lambda bench, name: bench.killed(name, signal.SIGTERM),
    "full disk": Bench.full_disk,
    "read-only disk": Bench.read_only,
    "file lost": Bench.robbed,
    "twice at once": Bench.twice,
}


@contextlib.contextmanager
def bench(seed: int) -> Iterator[Bench]:
    """A bench that is ready, in a folder that goes away."""
    content = random.Random(0).randbytes(20_000_000)
    with tempfile.TemporaryDirectory() as root, Loopback() as server:
        server.files["/file"], server.headers = content, {"ETag": '"1"'}
        made = Bench(Path(root), seed)
        made.begin(content, server.link("/file"))
        yield made


def main() -> None:
    """Inject every fault into every work, some times; the first broken rule ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10, help="of every fault in every work")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    count = Counter[str]()
    with bench(chosen.seed) as ready:
        for _ in range(chosen.rounds):
            for fault, inject in FAULTS.items():
                for name in WORKS:
                    count[f"{fault}, {name}"] += inject(ready, name)
    for place, struck in count.items():
        print(f"{struck:4} x {place}")
    print(f"{count.total()} faults: every file whole or absent, every result as undisturbed")


if __name__ == "__main__":
    main()
