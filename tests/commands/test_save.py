import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from lorakit_cli.sources.config import read_config
from tests.commands.conftest import names
from tests.conversions import loaded_deltas, our_deltas, require_close
from tests.saved import files, kohya_adapter, loha_adapter, peft_loha, weights

SCALES = 'ink={"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}'
WEIGHTS = {
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def run(lorakit):
    """Run a command that works; give the result."""

    def run(*arguments):
        result = lorakit(*arguments)
        assert result.exit_code == 0, result.stderr
        return result

    return run


@pytest.fixture
def spelt(base, adapters):
    """Base and adapters as they are spelt out."""
    ink, wash = adapters / "ink.safetensors", adapters / "wash.safetensors"
    return ("--base", base, "--lora", f"{ink}:0.8", "--lora", f"blue={wash}:-0.5", "--block-scales", SCALES)


def same_pixels(one, other):
    return Image.open(one).tobytes() == Image.open(other).tobytes()


def load(folder):
    return DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def test_base_and_adapters_are_side_by_side(run, base, here, spelt):
    run("save", *spelt, "--out", "set")
    made = files(here / "set")
    assert made.keys() - files(base).keys() == {
        "adapters/ink.safetensors",
        "adapters/blue.safetensors",
        "lorakit.json",
        "lorakit.toml",
        "README.md",
    }
    # To the last bit, and diffusers agrees.
    assert {name: data for name, data in made.items() if name in files(base)} == files(base)
    one, other = (DiffusionPipeline.from_pretrained(folder) for folder in (base, here / "set"))
    for name, component in one.components.items():
        if isinstance(component, torch.nn.Module):
            again = getattr(other, name).state_dict()
            assert all(torch.equal(value, again[key]) for key, value in component.state_dict().items())


def test_the_recipe_and_the_library_say_how(run, here, spelt):
    run("save", *spelt, "--scale", 0.5, "--out", "set")
    recipe = json.loads((here / "set" / "lorakit.json").read_text())
    assert (recipe["verb"], recipe["scale"]) == ("save", 0.5)
    assert recipe["base"]["files"].keys() == WEIGHTS
    ink, blue = recipe["adapters"]
    assert (ink["name"], ink["source"], ink["weight"]) == ("ink", "adapters/ink.safetensors", 0.8)
    assert ink["block_scales"] == json.loads(SCALES.removeprefix("ink="))
    assert (blue["name"], blue["weight"], blue["block_scales"]) == ("blue", -0.5, None)
    from lorakit_cli.service.hashing import sha256_of

    for adapter in (ink, blue):
        assert adapter["sha256"] == sha256_of(here / "set" / adapter["source"])
    config = read_config(here / "set" / "lorakit.toml")
    assert (config.base, [str(spec) for spec in config.use]) == (".", ["ink", "blue"])
    assert config.adapters["ink"].weight == 0.4
    assert config.adapters["ink"].block_scales.as_json() == {
        "unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": (0.4, 0.8, 1.0)}}
    }
    assert "| blue | -0.5 |" in (here / "set" / "README.md").read_text()


def test_triggers_of_the_library_are_kept(run, here, base, adapters):
    Path("lorakit.toml").write_text(
        f'[adapters.ink]\nsource = "{adapters}/ink.safetensors"\nweight = 0.7\ntriggers = ["ink \\"style\\"", "墨"]\n'
    )
    run("save", "--base", base, "--lora", "ink", "--out", "set")
    entry = read_config(here / "set" / "lorakit.toml").adapters["ink"]
    assert (entry.weight, entry.triggers) == (0.7, ('ink "style"', "墨"))
    result = run("generate", "--base", "set", "--dry-run", "a heart")
    assert 'the prompt has no trigger word of ink: ink "style", 墨' in result.stderr


@pytest.mark.parametrize("scale", [(), ("--scale", 0.3)])
def test_fusing_it_gives_the_same_bits(run, here, spelt, scale):
    run("fuse", *spelt, *scale, "--out", "fused")
    run("save", *spelt, *scale, "--out", "set")
    run("fuse", "--base", "set", "--out", "again")
    assert weights(here / "again") == weights(here / "fused")
    recipe = json.loads((here / "again" / "lorakit.json").read_text())
    assert [adapter["name"] for adapter in recipe["adapters"]] == ["ink", "blue"]
    assert recipe["scale"] == (scale[1] if scale else 1.0)
    # Named by itself, one acts as strongly as among them; at another weight, at that.
    run("fuse", "--base", "set", "--lora", "blue:-0.5", "--out", "one")
    run("fuse", *spelt[:2], "--lora", spelt[5], "--out", "other")
    assert weights(here / "one") == weights(here / "other")


def test_inside_the_folder_nothing_need_be_named(run, here, spelt, monkeypatch):
    run("save", *spelt, "--scale", 0.3, "--out", "set")
    run("fuse", *spelt, "--scale", 0.3, "--out", "fused")
    monkeypatch.chdir(here / "set")
    run("fuse", "--out", "../again")
    assert weights(here / "again") == weights(here / "fused")


def test_the_pictures_are_the_same(run, here, spelt):
    run("save", *spelt, "--scale", 0.5, "--out", "set")
    common = ("--seed", 1, "--steps", 2)
    run("generate", *spelt, "--scale", 0.5, *common, "--out", "a.png", "a red heart")
    run("generate", "--base", "set", *common, "--out", "b.png", "a red heart")
    assert same_pixels("a.png", "b.png")
    run("generate", *spelt[:2], "--lora", f"{spelt[3].rsplit(':', 1)[0]}:2", *common, "--out", "c.png", "a red heart",
        "--block-scales", SCALES)  # fmt: skip
    run("generate", "--base", "set", *common, "--out", "d.png", "a red heart <lora:ink:2>")
    assert same_pixels("c.png", "d.png")
    assert not same_pixels("a.png", "c.png")
    made_with = json.loads(Image.open("b.png").text["lorakit"])
    assert made_with["recipe"]["scale"] == 0.5
    said = {adapter["name"] for adapter in made_with["recipe"]["adapters"] if adapter["block_scales"]}
    assert said == {"ink"}


@pytest.mark.parametrize("name", ["ink", "wash", "kohya"])
def test_diffusers_gives_every_layer_its_own_strength(run, here, base, adapters, name):
    if name == "kohya":
        wanted = kohya_adapter(here / "kohya.safetensors")
        source = here / "kohya.safetensors"
    else:
        source = adapters / f"{name}.safetensors"
        wanted = our_deltas(base, source)
    result = run("save", "--base", base, "--lora", f"{source}:0.5", "--out", "set")
    assert "warning" not in result.stderr
    pipeline = load(here / "set")
    pipeline.load_lora_weights(here / "set" / "adapters", weight_name=f"{name}.safetensors")
    require_close(loaded_deltas(pipeline), wanted)
    run("fuse", "--base", base, "--lora", f"{source}:0.5", "--out", "fused")
    run("fuse", "--base", "set", "--out", "again")
    assert weights(here / "again") == weights(here / "fused")


@pytest.mark.parametrize("made_by", ["LyCORIS", "peft"])
def test_what_diffusers_has_no_layout_for_is_kept_as_it_is(run, here, base, made_by):
    if made_by == "peft":
        source = peft_loha(here / "loha")
        data = source / "adapter_model.safetensors"
    else:
        source = data = loha_adapter(here / "loha.safetensors")
    result = run("save", "--base", base, "--lora", f"loha={source}:0.7", "--out", "set", "--json")
    (warning,) = result.stderr.splitlines()
    assert warning.startswith("warning: loha is kept as it is, for lorakit and not for diffusers: the diffusers layout")
    (adapter,) = json.loads(result.stdout)["adapters"]
    assert adapter["layout"] == ("peft" if made_by == "peft" else "kohya")
    kept = (here / "set" / "adapters" / "loha.safetensors").read_bytes()
    if made_by == "peft":
        # With the settings that lay beside it.
        assert kept.endswith(data.read_bytes()[-1000:])
    else:
        assert kept == data.read_bytes()
    assert "load_lora_weights" not in (here / "set" / "README.md").read_text()
    run("fuse", "--base", base, "--lora", f"loha={source}:0.7", "--out", "fused")
    run("fuse", "--base", "set", "--out", "again")
    assert weights(here / "again") == weights(here / "fused") != weights(base)


@pytest.mark.parametrize("kind", ["kohya", "loha"])
def test_a_pickle_is_kept_as_safetensors(run, here, base, kind):
    kohya_adapter(here / "in.safetensors") if kind == "kohya" else loha_adapter(here / "in.safetensors")
    torch.save(load_file(here / "in.safetensors"), here / "in.pt")
    run("save", "--base", base, "--lora", "./in.pt:0.5", "--allow-pickle", "--out", "set")
    run("fuse", "--base", base, "--lora", "./in.safetensors:0.5", "--out", "fused")
    run("fuse", "--base", "set", "--out", "again")
    assert weights(here / "again") == weights(here / "fused")


def test_those_saved_with_a_base_are_listed_with_it(run, here, spelt):
    run("save", *spelt, "--scale", 0.5, "--out", "set")
    listed = json.loads(run("list-adapters", "--base", "set", "--json").stdout)["adapters"]
    assert {adapter["name"]: adapter["weight"] for adapter in listed} == {
        "ink": 0.4,
        "blue": -0.25,
        "toy": 1,
        "pixel": 1,
    }


def test_a_saved_folder_can_be_saved_again(run, here, spelt):
    run("save", *spelt, "--scale", 0.5, "--out", "set")
    run("save", "--base", "set", "--scale", 2, "--out", "twice")
    one, two = (files(here / name) for name in ("set", "twice"))
    assert {name for name in one if one[name] != two[name]} == {"lorakit.json", "lorakit.toml", "README.md"}
    run("fuse", *spelt, "--out", "fused")
    run("fuse", "--base", "twice", "--out", "again")
    assert weights(here / "again") == weights(here / "fused")


def test_adapters_alone_refer_to_their_base(run, here, spelt, base, monkeypatch):
    result = run("save", *spelt, "--scale", 0.3, "--adapters-only", "--out", "set")
    assert set(files(here / "set")) == {
        "adapters/ink.safetensors", "adapters/blue.safetensors", "lorakit.json", "lorakit.toml", "README.md",
    }  # fmt: skip
    assert result.stdout.splitlines()[-1] == f"  base {base}"
    assert read_config(here / "set" / "lorakit.toml").base == base.as_posix()
    recipe = json.loads((here / "set" / "lorakit.json").read_text())
    assert recipe["base"]["files"].keys() == WEIGHTS
    run("fuse", *spelt, "--scale", 0.3, "--out", "fused")
    run("fuse", "--base", "set", "--out", "again")
    assert weights(here / "again") == weights(here / "fused")
    # Inside it, nothing need be named.
    monkeypatch.chdir(here / "set")
    run("fuse", "--out", "../third")
    assert weights(here / "third") == weights(here / "fused")


def test_adapters_alone_for_a_base_with_adapters(run, here, spelt, monkeypatch):
    run("save", *spelt, "--out", "set")
    run("save", "--base", "set", "--lora", "blue", "--adapters-only", "--out", "blue")
    run("fuse", *spelt[:2], "--lora", spelt[5], "--out", "fused")
    run("fuse", "--base", "blue", "--out", "again")
    monkeypatch.chdir(here / "blue")
    run("fuse", "--out", "../third")
    assert weights(here / "again") == weights(here / "third") == weights(here / "fused")


def test_adapters_alone_of_the_embedded_model(run, here):
    run("save", "--lora", "toy:0.8", "--adapters-only", "--out", "set")
    assert read_config(here / "set" / "lorakit.toml").base == "demo"
    common = ("--seed", 1, "--steps", 2, "toy_face, a red heart")
    run("generate", "--lora", "toy:0.8", "--out", "a.png", *common)
    run("generate", "--base", "set", "--out", "b.png", *common)
    assert same_pixels("a.png", "b.png")


def test_a_base_given_by_a_relative_path_is_found_from_the_folder(run, here, base, adapters, monkeypatch):
    Path("models").mkdir()
    Path("models/tiny").symlink_to(base)
    monkeypatch.chdir(here / "models")
    run(
        "save", "--base", "../models/tiny", "--lora", adapters / "ink.safetensors", "--adapters-only", "--out", "../set"
    )
    assert read_config(here / "set" / "lorakit.toml").base.startswith("..")
    monkeypatch.chdir(here)
    assert f"base {here}" not in run("generate", "--base", "set", "--dry-run", "x").stdout


def test_the_embedded_model_brings_its_own_adapters(run, here):
    run("save", "--out", "set")
    assert [str(spec) for spec in read_config(here / "set" / "lorakit.toml").use] == ["toy", "pixel"]
    # Its steps and guidance as well.
    assert json.loads((here / "set" / "lorakit.json").read_text())["generate"] == {"steps": 20, "guidance": 4.0}


def test_weights_of_a_variant_get_plain_names(run, here, base, adapters):
    DiffusionPipeline.from_pretrained(base, dtype=torch.float16).save_pretrained("half", variant="fp16")
    run("save", "--base", "half", "--variant", "fp16", "--lora", adapters / "ink.safetensors", "--out", "set")
    assert weights(here / "set").keys() == WEIGHTS
    assert load(here / "set")


def test_json(run, spelt, here):
    report = json.loads(run("save", *spelt, "--out", "set", "--json").stdout)
    assert report["schema"] == "lorakit/save/1"
    assert report.keys() == {
        "schema", "out", "base", "architecture", "adapters", "scale", "adapters_only", "files", "size", "seconds",
        "warnings",
    }  # fmt: skip
    assert report["adapters"][0].keys() == {"name", "file", "sha256", "weight", "layout", "layers", "reason"}
    assert report["size"] == sum(len(data) for name, data in files(here / "set").items() if name.endswith("tensors"))
    plan = json.loads(run("save", *spelt, "--out", "other", "--dry-run", "--json").stdout)
    assert plan["schema"] == "lorakit/save-plan/1"
    assert plan.keys() == {"schema", "plan", "out", "warnings"}
    assert names(here) == ["set"]


def test_quiet_prints_the_name_alone(run, here, base):
    source = loha_adapter(here / "loha.safetensors")
    result = run("save", "--base", base, "--lora", source, "--out", "set", "--quiet")
    assert (result.stdout, result.stderr) == ("set\n", "")


def test_overwrite_replaces_the_old_folder(run, here, base, spelt):
    run("save", *spelt, "--out", "set")
    run("save", *spelt[:4], "--out", "set", "--overwrite")
    assert names(here / "set" / "adapters") == ["ink.safetensors"]
    assert names(here) == ["set"]
