"""`lorakit fuse --recipe`: what an output was made of makes the same output again, to the last bit, or is refused."""

import json
import shutil
from pathlib import Path

import pytest

from tests.outputs import fuse_file, refused, weights

UNET = Path("unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def fused(lorakit, base, adapters, here):
    """An output in which everything is other than its default."""
    shutil.copytree(adapters, here / "loras")
    result = lorakit(
        "fuse", "--base", base, "--lora", "loras/ink.safetensors:0.7", "--lora", "soft=loras/wash.safetensors:-0.25",
        "--scale", 0.5, "--block-scales", '{"ink": {"unet": {"down": 0.5, "up": {"block_0": [0.25, 1.0, 2.0]}}}}',
        "--components", "unet", "--dtype", "bf16", "--out", "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return here / "out"


def recipe(folder):
    """Read a recipe without what is not the same each time."""
    entries = json.loads((folder / "lorakit.json").read_text())
    return {name: entry for name, entry in entries.items() if name not in ("date", "versions")}


@pytest.mark.parametrize("source", ["out", "out/lorakit.json"])
def test_the_same_bits_and_the_same_recipe(lorakit, fused, here, base, source):
    result = lorakit("fuse", "--recipe", source, "--out", "again", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["schema"] == "lorakit/fuse/1"
    assert weights(here / "again") == weights(fused) != weights(base)
    assert recipe(here / "again") == recipe(fused)
    assert (here / "again" / "README.md").read_text() == (fused / "README.md").read_text()


def test_with_everything_elsewhere_and_renamed(lorakit, fused, here, base, tmp_path):
    shutil.move(here / "loras/ink.safetensors", tmp_path / "a.safetensors")
    (here / "lorakit.toml").write_text('adapters_dir = "loras"')
    (here / "loras/wash.safetensors").rename(here / "loras/other.safetensors")
    shutil.copytree(base, tmp_path / "moved")
    result = lorakit(
        "fuse", "--recipe", fused, "--base", tmp_path / "moved", "--lora", f"ink={tmp_path}/a.safetensors",
        "--out", "again",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    assert weights(here / "again") == weights(fused)
    assert recipe(here / "again") == recipe(fused)


def test_an_adapter_that_was_fused_once_more_is_again(lorakit, fused, here):
    assert lorakit("fuse", "--base", "out", "--lora", "loras/ink.safetensors", "--again", "-o", "twice").exit_code == 0
    assert lorakit("fuse", "--recipe", "twice", "--out", "again").exit_code == 0
    assert weights(here / "again") == weights(here / "twice")
    assert recipe(here / "again") == recipe(here / "twice")


def test_a_dry_run_shows_the_plan(lorakit, fused, here):
    result = lorakit("fuse", "--recipe", "out", "--out", "again", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "adapter ink:0.7 " in result.stdout
    assert result.stdout.endswith("would write again\n")
    assert not (here / "again").exists()


def test_the_recipe_in_a_single_file(lorakit, checkpoint, adapters, here):
    fuse_file(checkpoint, f"{adapters}/ink.safetensors:0.7", here / "out.safetensors")
    result = lorakit("fuse", "--recipe", "out.safetensors", "--out", "again.safetensors", "--dry-run", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["plan"]["adapters"][0]["name"] == "ink"


def test_what_changed_is_refused(lorakit, fused, here, base, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(base, changed)
    data = bytearray((changed / UNET).read_bytes())
    data[-2] ^= 1
    (changed / UNET).write_bytes(data)
    digest = json.loads((fused / "lorakit.json").read_text())["base"]["files"][UNET.as_posix()]["xxh3"][:12]
    result = lorakit("fuse", "--recipe", "out", "--base", changed, "--out", "again")
    assert refused(result) == (
        f"{changed} is not the base it was: {UNET.as_posix()} differs from what the recipe has, xxh3 {digest}; "
        "--base PATH says where the one it was is"
    )
    (here / "loras/ink.safetensors").write_bytes((here / "loras/wash.safetensors").read_bytes())
    assert "ink.safetensors is not the file it was: sha256 " in refused(
        lorakit("fuse", "--recipe", "out", "-o", "again")
    )
    assert not (here / "again").exists()


def test_an_adapter_without_the_settings_that_lay_beside_it(lorakit, base, adapters, here):
    converted = lorakit("convert", adapters / "wash.safetensors", "--base", base, "--to", "peft", "--out", "wash")
    assert converted.exit_code == 0, converted.stderr
    assert lorakit("fuse", "--base", base, "--lora", "./wash:0.5", "--out", "out").exit_code == 0
    assert lorakit("fuse", "--recipe", "out", "--out", "again").exit_code == 0
    assert weights(here / "again") == weights(here / "out")
    moved = Path("moved.safetensors")
    shutil.copy("wash/adapter_model.safetensors", moved)
    assert refused(lorakit("fuse", "--recipe", "out", "--lora", f"wash={moved}", "--out", "no")) == (
        f"adapter wash: {here / moved} is the file it was, but its layers have other scales: an adapter_config.json "
        "gives them, which has to lie beside it, and it has to be called adapter_model.safetensors again"
    )


@pytest.mark.parametrize(
    "option",
    [
        ("--scale", "1"),
        ("--block-scales", '{"ink": {"unet": 1}}'),
        ("--components", "unet"),
        ("--dtype", "bf16"),
        ("--variant", "fp16"),
    ],
)
def test_what_the_recipe_says_is_not_said_twice(lorakit, fused, option):
    result = lorakit("fuse", "--recipe", "out", *option, "--out", "again")
    assert refused(result, 2) == f"{option[0]} and --recipe: the recipe says that already; leave one of the two out"


def test_a_weight_beside_the_recipe(lorakit, fused):
    result = lorakit("fuse", "--recipe", "out", "--lora", "ink=loras/ink.safetensors:0.7", "--out", "again")
    assert refused(result, 2) == (
        "--lora ink=loras/ink.safetensors:0.7: the weight is in the recipe; write --lora ink=loras/ink.safetensors"
    )


def test_sums_made_on_another_machine_are_told(lorakit, fused, here):
    path = fused / "lorakit.json"
    entries = json.loads(path.read_text())
    mine = "{kind} with torch {torch}".format(**entries["arithmetic"])
    entries["arithmetic"] |= {"kind": "Z80"}
    path.write_text(json.dumps(entries))
    result = lorakit("fuse", "--recipe", "out", "--out", "again")
    assert result.exit_code == 0
    theirs = "{kind} with torch {torch}".format(**entries["arithmetic"])
    assert result.stderr == (
        f"warning: the recipe's sums were made on {theirs}, these on {mine}; some values may differ by one unit in the "
        "last place\n"
    )


def test_a_recipe_of_save(lorakit, fused):
    path = fused / "lorakit.json"
    path.write_text(path.read_text().replace('"verb": "fuse"', '"verb": "save"'))
    assert refused(lorakit("fuse", "--recipe", "out", "--out", "again")) == (
        "out was made by `lorakit save`, which fuses nothing; `lorakit fuse --base out` does"
    )
