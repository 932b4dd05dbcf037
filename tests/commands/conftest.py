"""Run generate on the tiny base."""

import pytest


@pytest.fixture
def draw(lorakit, base):
    """Run generate on the tiny base with few steps."""

    def run(*arguments, prompt="a red heart"):
        return lorakit("generate", "--base", base, "--steps", 2, *arguments, prompt)

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())
