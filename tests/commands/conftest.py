"""Run generate on the tiny base, and inspect with a report that can be read."""

import json

import pytest


@pytest.fixture
def draw(lorakit, base):
    """Run generate on the tiny base with few steps."""

    def run(*arguments, prompt="a red heart"):
        return lorakit("generate", "--base", base, "--steps", 2, *arguments, prompt)

    return run


@pytest.fixture
def look(lorakit):
    """Inspect with --json; give the exit code and the object."""

    def run(*arguments):
        result = lorakit("inspect", "--json", *arguments)
        return result.exit_code, json.loads(result.stdout)

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())
