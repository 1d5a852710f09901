"""The exercises of a source: a py:percent notebook, checked cell by cell.

An exercise is a heading ``## 1. Title`` with a line ``*Recall, 5 minutes.*``, then one cell each
tagged ``solution``, ``check`` and ``expected``. CONTRIBUTING.md says more, and
:mod:`cxrlib.course` makes the students' notebooks from it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode

EXERCISES = Path(__file__).parents[1] / "notebooks" / "exercises"
"""Where a clone of the repository has the sources."""

BEGIN, END = "# solution", "# end of solution"
"""The lines between these two, or up to the end of the cell, are the solution."""

LEVELS = ("Recall", "Apply", "Analyse", "Open")
ROLES = ("solution", "check", "expected", "quiz")
_TITLE = re.compile(r"^## (\d+)\. (.+)\n+\*(\w+), (\d+) minutes\.\*$", re.M)


@dataclass(frozen=True)
class Exercise:
    """One exercise of a source."""

    number: int  # from 1
    title: str
    level: str  # one of LEVELS
    minutes: int
    cells: dict[str, NotebookNode]  # those tagged solution, check and expected


def role_of(cell: NotebookNode) -> str | None:
    """What a cell is to a student: one of :data:`ROLES`, or None for all other cells."""
    tags = cell.metadata.get("tags", [])
    return next((role for role in ROLES if role in tags), None)


def read(path: Path) -> NotebookNode:
    """A source as a notebook; its exercises have been checked, see :func:`exercises`."""
    notebook = jupytext.read(path)
    try:
        exercises(notebook)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return notebook


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises of a source, in order.

    Raises:
        ValueError: a heading has no level and minutes, a number is out of order, a cell is missing,
            stands in the wrong place or has no alternative text, or a solution is not marked.
    """
    found: list[Exercise] = []
    for cell in notebook.cells:
        role = role_of(cell)
        if cell.cell_type == "markdown" and re.search(r"^## \d", cell.source, re.M):
            _refuse_incomplete(found[-1:])
            found.append(_begin(cell.source, len(found) + 1))
        elif role in ("solution", "check", "expected"):
            _refuse_misplaced(role, found[-1:])
            found[-1].cells[role] = cell
    _refuse_incomplete(found[-1:])
    return found


def _begin(statement: str, number: int) -> Exercise:
    title = _TITLE.search(statement)
    if not title or int(title[1]) != number or title[3] not in LEVELS:
        raise ValueError(
            f"{statement.splitlines()[0]!r} is no heading of exercise {number}; "
            f"'## {number}. Title' and a line '*<level>, <n> minutes.*' were expected, "
            f"with a level of {LEVELS}"
        )
    return Exercise(number, title[2], title[3], int(title[4]), {})


def _refuse_misplaced(role: str, last: list[Exercise]) -> None:
    here = list(last[0].cells) if last else []
    if not last or here != list(ROLES[: ROLES.index(role)]):
        where = f"after {here} of exercise {last[0].number}" if last else "before any exercise"
        raise ValueError(
            f"a cell tagged {role!r} stands {where}; an exercise is a heading, then one cell each "
            "tagged solution, check and expected, in this order"
        )


def _refuse_incomplete(last: list[Exercise]) -> None:
    for exercise in last:
        missing = [role for role in ROLES[:3] if role not in exercise.cells]
        if missing:
            raise ValueError(f"exercise {exercise.number} has no cell tagged {missing[0]!r}")
        without_solution(exercise.cells["solution"].source, exercise.number)
        if not alt_text(exercise.cells["expected"]):
            raise ValueError(
                f"the figure of exercise {exercise.number} has no alternative text; give its cell "
                'mystnb={"image": {"alt": "what it shows"}}'
            )


def alt_text(cell: NotebookNode) -> str:
    """The text alternative of a cell's figure; empty where there is none."""
    return str(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""))


def without_solution(source: str, number: int) -> str:
    """A solution cell as the student gets it.

    >>> print(without_solution("def f(x):\\n    # solution\\n    return x", 1))
    def f(x):
        raise NotImplementedError("exercise 1 is yours to write")

    Raises:
        ValueError: no line says where the solution begins, or nothing follows.
    """
    kept, solving = [], False
    for line in source.splitlines():
        mark = line.strip()
        if mark == BEGIN:
            stub = f'raise NotImplementedError("exercise {number} is yours to write")'
            kept.append(line.replace(BEGIN, stub))
        solving = mark != END and (solving or mark == BEGIN)
        if not solving and mark != END:
            kept.append(line)
    if len(kept) == len(source.splitlines()):
        raise ValueError(
            f"the solution of exercise {number} is empty or not marked; "
            f"a line {BEGIN!r} must stand before it"
        )
    return "\n".join(kept)
