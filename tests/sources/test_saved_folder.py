"""Adapters that a folder was saved with: which a request takes, and by what names."""

import json

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.errors import OptionError, RecipeError
from lorakit_cli.service.default_adapters import choose_adapters
from lorakit_cli.sources.library import open_library
from lorakit_cli.sources.local import find_adapters, find_base


@pytest.fixture
def folder(here):
    saved = here / "saved"
    saved.mkdir()
    write(saved)
    return saved


def write(folder, source="adapters/ink.safetensors", scales=None):
    for name in ("ink", "toy"):
        path = folder / "adapters" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    adapters = [
        {"name": "ink", "source": source, "weight": 0.8, "block_scales": scales, "triggers": ["ink style"]},
        {"name": "toy", "source": "adapters/toy.safetensors", "weight": -1},
    ]
    recipe = {
        "schema": "lorakit/recipe/1",
        "verb": "save",
        "base": {"source": "demo", "class_name": "StableDiffusionPipeline", "files": {}},
        "adapters": [adapter | {"file": "x", "sha256": "0"} for adapter in adapters],
        "scale": 0.5,
        "engine": "stream",
    }
    (folder / "lorakit.json").write_text(json.dumps(recipe))
    (folder / "model_index.json").write_text("{}")


def choose(base, *named, scale=1.0, some=False):
    return choose_adapters(base, [AdapterSpec.parse(text) for text in named], scale, open_library(), some=some)


def test_those_saved_with_a_base_are_taken_where_none_is_named(folder, here):
    (here / "lorakit.toml").write_text('use = ["pixel"]\n[adapters.ink]\nsource = "other.safetensors"')
    choice = choose("saved", scale=3)
    assert [str(spec) for spec in choice.specs] == ["ink:0.8", "toy:-1.0"]
    assert choice.scale == 1.5
    found = find_adapters(choice.specs, choice.library)
    assert [adapter.path.resolve() for adapter in found] == [
        folder / f"adapters/{n}.safetensors" for n in ("ink", "toy")
    ]
    assert found[0].triggers == ("ink style",)


def test_a_name_means_the_users_then_the_saved_then_the_embedded(folder, here):
    choice = choose("saved", "toy:2", "ink", "pixel")
    assert choice.scale == 1.0
    toy, ink, pixel = find_adapters(choice.specs, choice.library)
    assert (toy.path.resolve(), toy.weight) == (folder / "adapters" / "toy.safetensors", 2.0)
    # What it acts with in the folder, its scale included.
    assert (ink.path.resolve(), ink.weight) == (folder / "adapters" / "ink.safetensors", 0.4)
    assert pixel.origin == "embedded"
    (here / "other.safetensors").touch()
    (here / "lorakit.toml").write_text('[adapters.toy]\nsource = "other.safetensors"')
    choice = choose("saved", "toy")
    assert find_adapters(choice.specs, choice.library)[0].path == here / "other.safetensors"


def test_a_saved_folder_may_be_the_librarys_base(folder, here):
    (here / "lorakit.toml").write_text('base = "saved"')
    assert [spec.name for spec in choose(None).specs] == ["ink", "toy"]
    # Another base has nothing to do with it.
    assert choose("demo").specs == ()


def test_without_a_saved_base_the_library_decides(here):
    assert choose(None).specs == ()
    assert [str(spec) for spec in choose(None, some=True).specs] == ["toy", "pixel"]
    (here / "lorakit.toml").write_text('use = ["pixel:0.5"]')
    assert [str(spec) for spec in choose(None).specs] == ["pixel:0.5"]
    assert [str(spec) for spec in choose(None, "toy:1").specs] == ["toy:1"]
    (here / "lorakit.toml").unlink()
    (here / "plain").mkdir()
    with pytest.raises(OptionError, match="no adapters: name them with --lora NAME:WEIGHT"):
        choose("plain", some=True)


@pytest.mark.parametrize("source", ["../ink.safetensors", "/etc/ink.safetensors", "adapters/toy.safetensors"])
def test_a_recipe_leads_nowhere_else(folder, source):
    write(folder, source)
    with pytest.raises(RecipeError, match="is no adapter of this folder"):
        choose("saved")


def test_block_scales_of_a_recipe_are_checked(folder):
    write(folder, scales={"unet": {"up": {"first": 1}}})
    with pytest.raises(RecipeError, match=r"lorakit.json: block scales of ink: unet.up: 'first' is no block"):
        choose("saved")


def test_a_folder_of_adapters_alone_stands_for_the_base_it_names(folder, base):
    (folder / "model_index.json").unlink()
    (folder / "lorakit.toml").write_text(f'base = "{base}"')
    assert find_base("saved", open_library(), ()) == base
    (folder / "lorakit.toml").write_text('base = "owner/name@main"')
    assert str(find_base("saved", open_library(), ())) == "owner/name@main"
    # One that names itself is a folder without a pipeline.
    (folder / "lorakit.toml").write_text('base = "."')
    assert find_base("saved", open_library(), ()).resolve() == folder
