"""A notebook executed into a run folder."""

import os
import sys
from pathlib import Path
from typing import Any

from cxrlib.parameters import nearest

RENEW = "CXRLIB_RENEW"
"""Where this variable of the environment is 1, a run puts aside what other parameters, code or data
have made in its folder; else it is refused. ``cxrlib run --renew`` sets it for its notebook."""


def execute(
    notebook: Path, run_dir: Path, parameters: dict[str, Any], *, renew: bool = False
) -> Path:
    """Run a notebook with papermill and keep the executed notebook in its run folder.

    Args:
        notebook: an ``.ipynb`` with a ``parameters`` cell.
        run_dir: the run folder.
        parameters: of the notebook; unknown ones are refused before a kernel starts.
        renew: if the folder holds a run with other parameters, code or data, put that one aside as
            ``<run_dir>.superseded-<its key>`` once the new one is complete; else it is an error.

    Returns:
        the executed notebook, ``run_dir/<name of the notebook>``. If a cell fails, it is left as
        ``<run_dir>.unfinished.ipynb`` to look at, and the error is raised.
    """
    import papermill

    valid = list(papermill.inspect_notebook(str(notebook)))
    for name in parameters:
        if name not in valid:
            raise ValueError(f"{notebook} has no parameter {name!r}; {nearest(name, valid)}")
    executed = run_dir.with_name(run_dir.name + ".unfinished.ipynb")
    executed.parent.mkdir(parents=True, exist_ok=True)
    os.environ[RENEW] = str(int(renew))  # the kernel inherits it
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            {**parameters, "run_dir": str(run_dir)},
            progress_bar=sys.stderr.isatty(),
        )
    finally:
        del os.environ[RENEW]
    return executed.replace(run_dir / notebook.name)
