"""Progress for anything over two seconds: a bar in a terminal, one updating line in a notebook."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that nobody needs to be told of."""


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items, showing how far they are.

    After two seconds a terminal gets a bar and a notebook one line that updates in place (its last
    state is what an executed notebook keeps); anything else gets nothing.

    >>> list(track([1, 2], "counting", total=2))
    [1, 2]
    """
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total, delay=PATIENCE)
        return
    line = NotebookLine()
    start = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - start > PATIENCE and (now - shown > 0.5 or done == total):
            shown = now
            line.show(f"{description}: {done} of {total}, {now - start:.0f} s")


class NotebookLine:
    """One line of a notebook's output, replaced by each call; silent outside a notebook."""

    def __init__(self) -> None:
        self._display: Any = None

    def show(self, text: str) -> None:
        """Replace the line by ``text``."""
        # A program may import ipykernel and be no notebook; there, display would print.
        ipython = sys.modules.get("IPython")
        if not hasattr(ipython and ipython.get_ipython(), "kernel"):
            return
        from IPython.display import TextDisplayObject, display

        class Line(TextDisplayObject):
            def __repr__(self) -> str:
                return str(self.data)

        if self._display is None:
            self._display = display(Line(text), display_id=True)
        else:
            self._display.update(Line(text))
