from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.dialects.models import components, save


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep torch from sharing out products of a few values among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Give the folder and the models of a tiny pipeline, by the name of its family."""

    @cache
    def build(name: str) -> tuple[Path, dict]:
        parts = components(name)
        return save(tmp_path_factory.mktemp("families") / name.replace(" ", "_"), name, parts), parts

    return build
