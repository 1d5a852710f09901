"""Parameters of a notebook: declared once, checked before any work, completed by a preset."""

import ast
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What every notebook's ``parameters`` cell holds; ``None`` leaves the choice to the preset.

    A paper adds its own fields in a subclass, and its presets.
    """

    preset: Literal["smoke", "quick", "gpu", "paper"]
    dataset: Literal["phantom", "nih", "chexpert", "vindr", "folder"]
    data_dir: str | None
    run_dir: str | None
    seed: int
    image_size: int | None
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    num_workers: int

    def __post_init__(self) -> None:
        """Refuse values out of range and choices that contradict each other."""
        for name, least in (
            ("image_size", 32),
            ("epochs", 1),
            ("batch_size", 2),
            ("seed", 0),
            ("num_workers", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} = {value}; a number of at least {least} was expected")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise ValueError(
                f"learning_rate = {self.learning_rate}; a number between 0 and 1 was expected"
            )
        if self.dataset != "phantom" and self.data_dir is None:
            raise ValueError(
                f"dataset = {self.dataset!r} needs data_dir, its folder: "
                f"-p data_dir /data/{self.dataset}"
            )
        if self.dataset == "phantom" and self.data_dir is not None:
            raise ValueError(
                f"data_dir = {self.data_dir!r} has no use with dataset = 'phantom'; -p dataset nih?"
            )


@dataclass(frozen=True, kw_only=True)
class PageParameters:
    """What the ``parameters`` cell of a page without a paper holds, such as that on the data."""

    preset: Literal["smoke", "quick"]
    data_dir: str | None
    seed: int

    def __post_init__(self) -> None:
        """Refuse a seed out of range."""
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}; a number of at least 0 was expected")


@dataclass(frozen=True, kw_only=True)
class StudyParameters:
    """What the ``parameters`` cell of a study holds; a study reads tables and trains nothing."""

    results: str


P = TypeVar("P")


def read_parameters(schema: type[P], namespace: Mapping[str, Any]) -> P:
    """Check a notebook's parameters; call it with ``globals()`` right after their cell.

    papermill runs on with a parameter that does not exist; this does not.

    Args:
        schema: the dataclass of the notebook's parameters.
        namespace: where the cell has put them.

    Returns:
        the checked parameters.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a parameter does not exist (the nearest valid one is named), or is out of range.
    """
    fields = typing.get_type_hints(schema)
    for name in assigned_names(namespace):
        if name not in fields:
            raise ValueError(
                f"this notebook has no parameter {name!r}; {nearest(name, list(fields))}"
            )
    return schema(**{name: _checked(name, namespace[name], kind) for name, kind in fields.items()})


def assigned_names(namespace: Mapping[str, Any]) -> list[str]:
    """Names set by the leading cells that only assign literals: the parameters, and papermill's."""
    names: list[str] = []
    for source in namespace.get("In", [])[1:]:
        cell = _literal_assignments(source)
        if cell is None:
            break
        names += cell
    return names


def _literal_assignments(source: str) -> list[str] | None:
    """Names a cell assigns literals to; None if it does anything else."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return None
    names = []
    for statement in statements:
        target = (
            statement.targets[0]
            if isinstance(statement, ast.Assign)
            else getattr(statement, "target", None)
        )
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(
            target, ast.Name
        ):
            return None
        if any(
            isinstance(node, ast.Call) and ast.unparse(node.func) != "float"
            for node in ast.walk(statement)
        ):
            return None
        names.append(target.id)
    return names


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value as its type, or an error that says which was expected."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        if typing.get_origin(option) is Literal and isinstance(value, str):
            if value in typing.get_args(option):
                return value
            raise ValueError(f"{name} = {value!r}; {nearest(value, list(typing.get_args(option)))}")
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        plain = option is bool or not isinstance(value, bool)  # True is an int, too
        if isinstance(option, type) and isinstance(value, option) and plain:
            return value
    names = " or ".join(
        getattr(option, "__name__", str(option)).replace("NoneType", "None") for option in options
    )
    raise TypeError(f"{name} = {value!r} is of type {type(value).__name__}; expected {names}")


def settings_of(parameters: Parameters, preset: dict[str, Any]) -> dict[str, Any]:
    """A preset's settings, overridden by every parameter that is not None."""
    given = {
        name: value for name, value in dataclasses.asdict(parameters).items() if value is not None
    }
    return {**dataclasses.asdict(parameters), **preset, **given}


def nearest(given: str, valid: list[str]) -> str:
    """The nearest valid name, if one is near, and all of them.

    >>> nearest("r00", ["r0", "seed"])
    "did you mean 'r0'? Valid: r0, seed"
    """
    close = difflib.get_close_matches(given, valid, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "Valid: " + ", ".join(valid)
