"""A disk that is soon full and one that takes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    with mounted(tmp_path / "small", "size=4m") as folder:
        yield folder


@pytest.fixture
def sealed_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that is mounted for reading alone."""
    with mounted(tmp_path / "sealed", "size=1m,ro") as folder:
        yield folder
