"""Notebooks for students, made from the ones with the solutions.

``python -m cxrlib.course [CHAPTER ...]`` reads ``notebooks/exercises/<chapter>.py`` and writes
``notebooks/exercises/student/<chapter>.ipynb``: stubs stand for the solutions, and before each cell
that draws with a solution stands a picture of what it draws.
"""

import argparse
import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from cxrlib.exercises import EXERCISES, alt_text, read, role_of, without_solution
from cxrlib.files import write_text
from cxrlib.parameters import nearest

LARGEST = 40_000
"""Bytes of a picture, at most: it travels with the notebook."""

_DOC = re.compile(r"\{doc\}`(?:([^`<]+) <)?([^`>]+)>?`")


def execute(cells: list[NotebookNode], namespace: dict[str, Any]) -> list[bytes]:
    """Run code cells in this process; the pictures (PNG) of those tagged ``expected``.

    Raises:
        ValueError: such a cell drew no figure or several, or one that is too large a file.
    """
    import matplotlib.pyplot as plt

    pictures = []
    for cell in cells:
        if cell.cell_type != "code":
            continue
        plt.close("all")
        exec(compile(cell.source, "<cell of an exercise>", "exec"), namespace)
        if role_of(cell) == "expected":
            pictures.append(_picture(alt_text(cell)))
    plt.close("all")
    return pictures


def _picture(alt: str) -> bytes:
    import matplotlib.pyplot as plt
    from PIL import Image

    if len(plt.get_fignums()) != 1:
        raise ValueError(
            f"{len(plt.get_fignums())} figures were drawn where one was expected: {alt}"
        )
    drawn, file = io.BytesIO(), io.BytesIO()
    plt.gcf().savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(128).save(file, "PNG", optimize=True)
    if len(file.getvalue()) > LARGEST:
        raise ValueError(
            f"a picture has {len(file.getvalue()):,} bytes, {LARGEST:,} are allowed; draw it "
            f"smaller or with fewer panels: {alt}"
        )
    return file.getvalue()


def student(notebook: NotebookNode, pictures: list[bytes]) -> NotebookNode:
    """The notebook that is handed out: without solutions, with pictures of what they draw.

    Checks fail until the exercise is solved, and running all cells goes on after them.

    Args:
        notebook: a source.
        pictures: PNG files, one for each exercise, as :func:`execute` gives them.
    """
    cells: list[NotebookNode] = []
    number = 0
    for cell in notebook.cells:
        role = role_of(cell)
        number += role == "solution"
        if role == "expected":
            cells.append(_shown(number, alt_text(cell), pictures[number - 1]))
        cells.append(_handed_out(cell, role, number))
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"  # else every notebook that is made would differ
    kernel = {"kernelspec": notebook.metadata.kernelspec}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


def _handed_out(cell: NotebookNode, role: str | None, number: int) -> NotebookNode:
    if cell.cell_type == "markdown":
        return nbformat.v4.new_markdown_cell(_DOC.sub(_link, cell.source))
    made = nbformat.v4.new_code_cell(cell.source)
    if role == "solution":
        made.source = without_solution(cell.source, number)
    if role in ("check", "expected"):
        made.metadata.tags = [role, "raises-exception"]
    if {"hide-input", "remove-input"} & set(cell.metadata.get("tags", [])):
        made.metadata.jupyter = {"source_hidden": True}
    return made


def _shown(number: int, alt: str, picture: bytes) -> NotebookNode:
    name = f"exercise-{number}.png"
    said = f"What the next cell draws when exercise {number} is solved:"
    data = {"image/png": base64.b64encode(picture).decode()}
    return nbformat.v4.new_markdown_cell(
        f"{said}\n\n![{alt}](attachment:{name})", attachments={name: data}
    )


def _link(found: re.Match[str]) -> str:
    """A link of the book as one between files, seen from the folder of the students' notebooks."""
    text, target = found[1] or Path(found[2]).name, found[2]
    suffix = ".md" if (EXERCISES / f"{target}.md").exists() else ".ipynb"
    return f"[{text}](../{target}{suffix})"


def make(source: Path) -> NotebookNode:
    """The student's notebook of a source, whose solutions are executed for the pictures."""
    notebook = read(source)
    return student(notebook, execute(notebook.cells, {"__name__": "__main__"}))


def main(arguments: list[str] | None = None) -> None:
    """Write the students' notebooks: all that were asked for, or none."""
    import matplotlib

    matplotlib.use("Agg")
    sources = {path.stem: path for path in sorted(EXERCISES.glob("*.py"))}
    parser = argparse.ArgumentParser(prog="python -m cxrlib.course")
    parser.add_argument("chapters", nargs="*", help=f"all, if none is named: {', '.join(sources)}")
    chapters = parser.parse_args(arguments).chapters or list(sources)
    for chapter in chapters:
        if chapter not in sources:
            parser.error(f"chapter {chapter!r} has no exercises; {nearest(chapter, list(sources))}")
    made = {chapter: nbformat.writes(make(sources[chapter])) + "\n" for chapter in chapters}
    for chapter, text in made.items():
        path = EXERCISES / "student" / f"{chapter}.ipynb"
        write_text(path, text)
        print(path)


if __name__ == "__main__":
    main()
