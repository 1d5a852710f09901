"""Pages of exercises hide solutions where a teacher says so; their buttons never give them."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from test_exercises import SOURCE, notebook

from cxrlib import course
from cxrlib.exercises import EXERCISES

ROOT = Path(__file__).parents[1]
PAGE = "notebooks/exercises/sums"
SOLUTION = re.search("# solution\n(.+)", SOURCE)[1].strip()


@pytest.fixture(scope="module", params=[True, False], ids=["hidden", "shown"])
def built(request, tmp_path_factory) -> tuple[bool, Path]:
    """Whether solutions are hidden, and the pages of a small book, built with our settings."""
    folder = tmp_path_factory.mktemp("source")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["repository"] = {"url": "https://github.com/someone/fork", "branch": "main"}
    config["launch_buttons"] = {
        "colab_url": "https://colab.research.google.com",
        "binderhub_url": "https://mybinder.org",
    }
    assert config["sphinx"]["config"]["hide_solutions"] is False
    config["sphinx"]["config"]["hide_solutions"] = request.param
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": PAGE}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("*.md"))
    (folder / "book" / "intro.md").write_text("# A book\n")
    handed_out = folder / Path(PAGE).parent / "student" / "sums.ipynb"
    handed_out.parent.mkdir(parents=True)
    source = re.sub(r"See .*", "", SOURCE)
    jupytext.write(notebook(source), folder / f"{PAGE}.ipynb")
    nbformat.write(course.student(notebook(source), [b"png"]), handed_out)
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "jupyter-book", "build", folder, "-n", "-W"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return request.param, folder / "_build" / "html"


def test_solutions_are_shown_or_hidden_by_one_setting(built):
    hidden, html = built
    page = (html / f"{PAGE}.html").read_text()
    text = re.sub("<[^>]+>", "", page)
    assert ("def twice" not in text and SOLUTION not in text) is hidden
    assert ("assert twice(2) == 4" in text) is True
    assert 'alt="A line from 0 to 2."' in page
    assert (">Solution<" in page) is not hidden
    assert ">Code of the check<" in page and ">Code of the figure<" in page
    if hidden:
        anywhere = [path for path in html.rglob("*") if path.suffix in (".html", ".js", ".ipynb")]
        assert [path for path in anywhere if SOLUTION in path.read_text(errors="ignore")] == []


def test_the_page_gives_the_notebook_of_a_student(built):
    _, html = built
    page = (html / f"{PAGE}.html").read_text()
    assert "_sources/notebooks/exercises/sums.ipynb" in page
    downloaded = (html / "_sources" / f"{PAGE}.ipynb").read_text()
    assert SOLUTION not in downloaded and "exercise 1 is yours to write" in downloaded


def test_launch_buttons_open_the_notebook_of_a_student(built):
    _, html = built
    links = re.findall(r'href="(https://[^"]*sums\.ipynb)"', (html / f"{PAGE}.html").read_text())
    student = "notebooks/exercises/student/sums.ipynb"
    assert links == [
        f"https://mybinder.org/v2/gh/someone/fork/main?urlpath=tree/{student}",
        f"https://colab.research.google.com/github/someone/fork/blob/main/{student}",
    ]


def test_every_page_of_exercises_is_a_section_of_its_chapter():
    def sections(node) -> dict[str, list[str]]:
        children = (
            node if isinstance(node, list) else node.values() if isinstance(node, dict) else []
        )
        found = {name: files for child in children for name, files in sections(child).items()}
        if isinstance(node, dict) and "sections" in node:
            found[node["file"]] = [section["file"] for section in node["sections"]]
        return found

    under = sections(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    for path in EXERCISES.glob("*.ipynb"):
        assert f"notebooks/exercises/{path.stem}" in under[f"notebooks/{path.stem}"]
