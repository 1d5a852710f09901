import math

import pytest

from cxrlib.models.lse_lba import PRESETS, LSELBAParameters
from cxrlib.parameters import assigned_names, read_parameters, settings_of

CELL = {
    "preset": "smoke",
    "dataset": "phantom",
    "data_dir": None,
    "run_dir": None,
    "r0": 5.0,
    "seed": 0,
    "image_size": None,
    "epochs": None,
    "batch_size": None,
    "learning_rate": None,
    "accelerator": "auto",
    "num_workers": 0,
}


def read(injected: str = "", **changes):
    """What the first cell does after papermill has injected some parameters."""
    history = ["", "\n".join(f"{name}: object = {value!r}" for name, value in CELL.items())]
    history += [f"# Parameters\n{injected}\n"] if injected else []
    return read_parameters(LSELBAParameters, {**CELL, **changes, "In": [*history, "read()"]})


def test_defaults_and_preset():
    settings = settings_of(read(epochs=3), PRESETS["smoke"])
    assert settings["epochs"] == 3
    assert settings["image_size"] == PRESETS["smoke"]["image_size"]
    assert settings["r0"] == 5


def test_whole_numbers_are_numbers():
    assert isinstance(read(r0=5).r0, float)


@pytest.mark.parametrize(
    ("injected", "nearest"),
    [("r00 = 5", "'r0'"), ("epoch = 3", "'epochs'"), ("datadir = 'x'", "'data_dir'")],
)
def test_a_parameter_that_does_not_exist_names_the_nearest(injected, nearest):
    with pytest.raises(ValueError, match=f"has no parameter .*did you mean {nearest}"):
        read(injected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("r0", "five", "r0 = 'five' is of type str; expected float"),
        ("epochs", 2.5, "epochs = 2.5 is of type float; expected int or None"),
        ("seed", True, "seed = True is of type bool; expected int"),
        ("epochs", False, "epochs = False is of type bool; expected int or None"),
        ("seed", None, "expected int"),
        ("data_dir", 3, "expected str or None"),
        ("r0", "[1, 2]", "expected float"),
    ],
)
def test_a_wrong_type_says_which_was_expected(name, value, expected):
    with pytest.raises(TypeError) as caught:
        read(**{name: value})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "quik"}, "did you mean 'quick'"),
        ({"r0": -1}, "from 0 to 10000"),
        ({"r0": math.nan}, "from 0 to 10000"),
        ({"epochs": 0}, "at least 1"),
        ({"image_size": 8}, "at least 32"),
        ({"learning_rate": 2.0}, "between 0 and 1"),
        ({"dataset": "nih"}, "needs data_dir"),
        ({"data_dir": "/data"}, "dataset nih"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        read(**changes)


def test_only_leading_cells_of_literals_are_parameters():
    cells = ["", "a = 1\nb: str = 'x'", "# Parameters\nc = [1, -2]", "import os", "d = 4"]
    assert assigned_names({"In": cells}) == ["a", "b", "c"]
    assert assigned_names({"In": ["", "x = open('file')"]}) == []
    assert assigned_names({"In": ["", "%matplotlib inline"]}) == []
    assert assigned_names({}) == []
