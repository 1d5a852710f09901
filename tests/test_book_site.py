"""What the book says of itself: its modules, its address, its citation, and how it is published."""

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from test_book import toc_pages

import cxrlib

ROOT = Path(__file__).parents[1]
WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
README = (ROOT / "README.md").read_text()
CI = (ROOT / ".ci" / "run").read_text()
GITHUB = "GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "GITHUB_REF_NAME"


def steps(name: str) -> list[dict]:
    jobs = yaml.safe_load(WORKFLOWS[name].read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def commands(name: str) -> list[str]:
    return [step["run"] for step in steps(name) if "run" in step]


def test_every_public_module_is_in_the_reference():
    modules = set()
    for path in (ROOT / "cxrlib").rglob("*.py"):
        words = path.relative_to(ROOT).with_suffix("").parts
        if not any(word.startswith("_") and word != "__init__" for word in words):
            modules.add(".".join(word for word in words if word != "__init__"))
    pages = "".join(path.read_text() for path in (ROOT / "book").glob("api*.md"))
    listed = re.findall(r"^\.\. automodule:: ([\w.]+)$", pages, re.M)
    assert len(listed) == len(set(listed))
    assert set(listed) == modules


def test_reading_times_name_every_page_of_the_course():
    taught = (ROOT / "book" / "teaching.md").read_text().split("## Twelve weeks")[0]
    toc = (ROOT / "_toc.yml").read_text()
    lessons = re.findall(r"file: (notebooks/\w+)$", toc, re.M)
    assert lessons
    for name in lessons:
        (minutes,) = re.findall(rf"^\| {{doc}}`\.\./{name}` \| (\d+) \|", taught, re.M)
        source = (ROOT / f"{name}.py").read_text()
        assert f"Reading time {minutes} minutes" in source, name


def test_the_glossary_has_each_word_once():
    words = re.findall(r"^(\w[\w -]*)\n  \w", (ROOT / "book" / "glossary.md").read_text(), re.M)
    assert len(words) >= 45
    assert words == sorted(set(words), key=str.lower)


@pytest.fixture(scope="module")
def extension():
    """The book's own Sphinx extension."""
    spec = importlib.util.spec_from_file_location("cxrbook", ROOT / "book/_ext/cxrbook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_second_build_executes_all_pages_if_the_library_or_a_result_changed(
    extension, tmp_path, monkeypatch
):
    monkeypatch.setattr(extension, "CLONE", tmp_path)
    for folder, name in (("cxrlib", "pooling.py"), ("results", "table.csv")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("old")
    env = SimpleNamespace(found_docs={"notebooks/b", "book/a"})

    def again():
        return extension.outdated(None, env, set(), set(), set())

    assert again() == ["book/a", "notebooks/b"] and again() == []
    (tmp_path / "cxrlib" / "pooling.py").write_text("new")
    assert len(again()) == 2 and again() == []
    (tmp_path / "results" / "table.csv").write_text("new")
    assert len(again()) == 2 and again() == []


def test_the_citation_is_that_of_citation_cff(extension):
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    entry = extension.bibtex(cff, "https://example.org/a/b")
    assert f"version = {{{cxrlib.__version__}}}" in entry and cff["title"] in entry
    assert "url = {https://example.org/a/b}" in entry
    assert "url" not in extension.bibtex(cff, "")


def test_the_book_states_version_commit_date_and_environment(html: Path):
    page = (html / "book" / "status.html").read_text()
    rows = dict(re.findall(r"<td><p>(.*?)</p></td>\n<td><p>(.*?)</p></td>", page))
    assert rows["Version"] == cxrlib.__version__
    assert {"Commit", "Built", "Python", "Packages", "System", "Processor"} <= set(rows)
    assert "torch" in rows["Packages"]


def test_the_book_states_how_long_each_notebook_took(html: Path):
    page = (html / "book" / "status.html").read_text()
    table = page.split('id="notebooks"')[1].split("</table>")[0]
    seconds = re.findall(r'"doc">([\w/]+)</span>.*?<p>force</p>.*?<p>([\d.]+)</p>', table, re.S)
    pages = [name for name in toc_pages() if name.startswith("notebooks/")]
    assert set(pages) <= {name for name, _ in seconds}
    assert all(float(taken) > 0 for _, taken in seconds)


def built_page(folder: Path, url: str, environment: dict[str, str]) -> str:
    """The HTML of a page of a notebook, not executed, in a book of two pages."""
    (folder / "notebooks").mkdir(parents=True)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["repository"]["url"] = url
    config["execute"]["execute_notebooks"] = "off"
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: book/root\nchapters: [{file: notebooks/lse_lba}]\n"
    )
    (folder / "book").mkdir()
    (folder / "book" / "root.md").write_text("# Root\n")
    for name in ("_ext", "_static"):
        (folder / "book" / name).symlink_to(ROOT / "book" / name)
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    notebook = nbformat.read(ROOT / "notebooks" / "lse_lba.ipynb", 4)
    notebook.cells = notebook.cells[:1]
    nbformat.write(notebook, folder / "notebooks" / "lse_lba.ipynb")
    program = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    kept = {name: value for name, value in os.environ.items() if name not in GITHUB}
    done = subprocess.run(
        [program, "build", folder], capture_output=True, text=True, env=kept | environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return (folder / "_build" / "html" / "notebooks" / "lse_lba.html").read_text()


def test_buttons_open_the_right_notebook(tmp_path):
    page = built_page(tmp_path, "https://github.com/someone/somewhere", {})
    place = "github/someone/somewhere/blob/main/notebooks/lse_lba.ipynb"
    assert f'href="https://colab.research.google.com/{place}"' in page
    binder = "https://mybinder.org/v2/gh/someone/somewhere/main"
    assert f'href="{binder}?urlpath=lab/tree/notebooks/lse_lba.ipynb"' in page
    assert "pip install git+https://github.com/someone/somewhere@main" in page
    assert 'href="../_sources/notebooks/lse_lba.ipynb"' in page


def test_a_book_built_by_github_takes_its_repository(tmp_path):
    values = "someone/fork", "https://github.com", "v1.2"
    page = built_page(tmp_path, "", dict(zip(GITHUB, values, strict=True)))
    assert "github/someone/fork/blob/v1.2/notebooks/lse_lba.ipynb" in page


def test_without_an_address_there_are_no_dead_buttons(tmp_path):
    page = built_page(tmp_path, "", {})
    assert "colab" not in page and "mybinder" not in page and "git+" not in page
    assert 'href="../_sources/notebooks/lse_lba.ipynb"' in page  # the download needs none


def test_binder_installs_the_library_and_no_more():
    lines = (ROOT / ".binder" / "requirements.txt").read_text().splitlines()
    assert lines[-1] == "-e ."
    assert (ROOT / ".binder" / "runtime.txt").read_text().startswith("python-3.")


def test_workflows_run_the_commands_of_the_readme():
    build, install = "jupyter-book build . -n -W --keep-going", '-e ".[book,test,workflow]"'
    assert build in commands("book") and build in README.splitlines()
    assert commands("tests") == [".ci/run"] and os.access(ROOT / ".ci" / "run", os.X_OK)
    for text in (README, CI, "\n".join(commands("book")), "\n".join(commands("weekly"))):
        assert install in text


def test_workflows_name_only_files_that_are_there():
    for name in WORKFLOWS:
        for command in commands(name):
            files = re.findall(r"(?:tests/\w+\.py|constraints-\w+\.txt|\.ci/run)", command)
            assert [file for file in files if not (ROOT / file).exists()] == [], command


def test_the_tests_run_on_three_pythons():
    job = yaml.safe_load(WORKFLOWS["tests"].read_text())["jobs"]["tests"]
    versions = job["strategy"]["matrix"]["python"]
    project = (ROOT / "pyproject.toml").read_text()
    assert versions == ["3.11", "3.12", "3.13"]
    assert f'requires-python = ">={versions[0]}"' in project


def test_actions_are_pinned_by_major_and_reports_kept():
    for name in WORKFLOWS:
        used = [step["uses"] for step in steps(name) if "uses" in step]
        assert used
        assert [action for action in used if not re.fullmatch(r"actions/[\w-]+@v\d+", action)] == []
    (kept,) = [step for step in steps("book") if step.get("if") == "failure()"]
    assert kept["with"]["path"] == "_build/html/reports"


def test_the_book_is_published_only_from_pushes():
    jobs = yaml.safe_load(WORKFLOWS["book"].read_text())["jobs"]
    assert jobs["deploy"]["if"] == "github.event_name == 'push'"
    assert jobs["deploy"]["needs"] == "build"
