import os
import re
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a core each

import nbformat
import pytest
from playwright.sync_api import Browser, sync_playwright
from xdist.scheduler import LoadScopeScheduling

collect_ignore = ["fuzz.py"]  # it needs the extra of that name
ROOT = Path(__file__).parents[1]
BUILD_MINUTES = 40
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Of its own accord a browser asks its maker for updates and the like; these stop it.
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--preset", default="smoke", help="of the book's pages; published: quick")
    parser.addoption("--book", type=Path, help="the folder of a built book, to build none")


class Together(LoadScopeScheduling):
    """With several processes, a file's fixtures are made in one of them, and so is the book."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "the book" if Path(file).name.startswith("test_book") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real NIH tables and images, beside the repository; absent from a plain clone."""
    place = Path(__file__).parents[2] / "shared"
    if not place.is_dir():
        pytest.skip(f"{place} is absent")
    return place


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy of what the book is made of, with the preset set in every notebook that has one."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("_config.yml", "_toc.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, folder)
    (folder / "cxrlib").symlink_to(ROOT / "cxrlib")  # a page shows a file of the library
    leave = shutil.ignore_patterns("runs", "_build", ".*", "__pycache__")
    for name in ("book", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for path in (folder / "notebooks").rglob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                chosen = f'preset: str = "{request.config.getoption("preset")}"'
                cell.source = re.sub(r'^preset: str = "\w+"', chosen, cell.source, flags=re.M)
        nbformat.write(notebook, path)
    return folder


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The built book: the folder of its pages. Built once for all tests."""
    if built := request.config.getoption("book"):
        assert (built / "index.html").exists(), f"{built} holds no built book"
        return built.resolve()
    out = tmp_path_factory.mktemp("book")
    # The program of this environment, which "python -m jupyter_book" does not offer.
    program = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    source = request.getfixturevalue("source")
    done = subprocess.run(
        [program, "build", source, "--path-output", out, "-n", "-W", "--keep-going"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_MINUTES * 60,
        env=os.environ | {"NO_COLOR": "1"},
    )
    reports = "\n".join(path.read_text() for path in out.rglob("reports/**/*.log"))
    warnings = "\n".join(line for line in done.stdout.splitlines() if "WARNING" in line)
    assert done.returncode == 0, f"{reports[-6000:]}\n{warnings}\n{done.stdout[-6000:]}"
    return out / "_build" / "html"


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    """The address, without a slash at its end, at which the built book is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=html)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; started for each file of tests, which takes a second.

    Playwright keeps an event loop running in this thread, in which other tests could start none.
    """
    with sync_playwright() as playwright:
        chromium = playwright.chromium
        own = chromium.executable_path
        found = next(filter(None, map(shutil.which, BROWSERS)), own)
        if not Path(found).exists():
            pytest.fail(
                f"no browser: none of {', '.join(BROWSERS)} is on the PATH, and Playwright has "
                "none of its own; as root `apt-get install chromium`, or "
                "`python -m playwright install --with-deps chromium`"
            )
        with chromium.launch(executable_path=found, args=SWITCHES) as browser:
            yield browser
