"""Exercises can be solved, are not solved yet when handed out, and give nothing away."""

import base64
import io
from collections import Counter
from pathlib import Path

import jupytext
import matplotlib
import nbformat
import pytest
from PIL import Image

from cxrlib import course
from cxrlib.exercises import (
    EXERCISES,
    LEVELS,
    Exercise,
    exercises,
    read,
    role_of,
    without_solution,
)
from cxrlib.quiz import display_quiz

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(path.stem for path in EXERCISES.glob("*.py"))
SOURCE = """\
# %% [markdown]
# # Exercises: sums

# %%
import matplotlib.pyplot as plt

# %% [markdown]
# ## 1. Twice
#
# *Recall, 2 minutes.*
#
# See {doc}`../pylon` and {doc}`the symbols <../../book/notation>`.

# %% tags=["solution", "hide-cell"]
def twice(x):
    '''Two times x.'''
    # solution
    return 2 * x

# %% tags=["check", "hide-input"]
assert twice(2) == 4

# %% tags=["expected", "hide-input"] mystnb={"image": {"alt": "A line from 0 to 2."}}
plt.plot([twice(0), twice(1)])
plt.show()
"""


@pytest.fixture(autouse=True)
def no_window():
    matplotlib.use("Agg")


def notebook(source: str = SOURCE) -> nbformat.NotebookNode:
    made = jupytext.reads(source, "py:percent")
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    return made


def written(cells: list[nbformat.NotebookNode]) -> str:
    return "\n".join(cell.source for cell in cells)


def solution_lines(exercise: Exercise, others: str) -> set[str]:
    """Lines of a solution that its stub and the other cells do not have, and that say something."""
    source = exercise.cells["solution"].source
    known = without_solution(source, exercise.number) + "\n" + others
    lines = {line.strip() for line in source.splitlines()}
    return {line for line in lines if len(line) > 12 and line not in known}


@pytest.fixture(scope="module")
def solved(request: pytest.FixtureRequest) -> tuple[nbformat.NotebookNode, list[bytes]]:
    """A source and its pictures: every check passes, and none passes with the stub."""
    matplotlib.use("Agg")
    source = read(EXERCISES / f"{request.param}.py")
    namespace: dict[str, object] = {"__name__": "__main__"}
    pictures = []
    number = 0
    for cell in source.cells:
        if role_of(cell) == "solution":
            number += 1
            untouched = dict(namespace)
            exec(without_solution(cell.source, number), untouched)
        elif role_of(cell) == "check":
            with pytest.raises((NotImplementedError, AssertionError)):
                course.execute([cell], untouched)
        pictures += course.execute([cell], namespace)
    return source, pictures


every_chapter = pytest.mark.parametrize("solved", CHAPTERS, indirect=True)


@every_chapter
def test_exercises_are_solved_by_their_solutions_only(solved):
    source, pictures = solved
    assert len(exercises(source)) == len(pictures) >= 4
    assert {exercise.level for exercise in exercises(source)} == set(LEVELS)
    assert all(len(picture) <= course.LARGEST for picture in pictures)


@every_chapter
def test_a_chapter_has_a_title_and_a_quiz_and_cites_nothing(solved):
    source, _ = solved
    assert source.cells[0].source.startswith("# Exercises: ")
    assert sum(role_of(cell) == "quiz" for cell in source.cells) == 1
    assert "{cite" not in written(source.cells)  # a student's notebook would show it raw


@every_chapter
def test_the_committed_notebook_of_a_student_is_made_from_the_source(solved, request):
    source, pictures = solved
    chapter = request.node.callspec.params["solved"]
    committed = nbformat.read(EXERCISES / "student" / f"{chapter}.ipynb", 4)
    expected = course.student(source, pictures)
    images = []
    for book in (committed, expected):
        nbformat.validate(book)
        attached = [cell.pop("attachments") for cell in book.cells if "attachments" in cell]
        images.append([list(cell.items()) for cell in attached])
    assert committed == expected, f"run: python -m cxrlib.course {chapter}"
    theirs, ours = images
    assert [name for ((name, _),) in theirs] == [name for ((name, _),) in ours]
    for ((_, picture),) in theirs:  # drawn by another version of Matplotlib, perhaps
        image = Image.open(io.BytesIO(base64.b64decode(picture["image/png"])))
        assert max(image.size) <= 700 and len(image.getcolors(256)) > 2


@every_chapter
def test_a_student_gets_no_line_of_a_solution(solved, request):
    source, _ = solved
    chapter = request.node.callspec.params["solved"]
    text = written(nbformat.read(EXERCISES / "student" / f"{chapter}.ipynb", 4).cells)
    others = written([cell for cell in source.cells if role_of(cell) != "solution"])
    for exercise in exercises(source):
        assert solution_lines(exercise, others)
        assert [line for line in solution_lines(exercise, others) if line in text] == []
        assert f'"exercise {exercise.number} is yours to write"' in text


def test_every_notebook_has_a_source():
    made = {path.stem for path in EXERCISES.glob("*.ipynb")}
    handed_out = {path.stem for path in EXERCISES.glob("student/*.ipynb")}
    assert made == handed_out == set(CHAPTERS)
    assert len(CHAPTERS) > 0


def test_all_cells_of_an_untouched_notebook_run_as_far_as_jupyter_allows():
    untouched = course.student(notebook(), [b""])
    tags = Counter(tag for cell in untouched.cells for tag in cell.metadata.get("tags", []))
    assert tags == {"check": 1, "expected": 1, "raises-exception": 2}
    hidden = [cell for cell in untouched.cells if cell.metadata.get("jupyter")]
    assert [cell.metadata.tags[0] for cell in hidden] == ["check", "expected"]
    namespace: dict[str, object] = {}
    for cell in untouched.cells:
        if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", []):
            exec(cell.source, namespace)
    with pytest.raises(NotImplementedError, match="exercise 1 is yours to write"):
        namespace["twice"](1)


def test_links_of_the_book_become_links_between_files():
    source = course.student(notebook(), [b""]).cells[2].source
    targets = ["[pylon](../../pylon.ipynb)", "[the symbols](../../../book/notation.md)"]
    assert source.endswith(f"See {targets[0]} and {targets[1]}.")
    for target in targets:
        assert (EXERCISES / "student" / target.split("(")[1][:-1]).exists()


def test_a_picture_stands_before_the_cell_that_draws_it():
    (picture,) = course.execute(notebook().cells, {})
    assert Image.open(io.BytesIO(picture)).format == "PNG"
    cells = course.student(notebook(), [picture]).cells
    place = next(k for k, cell in enumerate(cells) if "attachments" in cell)
    assert "![A line from 0 to 2.](attachment:exercise-1.png)" in cells[place].source
    assert base64.b64decode(cells[place].attachments["exercise-1.png"]["image/png"]) == picture
    assert "expected" in cells[place + 1].metadata.tags


def test_several_solutions_in_a_cell_and_what_stands_between():
    source = "def f():\n    # solution\n    return 1\n    # end of solution\n\n\nx = 2\n\n\n"
    left = without_solution(source + "def g():\n    # solution\n    return x", 3).splitlines()
    stub = '    raise NotImplementedError("exercise 3 is yours to write")'
    assert left == ["def f():", stub, "", "", "x = 2", "", "", "def g():", stub]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("## 1. Twice", "## 2. Twice", "'## 2. Twice' is no heading of exercise 1"),
        ("*Recall, 2 minutes.*", "*Easy, 2 minutes.*", "with a level of .*Recall"),
        ("*Recall, 2 minutes.*", "", "<n> minutes"),
        ('["check", ', '["checked", ', "'expected' stands after \\['solution'\\] of exercise 1"),
        ('["solution", ', '["solved", ', "'check' stands after \\[\\] of exercise 1"),
        ('["expected", ', '["drawn", ', "exercise 1 has no cell tagged 'expected'"),
        ("    # solution\n", "", "exercise 1 is empty or not marked"),
        ('{"alt": "A line from 0 to 2."}', "{}", "exercise 1 has no alternative text"),
        ("# ## 1. Twice", "# ### Twice", "before any exercise"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(tmp_path, old, new, message):
    assert old in SOURCE
    path = tmp_path / "sums.py"
    path.write_text(SOURCE.replace(old, new))
    with pytest.raises(ValueError, match=f"sums.py: .*{message}"):
        read(path)


def test_a_picture_is_one_figure_of_few_bytes():
    with pytest.raises(ValueError, match="0 figures were drawn where one was expected: A line"):
        course.execute(notebook(SOURCE.replace("plt.plot", "")).cells, {})
    noise = "import numpy as np\nplt.imshow(np.random.rand(400, 400))\nplt.gca().set_axis_off()"
    with pytest.raises(ValueError, match="40,000 are allowed"):
        course.execute(notebook(SOURCE.replace("plt.show()", noise)).cells, {})


def test_the_command_names_the_chapters(capsys):
    with pytest.raises(SystemExit):
        course.main([f"{CHAPTERS[0]}x"])
    assert f"did you mean '{CHAPTERS[0]}'?" in capsys.readouterr().err


def test_the_command_writes_all_notebooks_or_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course, "EXERCISES", tmp_path)
    header = (EXERCISES / f"{CHAPTERS[0]}.py").read_text().split("# %%")[0]
    (tmp_path / "a.py").write_text(header + SOURCE)
    (tmp_path / "b.py").write_text(header + SOURCE.replace("2 * x", "3 * x"))
    with pytest.raises(AssertionError):
        course.main([])
    assert not (tmp_path / "student").exists()
    course.main(["a"])
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["a.ipynb"]
    first = (tmp_path / "student" / "a.ipynb").read_bytes()
    course.main(["a"])
    assert (tmp_path / "student" / "a.ipynb").read_bytes() == first


def test_a_quiz_explains_each_answer():
    right = {"answer": "then $a < b$", "correct": True, "feedback": "because `a` is 1"}
    wrong = {"answer": "no", "correct": False, "feedback": "see above"}
    shown = display_quiz([{"question": "Is it so?", "answers": [wrong, right]}]).data
    assert shown.count('<div role="group" aria-label="Question 1">') == 1
    assert "<summary>then \\(a &lt; b\\)</summary><p><strong>Right.</strong>" in shown
    assert "because <code>a</code> is 1" in shown and "<strong>Not so.</strong> see above" in shown
    assert "<script" not in shown and "http" not in shown
    for answers in (
        [wrong, wrong],
        [right, right],
        [right, wrong | {"feedback": ""}],
        [right, wrong | {"answer": "$b$."}],
    ):
        with pytest.raises(
            ValueError, match=r"exactly one correct answer|has no feedback|put words"
        ):
            display_quiz([{"question": "Is it so?", "answers": answers}])
