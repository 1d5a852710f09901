"""What the repository says of itself is so: one set of requirements, one version, true commands."""

import ast
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import cxrlib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
README = (ROOT / "README.md").read_text()

RUN = "python -m pip install -e . && papermill notebooks/lse_lba.ipynb out.ipynb -p r0 5"
TEST = 'python -m pip install -e ".[book,test,workflow]" && pytest -n auto'
BUILD = "jupyter-book build . -n -W --keep-going"
MODULES = {
    "opencv-python-headless": "cv2",
    "scikit-learn": "sklearn",
    "grad-cam": "pytorch_grad_cam",
    "pytest-xdist": "xdist",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}
USED_WITHOUT_IMPORT = {
    "papermill": "the command that runs a notebook",
    "jupytext": "the command that makes an .ipynb from its .py",
    "ipykernel": "the kernel that executes a notebook",
}
COMES_WITH = {
    "IPython": "ipykernel",
    "huggingface_hub": "timm",
    "packaging": "pytest",
    "nbclient": "papermill",
    "nbformat": "papermill",
}


def requirements(*groups: list[str]) -> dict[str, SpecifierSet]:
    parsed = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints-book.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def imported_modules() -> set[str]:
    """Top-level modules that the library, the notebooks or the tests import."""
    names = set()
    for folder in ("cxrlib", "notebooks", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    return names


def test_environment_file_repeats_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    extras = [line for line in chain(*EXTRAS.values()) if not line.startswith("cxrlib[")]
    assert pip["pip"] == [*PROJECT["dependencies"], *extras, "-e ."]
    assert conda[1:] == ["pip"]
    python = Requirement(conda[0])
    assert python.name == "python"
    assert set(SpecifierSet(PROJECT["requires-python"])) <= set(python.specifier)


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == cxrlib.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_citation_names_the_five_papers():
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    cited = {i["value"].removeprefix("arXiv:") for r in references for i in r["identifiers"]}
    assert cited == set(re.findall(r"arXiv:(\d{4}\.\d{5})", README))
    assert len(cited) == 5


def test_constraints_agree_with_pyproject():
    pins = constraints()
    for name, specifier in requirements(PROJECT["dependencies"], EXTRAS["book"]).items():
        assert name not in pins or specifier.contains(pins[name]), name
    assert set(requirements(EXTRAS["book"])) <= set(pins)
    assert not {"torch", "torchvision", "numpy", "triton"} & set(pins)
    assert not [name for name in pins if name.startswith(("nvidia", "cuda"))]


def test_book_extra_is_jupyter_book_1():
    pin = str(requirements(EXTRAS["book"])["jupyter-book"])
    assert re.fullmatch(r"==1\.[\w.]+", pin), pin


def test_the_library_does_not_need_the_book_stack():
    assert not set(requirements(PROJECT["dependencies"])) & set(requirements(EXTRAS["book"]))
    assert not [name for name in requirements(PROJECT["dependencies"]) if "sphinx" in name]


def test_every_dependency_is_used():
    imported = imported_modules()
    unused = {
        name
        for name in requirements(PROJECT["dependencies"])
        if MODULES.get(name, name) not in imported and name not in USED_WITHOUT_IMPORT
    }
    assert not unused, f"remove from pyproject.toml and environment.yml: {sorted(unused)}"


def test_every_import_is_declared():
    own = {path.stem for path in (ROOT / "tests").glob("*.py")} | {"cxrlib", "tests", "conftest"}
    declared = requirements(PROJECT["dependencies"], *EXTRAS.values())
    available = {MODULES.get(name, name).replace("-", "_") for name in declared}
    available |= set(COMES_WITH)
    assert set(COMES_WITH.values()) <= set(declared)
    missing = imported_modules() - available - own - set(sys.stdlib_module_names)
    assert not missing, f"declare in pyproject.toml and environment.yml: {sorted(missing)}"


@pytest.mark.parametrize("command", [RUN, TEST, BUILD])
def test_readme_shows_the_command(command):
    assert command in README.splitlines()


def test_ci_installs_as_the_readme_does():
    ci = (ROOT / ".ci" / "run").read_text()
    assert TEST.split(" && ")[0].replace("install", "install --quiet") in ci
    assert ci.splitlines()[-1] == TEST.split(" && ")[1]


def test_papermill_commands_name_real_parameters():
    parameters = papermill.inspect_notebook(str(ROOT / "notebooks" / "lse_lba.ipynb"))
    assert set(re.findall(r" -p (\w+) ", README)) <= set(parameters)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_relative_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_layout_in_contributing_exists():
    layout = (ROOT / "CONTRIBUTING.md").read_text().split("## Layout")[1].split("\n## ")[0]
    places = [p for row in re.findall(r"^\| (`.+?) \|", layout, re.M) for p in row.split(", ")]
    assert len(places) > 8
    assert [p for p in places if not (ROOT / p.strip("`")).exists()] == []
