"""Damaged files are refused with a sentence, in bounded memory, and nothing in them is run.

``CXRLIB_FUZZ=2000 pytest tests/test_fuzzing.py`` tries so many files of each kind; by default 150.
"""

import io
import os
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from fuzzing import TARGETS, probe, repacked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxrlib.archives import load_arrays
from cxrlib.metrics.experiments import MetricsParameters
from cxrlib.models.clarity_presets import CLARiTyParameters
from cxrlib.models.ham_presets import HAMParameters
from cxrlib.models.lse_lba import LSELBAParameters
from cxrlib.models.mining_stages import AttentionMiningParameters
from cxrlib.models.variants import PYLONParameters
from cxrlib.parameters import read_parameters

ROOT = Path(__file__).parents[1]

EXAMPLES = int(os.environ.get("CXRLIB_FUZZ", "150"))
HOSTILE = [
    b"\0" * 4,
    b"\xff" * 8,
    b"9" * 20,
    b"-1",
    b"nan",
    b"inf",
    b"\x7f\xff\xff\xff",
    b'"',
    b",,",
]


@st.composite
def edits(draw, data: bytes) -> bytes:
    """Some bytes replaced, put in, taken out, doubled, or the end cut off."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 16))
        new = draw(st.binary(min_size=1, max_size=8) | st.sampled_from(HOSTILE))
        kind = draw(st.sampled_from(["replace", "insert", "delete", "repeat", "cut"]))
        data = {
            "replace": data[:at] + new + data[at + len(new) :],
            "insert": data[:at] + new + data[at:],
            "delete": data[:at] + data[at + length :],
            "repeat": data[:at] + data[at : at + length] * 50 + data[at:],
            "cut": data[:at],
        }[kind]
    return data


@st.composite
def damaged(draw, seeds: list[bytes]) -> bytes:
    """A whole file with its bytes edited, or, of an archive, those of a member."""
    seed = draw(st.sampled_from(seeds))
    if draw(st.booleans()):
        return draw(edits(seed))
    return repacked(seed, draw(st.integers(0, 200)), lambda content: draw(edits(content)))


@pytest.mark.parametrize("name", TARGETS)
def test_whole_files_are_read(name):
    assert probe(TARGETS[name], TARGETS[name].seeds()[0])


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_or_read(name):
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck], database=None
    )
    @given(damaged(target.seeds()))
    def each(data):
        probe(target, data)

    each()


@pytest.mark.parametrize("name", ["predictions", "checkpoint"])
def test_a_pickle_is_not_unpickled(name):
    for data in TARGETS[name].seeds()[-1:]:
        assert not probe(TARGETS[name], data)


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused_unread(tmp_path):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f2", "fortran_order": False, "shape": (2**37,)}
    )
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("maps.npy", content.getvalue())
        at = made.infolist()[0]
        at.file_size = 2**38  # what the directory at the end says
    assert not probe(TARGETS["predictions"], file.getvalue())
    path = tmp_path / "p.npz"
    path.write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"unpacked it takes 274\.9 GB"):
        load_arrays(path, ["maps"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


NOTEBOOKS = {
    "lse_lba": LSELBAParameters,
    "attention_mining": AttentionMiningParameters,
    "ham": HAMParameters,
    "pylon": PYLONParameters,
    "clarity": CLARiTyParameters,
    "metrics": MetricsParameters,
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_odd_parameters_are_refused_with_a_sentence(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    (source,) = [of.source for of in cells if "parameters" in of.metadata.get("tags", [])]
    exec(source, usual := {})

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(st.dictionaries(st.sampled_from([*usual["__annotations__"]]), VALUES, min_size=1))
    def each(odd):
        try:
            read_parameters(NOTEBOOKS[name], usual | odd)
        except (ValueError, TypeError) as error:
            assert len(str(error)) > 10

    each()
