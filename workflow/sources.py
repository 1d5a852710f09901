"""What the numbers of a notebook's run depend on: its code, and the library's code that it reaches.

Snakemake compares the digest with that of the last time. Comments, docstrings and times of files do
not count, nor does code that only draws, nor what a notebook does once its run is finished.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "cxrlib"
REGISTRY = "cxrlib.models"
"""Gathers all papers; which of them a notebook takes is seen from ``create_model("name")``."""

SHOWS = ("figures", "literature", "studies")
"""How the names of modules begin that draw or list numbers and decide none."""


def digest_of(notebook: Path, root: Path, dataset: str) -> str:
    """A name for all code and tables that decide the numbers of a notebook's run.

    Args:
        notebook: an ``.ipynb``.
        root: the folder that holds the package.
        dataset: that the notebook is given; its module is imported by name.
    """
    found = hashlib.sha256(_canonical(code_of(notebook)))
    for path in files_of(notebook, root, dataset):
        found.update(path.relative_to(root).as_posix().encode())
        found.update(_canonical(path.read_text()) if path.suffix == ".py" else path.read_bytes())
    return found.hexdigest()[:12]


def files_of(notebook: Path, root: Path, dataset: str) -> list[Path]:
    """The package's modules that a notebook reaches by imports, and the tables beside them."""
    waiting, found = list(_imports(code_of(notebook), root)), set()
    waiting += [f"{PACKAGE}.{dataset}.dataset", f"{PACKAGE}.datasets.{dataset}"]
    while waiting:
        module = waiting.pop()
        path = _file(module, root)
        if path is None or path in found or module.split(".")[-1].startswith(SHOWS):
            continue
        found.add(path)
        if module != REGISTRY:
            waiting += _imports(path.read_text(), root)
    return sorted(found | {table for path in found for table in path.parent.glob("*.csv")})


def code_of(notebook: Path) -> str:
    """The code of a notebook up to the cell that finishes the run."""
    code = []
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            code.append("".join(cell["source"]))
            if ".finish(" in code[-1]:
                break
    return "\n".join(code)


@cache
def _imports(code: str, root: Path) -> tuple[str, ...]:
    tree = ast.parse(code)
    # What a module does as a command is nothing to those who import it.
    tree.body = [
        node for node in tree.body if "__name__ ==" not in ast.unparse(node).split("\n")[0]
    ]
    return tuple(_walk(tree, root))


def _walk(tree: ast.AST, root: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # a module of a package, or a name in a module
                inner = f"{node.module}.{alias.name}"
                yield inner if _file(inner, root) else node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("create_model"):
            yield from (f"{REGISTRY}.{a.value}" for a in node.args if isinstance(a, ast.Constant))


def _file(module: str, root: Path) -> Path | None:
    if module.split(".")[0] != PACKAGE:
        return None
    place = root.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _canonical(code: str) -> bytes:
    """Code without its comments, layout and docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.dump(tree).encode()
