import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands.conftest import names
from tests.saved import files
from tests.tiny import rewrite


@pytest.fixture
def refuse(lorakit, base, here):
    """Run save on the tiny base, which is to fail; give the last line."""

    def run(*arguments, base=base, code=1):
        before = names(here)
        result = lorakit("save", *(("--base", base) if base else ()), *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        # Nothing is left behind.
        assert names(here) == before
        return result.stderr.splitlines()[-1]

    return run


def test_an_output_that_is_there_is_kept(refuse, adapters, here):
    (here / "set").mkdir()
    (here / "set" / "mine.txt").write_text("mine")
    error = refuse("--lora", adapters / "ink.safetensors", "--out", "set")
    assert error == "error: set exists already; choose another name or add --overwrite"
    assert files(here / "set") == {"mine.txt": b"mine"}


def test_without_a_place(refuse, adapters):
    assert "--out says where to, a folder" in refuse("--lora", adapters / "ink.safetensors", code=2)


def test_a_place_in_the_base(refuse, adapters, base):
    before = files(base)
    assert f"lies in {base}, which is read" in refuse("--lora", adapters / "ink.safetensors", "--out", base / "set")
    assert f"{base} is {base}, which" in refuse("--lora", adapters / "ink.safetensors", "--out", base, "--overwrite")
    assert files(base) == before


def test_no_adapters(refuse):
    assert "no adapters: name them with --lora NAME:WEIGHT" in refuse("--out", "set", code=2)


def test_two_of_one_name(refuse, adapters):
    ink = adapters / "ink.safetensors"
    assert "two adapters are called 'ink'" in refuse("--lora", ink, "--lora", ink, "--out", "set", code=2)
    error = refuse("--lora", ink, "--lora", f"INK={ink}", "--out", "set", code=2)
    assert error.startswith("error: the adapters ink and INK would be one file where capitals do not count")


def test_an_adapter_that_fits_in_part(refuse, lorakit, adapters, base, here):
    odd = rewrite(
        adapters / "ink.safetensors",
        here / "odd.safetensors",
        lambda tensors: {name.replace("conv1", "conv9"): tensor for name, tensor in tensors.items()},
    )
    error = refuse("--lora", odd, "--out", "set")
    assert "layers or keys do not fit the base" in error
    assert error.endswith("--allow-unmatched leaves them out")
    result = lorakit("save", "--base", base, "--lora", odd, "--out", "set", "--allow-unmatched")
    assert result.exit_code == 0
    assert "layers or keys of odd are left out, first unet" in result.stderr
    assert not any("conv9" in name for name in load_file(here / "set" / "adapters" / "odd.safetensors"))
    assert lorakit("fuse", "--base", "set", "--out", "fused").exit_code == 0


def test_an_adapter_for_another_model(refuse, base):
    assert "adapter toy does not fit" in refuse("--lora", "toy", "--out", "set")


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_no_number(refuse, here, alpha):
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{stem}.lora_down.weight": torch.ones(2, 16), f"{stem}.lora_up.weight": torch.ones(16, 2)}
    save_file(tensors | {f"{stem}.alpha": torch.tensor(alpha)}, here / "odd.safetensors")
    assert "alpha" in refuse("--lora", "./odd.safetensors", "--out", "set")


def test_a_base_that_is_no_folder(refuse, lorakit, adapters, checkpoint, here):
    ink = adapters / "ink.safetensors"
    error = refuse("--lora", ink, "--out", "set", base=checkpoint)
    assert error.endswith(
        "is a single file, and a pipeline folder is needed to copy it; "
        "--adapters-only keeps the adapters and refers to it"
    )
    result = lorakit("save", "--base", checkpoint, "--lora", ink, "--adapters-only", "--out", "set")
    assert result.exit_code == 0, result.stderr
    assert lorakit("generate", "--base", "set", "--dry-run", "x").stdout.startswith(f"base {checkpoint} ")


def test_an_adapter_that_is_in_the_base_already(refuse, lorakit, adapters, base):
    ink = adapters / "ink.safetensors"
    assert lorakit("fuse", "--base", base, "--lora", ink, "--out", "fused").exit_code == 0
    error = refuse("--lora", ink, "--out", "set", base="fused")
    assert error == "error: adapter ink is fused into fused already, at 1; save it with the original base"
    assert lorakit("save", "--base", "fused", "--lora", adapters / "wash.safetensors", "--out", "set").exit_code == 0


def test_block_scales_for_what_is_not_there(refuse, adapters):
    error = refuse("--lora", adapters / "ink.safetensors", "--block-scales", 'ink={"unet": {"top": 1}}', "--out", "s",
                   code=2)  # fmt: skip
    assert "block scales of ink: unet has no part 'top'" in error


def test_a_folder_whose_adapter_is_gone_or_whose_recipe_is_broken(lorakit, adapters, base, here):
    assert lorakit("save", "--base", base, "--lora", adapters / "ink.safetensors", "--out", "set").exit_code == 0
    kept = here / "set" / "adapters" / "ink.safetensors"
    kept.rename(here / "ink.safetensors")
    result = lorakit("fuse", "--base", "set", "--out", "fused")
    assert (result.exit_code, result.stderr) == (
        1, f"error: there is no adapter file {Path('set/adapters/ink.safetensors')}\n",
    )  # fmt: skip
    recipe = here / "set" / "lorakit.json"
    entries = json.loads(recipe.read_text())
    recipe.write_text(json.dumps(entries | {"adapters": [{"name": "ink"}]}))
    for command in (("fuse", "--out", "fused"), ("generate", "--dry-run", "x")):
        result = lorakit(*command, "--base", "set")
        assert result.exit_code == 1
        assert f"{Path('set/lorakit.json')} is no recipe that can be read" in result.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_place_that_takes_no_files(refuse, adapters, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "takes no new files" in refuse("--lora", adapters / "ink.safetensors", "--out", tmp_path / "closed" / "set")


def test_a_failure_on_the_way_leaves_nothing(refuse, adapters, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lorakit_cli.service.output_texts.copy_file", full)
    assert "the disk is full: cannot write set" in refuse("--lora", adapters / "ink.safetensors", "--out", "set")
