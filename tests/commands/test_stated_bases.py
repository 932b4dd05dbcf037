"""The base that adapters state, where nobody names one: said, and asked for in the same words as any other."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from lorakit_cli.core.stated import CARD, PEFT_CONFIG, SideFiles
from lorakit_cli.core.stated_base import stated_base
from tests.fused import specs

CARD_TEXT = "---\nbase_model: someone/tiny\n---\n"


@pytest.fixture
def commit(hub, base):
    return hub.add("someone/tiny", base)


@pytest.fixture
def carded(adapters, tmp_path):
    """Two adapters, each in a folder of its own; the first beside a card that names a base."""
    for name in ("ink", "wash"):
        (tmp_path / name).mkdir()
        shutil.copy(adapters / f"{name}.safetensors", tmp_path / name)
    (tmp_path / "ink" / "README.md").write_text(CARD_TEXT)
    return tmp_path


def planned(lorakit, *arguments):
    done = lorakit("generate", "--dry-run", "--json", "--seed", 1, *arguments, "x")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)["plan"]["base"], done.stderr.splitlines()


def refused(lorakit, *arguments):
    done = lorakit("generate", "--dry-run", *arguments, "x")
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def test_a_card_names_the_base(lorakit, commit, base, carded, here):
    ink, wash = specs(carded, "ink/ink.safetensors"), specs(carded, "wash/wash.safetensors")
    said = f"base: someone/tiny@{commit}, from the card of ink"
    label = f"someone/tiny@{commit}"
    assert planned(lorakit, *ink) == (label, [said])
    # One that says nothing goes along.
    assert planned(lorakit, *wash, *ink) == (label, [said])
    assert planned(lorakit, *ink, "--base", base) == (str(base), [])
    assert planned(lorakit, *ink, "--quiet") == (label, [])
    (here / "lorakit.toml").write_text(f'base = "{base}"')
    assert planned(lorakit, *ink) == (str(base), [])


def test_outputs_are_made_of_it(lorakit, commit, carded, here):
    ink = specs(carded, "ink/ink.safetensors")
    for verb in ("fuse", "save"):
        done = lorakit(verb, *ink, "--out", verb)
        assert done.exit_code == 0, done.stderr
        assert done.stderr == f"base: someone/tiny@{commit}, from the card of ink\n"
        recipe = json.loads((here / verb / "lorakit.json").read_text())
        assert recipe["base"]["remote"] == f"someone/tiny@{commit}"


def test_a_repository_names_it_for_an_adapter_in_a_folder_of_it(lorakit, hub, commit, carded):
    (carded / "ink" / "v2").mkdir()
    (carded / "ink" / "ink.safetensors").rename(carded / "ink" / "v2" / "ink.safetensors")
    hub.add("someone/ink", carded / "ink")
    assert planned(lorakit, "--lora", "someone/ink") == (
        f"someone/tiny@{commit}",
        [f"base: someone/tiny@{commit}, from the card of ink"],
    )


def test_the_library_goes_before_the_card(lorakit, commit, base, carded, here):
    (here / "lorakit.toml").write_text(
        f'[adapters.a]\nsource = "{carded}/ink/ink.safetensors"\nbase = "{base}"\n'
        f'[adapters.b]\nsource = "{carded}/wash/wash.safetensors"\nbase = "someone/tiny"\n'
    )
    assert planned(lorakit, "--lora", "a") == (str(base), [f"base: {base}, from lorakit.toml of a"])
    assert refused(lorakit, "--lora", "a", "--lora", "b") == (
        f"error: the adapters are for different bases: a for {base} (lorakit.toml), b for someone/tiny (lorakit.toml); "
        "choose with --base"
    )


def test_adapters_for_different_bases_are_named(lorakit, hub, commit, base, carded):
    (carded / "wash" / "README.md").write_text("---\nbase_model: someone/other\n---\n")
    ink, wash = specs(carded, "ink/ink.safetensors"), specs(carded, "wash/wash.safetensors")
    assert refused(lorakit, *ink, *wash) == (
        "error: the adapters are for different bases: ink for someone/tiny (the card), wash for someone/other (the "
        "card); choose with --base"
    )
    (carded / "ink" / "README.md").write_text("---\nbase_model: [someone/tiny, someone/other]\n---\n")
    assert refused(lorakit, *ink) == (
        "error: adapter ink is for several bases, someone/tiny, someone/other (from the card); choose with --base"
    )
    assert hub.requests == []
    assert planned(lorakit, *ink, *wash, "--base", base)[0] == str(base)


def test_a_base_that_cannot_be_had_says_where_it_comes_from(lorakit, hub, commit, carded, offline):
    wash = specs(carded, "wash/wash.safetensors")
    (carded / "wash" / "README.md").write_text("---\nbase_model: someone/none\n---\n")
    assert refused(lorakit, *wash) == (
        "error: the Hub has no repository someone/none, or it is private; check its name, or log in with `hf auth "
        "login`; the base is from the card of wash, --base names another"
    )
    offline()
    assert refused(lorakit, *specs(carded, "ink/ink.safetensors")) == (
        "error: someone/tiny is not in the cache, and HF_HUB_OFFLINE forbids the network; unset it once, or give the "
        "path of a folder; the base is from the card of ink, --base names another"
    )


def test_settings_in_the_file_name_it(lorakit, commit, adapters, tmp_path):
    settings = json.dumps({"unet.r": 4, "unet.lora_alpha": 4, "unet.base_model_name_or_path": "someone/tiny"})
    save_file(load_file(adapters / "wash.safetensors"), tmp_path / "a.safetensors", {"lora_adapter_metadata": settings})
    _, said = planned(lorakit, *specs(tmp_path, "a.safetensors"))
    assert said == [f"base: someone/tiny@{commit}, from the settings of a"]


@pytest.mark.parametrize(
    ("metadata", "beside", "expected"),
    [
        ({}, {}, None),
        ({}, {CARD: {"base_model": "a/b"}}, (("a/b",), "the card")),
        ({}, {CARD: {"base_model": ["a/b"]}}, (("a/b",), "the card")),
        ({}, {CARD: {"base_model": ["a/b", "c/d", "a/b"]}}, (("a/b", "c/d"), "the card")),
        ({"ss_sd_model_name": "x/y"}, {CARD: {"base_model": "a/b"}}, (("a/b",), "the card")),
        ({"lora_adapter_metadata": '{"unet.base_model_name_or_path": "a/b"}'}, {}, (("a/b",), "the settings")),
        ({"lora_adapter_metadata": '{"base_model_name_or_path": "a/b"}'}, {}, (("a/b",), "the settings")),
        ({}, {PEFT_CONFIG: {"base_model_name_or_path": "a/b"}}, (("a/b",), "the adapter_config.json")),
        ({"ss_sd_model_name": "a/b"}, {}, (("a/b",), "the training data")),
        ({"ot_config": '{"base_model_name": "a/b"}'}, {}, (("a/b",), "the training data")),
        # Neither files, nor paths, nor what only names a family.
        ({"ss_sd_model_name": "v1-5-pruned.safetensors", "ss_base_model_version": "sdxl_base_v1-0"}, {}, None),
        ({"ss_sd_model_name": "models/v1-5.safetensors"}, {}, None),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, {}, None),
        ({}, {PEFT_CONFIG: {"base_model_name_or_path": "/home/me/sdxl"}}, None),
        ({}, {PEFT_CONFIG: {"base_model_name_or_path": "../sdxl/base"}}, None),
        ({}, {CARD: {"base_model": {"a": 1}}}, None),
        ({"lora_adapter_metadata": "{"}, {CARD: {"base_model": None}}, None),
    ],
)
def test_what_counts_as_a_statement(metadata, beside, expected):
    found = stated_base(metadata, SideFiles(beside))
    assert (found and (found.repositories, found.where)) == expected


def test_embedded_adapters_need_no_word(lorakit):
    label, said = planned(lorakit, "--lora", "toy")
    assert (label.endswith("base"), said) == (
        True,
        ["warning: the prompt has no trigger word of toy: toy_face; --add-triggers puts them in"],
    )
