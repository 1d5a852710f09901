from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real NIH tables and images, beside the repository; absent from a plain clone."""
    place = Path(__file__).parents[2] / "shared"
    if not place.is_dir():
        pytest.skip(f"{place} is absent")
    return place
