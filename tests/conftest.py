from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--preset", default="smoke", help="of the book's pages; published: quick")


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
