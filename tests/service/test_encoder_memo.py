"""Texts are encoded once for each state of an encoder, to the same bits."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def forwards(monkeypatch):
    """Count what the text encoder really computes."""
    from transformers import CLIPTextModel

    real, calls = CLIPTextModel.forward, []

    def counted(self, *args, **kwargs):
        calls.append(1)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(CLIPTextModel, "forward", counted)
    return calls


def run(lorakit, base, lora, *arguments):
    return lorakit("grid", "--base", base, "--steps", 1, "--out", "out", "-l", lora, *arguments, "--json")


@pytest.mark.parametrize(
    ("adapter", "states"),
    [("ink", 3), ("wash", 1)],
    ids=["the encoder changes with the weight", "only the UNet changes"],
)
def test_forwards_are_counted(lorakit, base, adapters, forwards, adapter, states):
    lora = f"{adapters}/{adapter}.safetensors"
    options = ("--axis", f"{adapter}=0,0.5,1", "--axis", "seed=1-2", "--axis", "prompt=a red heart|a star")
    result = run(lorakit, base, lora, *options)
    assert result.exit_code == 0, result.stderr
    # Two prompts and the empty negative one.
    assert len(forwards) == 3 * states
    cells = json.loads(Path("out/index.json").read_text())["cells"]
    assert len(cells) == 12


def test_few_tensors_are_rewritten(lorakit, base, adapters, monkeypatch):
    from lorakit_cli.service.applying import FusedWeights

    real, counts = FusedWeights.apply, []
    monkeypatch.setattr(FusedWeights, "apply", lambda self, plan: counts.append(real(self, plan)))
    both = ("-l", f"{adapters}/wash.safetensors")
    result = run(lorakit, base, f"{adapters}/ink.safetensors", *both, "--axis", "seed=1-2", "--axis", "ink=1,0", "x")
    assert result.exit_code == 0, result.stderr
    # Once for each state, the one with fewer tensors first.
    assert len(counts) == 2
    assert counts[0] < counts[1]
