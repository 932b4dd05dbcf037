"""Run generate on the tiny base, and inspect with a report that can be read."""

import json

import pytest

FAMILIES = ("sd1", "sdxl", "flux")


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


@pytest.fixture(scope="session")
def guides(tmp_path_factory):
    """Give a function that makes what the guides work with for a family, once."""
    from tests.guides import Guide

    made = {}

    def make(family):
        if family not in made:
            made[family] = Guide(family, tmp_path_factory.mktemp(family))
        return made[family]

    return make


@pytest.fixture(params=FAMILIES)
def guide(request, guides):
    """What the guides work with, for every family in turn."""
    return guides(request.param)


@pytest.fixture
def latents(lorakit, monkeypatch):
    """Run generate as the guides call a pipeline; give the latents behind its pictures, and leave no picture."""
    from tests.guides import PROMPT, SEED, SIZE, STEPS, watched_latents

    def run(base, *arguments, prompt=PROMPT, seed=SEED, steps=STEPS, out="pictures/"):
        sizes = ("--width", SIZE, "--height", SIZE, "--steps", steps, "--seed", seed)
        with watched_latents(monkeypatch) as seen:
            result = lorakit(
                "generate",
                *(("-b", base) if base else ()),
                *sizes,
                "-o",
                out,
                *arguments,
                *([prompt] if prompt else []),
            )
        assert result.exit_code == 0, result.stderr
        assert len(seen) == len(result.stdout.splitlines())
        return seen[0] if len(seen) == 1 else seen

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())
