"""What is written on a command line: values of parameters, names of files."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from cxrlib.files import explain_os_error


def read_value(text: str) -> Any:
    """A parameter's value as papermill reads it; lists and mappings as YAML.

    >>> [read_value(text) for text in ("None", "True", "5", "1e-3", "[0, 1]", "pylon")]
    [None, True, 5, 0.001, [0, 1], 'pylon']
    """
    value = yaml.safe_load(text)
    if not isinstance(value, str):
        return value
    if text == "None":
        return None
    try:
        return float(text)  # YAML takes 1e-3 for a word
    except ValueError:
        return value


def refuse_suffix(path: Path | None, suffix: str) -> None:
    """Raise unless a file's name ends so."""
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
