"""What several commands share: options of a dataset, values, outputs that are refused early."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml

from cxrlib.files import explain_os_error


def add_place(parser: Any) -> None:
    """Add where a dataset is, and its own options."""
    parser.add_argument("--data-dir", metavar="FOLDER", help="of the dataset; the phantom has none")
    about = "an option of the dataset, e.g. -p n_test 60 for the phantom"
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=about
    )


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The values of all ``-p NAME VALUE``."""
    return {name: value(text) for name, text in options.p}


def value(text: str) -> Any:
    """A parameter's value as papermill reads it; lists and mappings as YAML.

    >>> [value(text) for text in ("None", "True", "5", "1e-3", "[0, 1]", "pylon")]
    [None, True, 5, 0.001, [0, 1], 'pylon']
    """
    read = yaml.safe_load(text)
    if not isinstance(read, str):
        return read
    if text == "None":
        return None
    try:
        return float(text)  # YAML takes 1e-3 for a word
    except ValueError:
        return read


def refuse_suffix(path: Path | None, suffix: str) -> None:
    """Raise ValueError unless the name ends so."""
    if path is not None and path.suffix.lower() != suffix:
        raise ValueError(f"{path} does not end in {suffix}; give such a name")


def refuse_output(path: Path | None, suffix: str, option: str | None = None) -> None:
    """Raise unless the file can be written, before hours of work; its folder is made."""
    refuse_suffix(path, f".{suffix}")
    option = f"--{option or suffix}"
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise explain_os_error(error, path, option) from error
