"""The studies as their readers run them: they train nothing and read committed tables."""

import os

import pytest
from test_notebooks import ROOT, figures, outputs, papermill

FIGURES = {
    "reproduction": 1,
    "comparison": 2,
    "r0_sensitivity": 5,
    "shortcuts": 4,
    "sim_to_real": 1,
    "speed": 1,
}
TOC = (ROOT / "_toc.yml").read_text()
PAGES = [name for name in FIGURES if f"- file: notebooks/{name}\n" in TOC]


@pytest.mark.parametrize("name", PAGES)
def test_a_study_is_drawn_from_committed_tables(tmp_path, name):
    start = os.times().children_user
    done = papermill(tmp_path, notebook=name)
    assert done.returncode == 0, done.stderr
    seconds = os.times().children_user - start  # of the processor, the kernel's start among them
    assert seconds < 60
    assert figures(tmp_path) == FIGURES[name]
    shown = outputs(tmp_path)
    assert not any("'stderr'" in out for out in shown)
    said = [out for out in shown if "**Answer.**" in out]
    assert len(said) == 1 and "nan" not in said[0]


def test_tables_of_another_folder_are_read(tmp_path):
    done = papermill(tmp_path, ("results", tmp_path), notebook="reproduction")
    assert done.returncode != 0
    assert f"{tmp_path / 'reproduction.csv'} does not exist" in done.stderr


def test_a_study_refuses_a_parameter_that_it_does_not_have(tmp_path):
    done = papermill(tmp_path, ("result", tmp_path), notebook="comparison")
    assert done.returncode != 0
    assert "no parameter 'result'; did you mean 'results'?" in done.stderr
