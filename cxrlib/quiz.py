"""A quiz in a notebook or a page of the book: plain HTML, without scripts, usable by keyboard."""

import html
import re
from collections.abc import Sequence
from typing import Any

from IPython.display import HTML

_MARKS = ((re.compile(r"\$([^$]+)\$"), r"\\(\1\\)"), (re.compile(r"`([^`]+)`"), r"<code>\1</code>"))


def display_quiz(questions: Sequence[dict[str, Any]]) -> HTML:
    r"""Questions whose answers open to say why they are right or wrong.

    Args:
        questions: each a dict of ``question`` and ``answers``; an answer is a dict of ``answer``,
            ``correct`` and ``feedback``. Texts may hold formulas, ``$r_0$``, and code in backticks.

    Raises:
        ValueError: a question has not exactly one correct answer, or an answer is without feedback
            or a formula without words, which screen readers leave out.

    >>> right = {"answer": "the mean", "correct": True, "feedback": "Every place has the same say."}
    >>> wrong = {"answer": "the sum", "correct": False, "feedback": "$p$ would exceed 1."}
    >>> quiz = display_quiz([{"question": "LSE at $r = 0$ is", "answers": [right, wrong]}])
    >>> r"LSE at \(r = 0\) is" in quiz.data
    True
    """
    asked = "".join(_question(number, question) for number, question in enumerate(questions, 1))
    return HTML(f'<div class="quiz tex2jax_process mathjax_process">{asked}</div>')


def _question(number: int, question: dict[str, Any]) -> str:
    answers = question["answers"]
    if sum(bool(answer["correct"]) for answer in answers) != 1:
        raise ValueError(f"{question['question']!r} needs exactly one correct answer")
    shown = "".join(_answer(answer) for answer in answers)
    text = f"<p><strong>{number}.</strong> {_html(question['question'])}</p>"
    return f'<div role="group" aria-label="Question {number}">{text}{shown}</div>'


def _answer(answer: dict[str, Any]) -> str:
    if not answer.get("feedback"):
        raise ValueError(f"the answer {answer['answer']!r} has no feedback that explains it")
    if not _MARKS[0][0].sub("", answer["answer"]).strip(" ."):
        raise ValueError(f"{answer['answer']!r} is read to nobody; put words beside the formula")
    verdict = "Right." if answer["correct"] else "Not so."
    return (
        f"<details><summary>{_html(answer['answer'])}</summary>"
        f"<p><strong>{verdict}</strong> {_html(answer['feedback'])}</p></details>"
    )


def _html(text: str) -> str:
    text = html.escape(text, quote=False)
    for pattern, replacement in _MARKS:
        text = pattern.sub(replacement, text)
    return text
