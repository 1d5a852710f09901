"""Runs: a folder that exists only when it is complete, and tidy tables of many of them.

A run's key names everything its numbers depend on: parameters, code, data, split, versions, device.
The same key finds the finished run again instead of training twice; an interrupted run goes on.
A folder that holds another run is refused, or, where the caller asks for it, put aside and kept.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import pandas as pd

from cxrlib.datasets.base import Split
from cxrlib.execution import RENEW
from cxrlib.files import digest, explain_os_error, write_atomic, write_json
from cxrlib.findings import FINDINGS
from cxrlib.parameters import Parameters
from cxrlib.provenance import describe_environment

if TYPE_CHECKING:
    from cxrlib.predictions import Predictions

ASIDE = ".superseded-"
"""What ends the name of a run that was put aside, before its key."""

PARTS = ("classification", "localization", "attention", "anatomy")
"""Tables of ``metrics.json`` beside its controls; the last two of some methods only."""


class Run:
    """A run folder in the making; made by :func:`start`.

    Attributes:
        folder: the final name; exists only when the run is complete.
        workspace: where checkpoints go: ``<folder>.partial``, or ``folder`` itself once finished.
        finished: whether the run was complete when it was opened; then nothing is written.
    """

    def __init__(self, folder: Path, params: dict[str, Any], environment: dict[str, Any]) -> None:
        self.folder, self.params, self.environment = folder, params, environment
        key, self.renews = environment["key"], os.environ.get(RENEW) == "1"
        if self.renews and _key_of(folder) != key and self._aside(key).exists():
            self._put_aside()
            self._aside(key).rename(folder)  # parameters and code are what they once were
        self.finished = _key_of(folder) == key and (folder / "metrics.json").exists()
        self.workspace = folder if self.finished else folder.with_name(folder.name + ".partial")
        for place in (folder, self.workspace):  # an empty folder is free to use
            if not (self.renews and _key_of(place)):
                _refuse_other_run(place, key)
        if not self.finished:
            self._open_workspace()

    def _aside(self, key: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}{ASIDE}{key}")

    def _put_aside(self) -> None:
        """Give a run that is in the way another name, where no table counts it."""
        if (key := _key_of(self.folder)) is not None:
            shutil.rmtree(self._aside(key), ignore_errors=True)  # the same run
            self.folder.rename(self._aside(key))

    def _open_workspace(self) -> None:
        try:
            self.workspace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.workspace) from error
        # The lock goes with the process, also when it is killed.
        self._lock = filelock.FileLock(self.workspace / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise RuntimeError(
                f"another process is at work on {self.workspace}; wait for it to end"
            ) from error
        if _key_of(self.workspace) not in (None, self.environment["key"]):
            _empty(self.workspace)  # what another run has left unfinished
        write_json(self.workspace / "params.json", self.params)
        write_json(self.workspace / "environment.json", self.environment)

    def finish(
        self, results: dict[str, Any], seconds: dict[str, float], predictions: "Predictions"
    ) -> Path:
        """Write the results and give the folder its final name; a finished run is left as it is.

        Args:
            results: what :func:`cxrlib.metrics.evaluate` returns.
            seconds: that each stage took.
            predictions: what was scored.

        Returns:
            the run folder.
        """
        if not self.finished:
            write_atomic(self.workspace / "predictions.npz", predictions.write)
            seconds = {**seconds, "total": sum(seconds.values())}
            document = {"schema": 1, **results, "seconds": seconds}
            write_json(self.workspace / "metrics.json", document)
            self._lock.release()
            (self.workspace / ".lock").unlink(missing_ok=True)
            self._put_aside()  # only now that there is something to take its place
            self.workspace.rename(self.folder)
            self.workspace, self.finished = self.folder, True
        return self.folder


def _key_of(folder: Path) -> str | None:
    """The key of the run in a folder, if there is one."""
    record = folder / "environment.json"
    return json.loads(record.read_text())["key"] if record.exists() else None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _refuse_other_run(folder: Path, key: str) -> None:
    """Raise unless a folder is absent, empty, or of a run with this key."""
    if not folder.exists():
        return
    mend = f"choose another place with -p run_dir, or move {folder} away"
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, but a run needs a folder; {mend}")
    if (found := _key_of(folder)) is None and set(os.listdir(folder)) - {".lock"}:
        raise FileExistsError(f"{folder} holds other things than a run; {mend}")
    if found not in (None, key):
        raise FileExistsError(
            f"{folder} holds a run with other parameters, code or data; it is kept as it is: {mend}"
        )


def start(
    notebook: str,
    parameters: Parameters,
    settings: dict[str, Any],
    split: Split,
    room: int | None = None,
) -> Run:
    """Open the folder of a run: new, interrupted (to go on with) or finished (to show).

    Args:
        notebook: name of the notebook, which is the folder's too.
        parameters: as checked by :func:`~cxrlib.parameters.read_parameters`.
        settings: what the preset made of them, and all else that decides the numbers.
        split: its hashes are recorded.
        room: free bytes to ask for before any work; by default what checkpoints and maps may take.

    Raises:
        FileExistsError: the folder belongs to another run.
        OSError: the folder cannot be written, or the disk is nearly full.
        RuntimeError: another process is at work in it.
    """
    environment = describe_environment(parameters, split)
    numbers = {
        name: value
        for name, value in settings.items()
        if name not in ("data_dir", "run_dir", "num_workers")
    }
    environment["key"] = digest(json.dumps([numbers, environment["decides"]], sort_keys=True))
    default = Path("runs") / notebook / environment["key"]
    run = Run(Path(parameters.run_dir or default).resolve(), settings, environment)
    if room is None:
        boxed = split.test.boxes["image_id"].nunique()
        maps = boxed * len(FINDINGS) * (split.test.image_size // 4) ** 2 * 2  # float16
        room = 200_000_000 + maps
    free = shutil.disk_usage(run.workspace).free
    if free < room and not run.finished:
        raise OSError(
            f"{run.workspace} has {free / 1e6:.0f} MB free, this run needs {room / 1e6:.0f}: "
            "free some space, or choose another disk with -p run_dir"
        )
    return run


def in_runs(root: Path, name: str) -> list[Path]:
    """The files of this name in all finished runs below a folder but those that were put aside."""
    return [
        path
        for path in sorted(root.rglob(name))
        if not any(
            ASIDE in part or part.endswith(".partial") for part in path.relative_to(root).parts
        )
    ]


def collect(root: Path) -> pd.DataFrame:
    """All finished runs below a folder as one tidy table.

    Args:
        root: searched for ``metrics.json`` at any depth.

    Returns:
        one row per run, part, metric and finding: run, every parameter but the places, device,
        hashes of source, split and data, commit, part (of :data:`PARTS`, or a control), metric,
        finding, value, low, high, n.
    """
    rows = []
    for path in in_runs(root, "metrics.json"):
        params = json.loads((path.parent / "params.json").read_text())
        environment = json.loads((path.parent / "environment.json").read_text())
        metrics = json.loads(path.read_text())
        for place in ("data_dir", "run_dir"):
            params.pop(place, None)
        origin = {**params, **environment["decides"], "commit": environment["git_commit"]}
        parts = {key: metrics[key] for key in PARTS if key in metrics}
        rows += [
            {
                "run": path.parent.name,
                **origin,
                "part": part,
                "metric": metric,
                "finding": name,
                **N,
            }
            for part, tables in (parts | metrics["controls"]).items()
            for metric, table in tables.items()
            for name, N in _flat(table)
        ]
    return pd.DataFrame(rows)


def committed(name: str, folder: str = "results") -> pd.DataFrame:
    """A table of the repository, made by a longer run.

    Args:
        name: of the file, e.g. ``"lse_lba_r0.csv"``.
        folder: of the repository, ``results`` or ``benchmarks``, or the absolute path of another.

    Raises:
        FileNotFoundError: the library runs outside a clone of its repository.
    """
    path = Path(__file__).parents[1] / folder / name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; committed results come with a clone: pip install -e . there"
        )
    return pd.read_csv(path)


def _flat(table: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, N) for name, N in table.items() if name != "per_finding"] + list(
        table["per_finding"].items()
    )
