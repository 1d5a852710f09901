"""Pages of exercises: a teacher can hide the solutions, readers take the student's notebook away.

``hide_solutions: true`` under ``sphinx: config:`` in ``_config.yml`` leaves out every cell tagged
``solution``. Its figure stays. With or without it, the buttons of such a page give the notebook in
the folder ``student`` beside it, which has no solutions.
"""

import json
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from sphinx.application import Sphinx


def of_student(docname: str) -> str:
    """The name of the student's notebook of a page, whether there is one or not."""
    page = PurePosixPath(docname)
    return str(page.parent / "student" / page.name)


def has_student(app: Sphinx, docname: str) -> bool:
    """Whether a page is one of exercises."""
    return (Path(app.srcdir) / f"{of_student(docname)}.ipynb").exists()


LABELS = {"solution": "Solution", "check": "Code of the check", "expected": "Code of the figure"}
"""What a reader clicks to see a cell with this tag."""


def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    """Say what opens, and leave the solutions out if they are to be hidden; they are executed."""
    if not has_student(app, docname):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        for tag in LABELS.keys() & set(tags):
            prompts = dict.fromkeys(("code_prompt_show", "code_prompt_hide"), LABELS[tag])
            cell["metadata"].setdefault("mystnb", {}).update(prompts)
        if "solution" in tags and app.config.hide_solutions:
            cell["metadata"]["tags"] = [*tags, "remove-cell"]
    source[0] = json.dumps(notebook)


def launch(app: Sphinx, pagename: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Let the buttons for Colab, Binder and their kind open the student's notebook."""
    if not has_student(app, pagename):
        return
    for group in context.get("header_buttons", []):
        if group["label"] == "launch-buttons":
            for button in group["buttons"]:
                if "url" in button:
                    button["url"] = button["url"].replace(pagename, of_student(pagename))


def hand_out(app: Sphinx, error: Exception | None) -> None:
    """Put the student's notebook where the page's own download button leads."""
    for docname in app.env.found_docs if error is None else ():
        downloaded = Path(app.outdir) / "_sources" / f"{docname}.ipynb"
        if has_student(app, docname) and downloaded.exists():
            shutil.copyfile(Path(app.srcdir) / f"{of_student(docname)}.ipynb", downloaded)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_config_value("hide_solutions", False, "env", bool)
    app.connect("source-read", prepare)
    app.connect("html-page-context", launch, priority=900)  # the theme makes its buttons at 501
    app.connect("build-finished", hand_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
