"""Every command on an adapter on the Hub: what it does with the file itself, and a recipe that finds it again."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.fused import files, fused, specs

CARD = "---\ninstance_prompt: ink style\n---\n"


@pytest.fixture
def ink(hub, adapters, tmp_path):
    """The adapter `ink` in a repository, as its spec; its file has another name there than here."""
    folder = tmp_path / "published"
    (folder / "v2").mkdir(parents=True)
    shutil.copy(adapters / "ink.safetensors", folder / "v2" / "ink.safetensors")
    (folder / "README.md").write_text(CARD)
    hub.commit = hub.add("someone/inks", folder)
    return "someone/inks/v2/ink.safetensors"


def test_a_picture_is_that_of_the_local_file(lorakit, base, adapters, ink, tmp_path):
    ways = {
        "local": (*specs(adapters, "ink.safetensors:0.7"), "x"),
        "hub": ("--lora", f"{ink}:0.7", "x"),
        "tag": (f"x <lora:{ink}:0.7>",),
        "none": ("x",),
    }
    values, inside = {}, {}
    for way, words in ways.items():
        done = lorakit("generate", "--base", base, "--steps", 2, "--seed", 3, "--out", f"{way}.png", *words)
        assert done.exit_code == 0, done.stderr
        with Image.open(f"{way}.png") as picture:
            values[way], inside[way] = picture.tobytes(), json.loads(picture.text["lorakit"])
    assert values["local"] == values["hub"] == values["tag"] != values["none"]
    sources = {way: made["recipe"]["adapters"][0].pop("source") for way, made in inside.items() if way != "none"}
    assert inside["local"] == inside["hub"] == inside["tag"]
    assert sources == {"local": "ink.safetensors", "hub": f"hf:{ink}", "tag": f"hf:{ink}"}


def test_triggers_of_the_card_are_missed(lorakit, hub, base, adapters, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(adapters / "ink.safetensors", folder)
    (folder / "README.md").write_text(CARD)
    hub.add("someone/ink", folder)
    done = lorakit("generate", "--base", base, "--lora", "someone/ink", "--dry-run", "a heart")
    assert done.stderr == "warning: the prompt has no trigger word of ink: ink style; --add-triggers puts them in\n"
    assert lorakit("generate", "--base", base, "--lora", "someone/ink", "--dry-run", "ink style").stderr == ""


def test_inspect_and_convert_tell_and_write_the_same(lorakit, base, adapters, ink, here):
    path = adapters / "ink.safetensors"
    ours, theirs = (json.loads(lorakit("inspect", one, "--hash", "--json").stdout) for one in (ink, path))
    for report in (ours, theirs):
        report["path"] = report["path"].rsplit("/", 1)[-1]
    assert ours == theirs
    for one, out in ((ink, "a"), (path, "b")):
        done = lorakit("convert", one, "--base", base, "--to", "kohya", "--out", f"{out}.safetensors")
        assert done.exit_code == 0, done.stderr
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()


def test_a_fused_pipeline_finds_its_adapter_on_the_hub_again(lorakit, hub, base, adapters, ink, here, tmp_path):
    fused(lorakit, "--base", base, "--lora", f"{ink}:0.7", "--out", "hub")
    fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors:0.7"), "--out", "local")
    ours, theirs = files(here / "hub"), files(here / "local")
    recipe, local = (json.loads(texts.pop("lorakit.json")) for texts in (ours, theirs))
    assert ours == theirs
    (used,) = recipe["adapters"]
    assert used == local["adapters"][0] | {"source": f"hf:someone/inks@{hub.commit}/v2/ink.safetensors"}
    # A later commit changes nothing, and an empty cache is filled again.
    newer = tmp_path / "newer"
    newer.mkdir()
    hub.add("someone/inks", newer)
    shutil.rmtree(tmp_path / "hub-cache")
    done = lorakit("verify", "hub", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["sound"] is True
    hub.requests.clear()
    fused(lorakit, "--recipe", "hub", "--out", "again")
    again = files(here / "again")
    assert json.loads(again.pop("lorakit.json"))["adapters"] == recipe["adapters"]
    assert again == ours
    assert lorakit("unfuse", "hub", "--out", "original").exit_code == 0
    assert hub.requests == []


def test_a_recipe_whose_adapter_cannot_be_fetched_says_why(lorakit, base, ink, tmp_path, offline):
    fused(lorakit, "--base", base, "--lora", f"{ink}:0.7", "--out", "out")
    shutil.rmtree(tmp_path / "hub-cache")
    offline()
    done = lorakit("verify", "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "HF_HUB_OFFLINE forbids the network" in done.stderr
    assert done.stderr.endswith("; --lora ink=PATH says where it is\n")


def test_other_bytes_under_the_same_commit_are_refused(lorakit, base, adapters, ink, tmp_path):
    fused(lorakit, "--base", base, "--lora", f"{ink}:0.7", "--out", "out")
    (cached,) = (tmp_path / "hub-cache").rglob("v2/ink.safetensors")
    cached.unlink()
    shutil.copy(adapters / "wash.safetensors", cached)
    done = lorakit("verify", "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is not the file it was: sha256" in done.stderr


def test_a_saved_folder_has_the_adapter_inside(lorakit, hub, base, adapters, ink, here, tmp_path):
    for source, out in ((ink, "hub"), (adapters / "ink.safetensors", "local")):
        done = lorakit("save", "--base", base, "--lora", f"{source}:0.7", "--out", out)
        assert done.exit_code == 0, done.stderr
    ours, theirs = files(here / "hub"), files(here / "local")
    for texts in (ours, theirs):
        del texts["lorakit.json"]
    assert ours == theirs
    hub.requests.clear()
    shutil.rmtree(tmp_path / "hub-cache")
    assert lorakit("generate", "--base", "hub", "--dry-run", "x").exit_code == 0
    assert hub.requests == []


def test_several_and_none_are_one_clear_line(lorakit, hub, base, adapters, here):
    hub.add("someone/many", adapters)
    for command in (("generate", "--base", base, "--lora"), ("inspect",), ("fuse", "--out", "out", "--lora")):
        more = ["x"] if command[0] == "generate" else []
        done = lorakit(*command, "someone/many", *more)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == (
            "error: someone/many holds several adapters, name one: someone/many/ink.safetensors, "
            "someone/many/wash.safetensors\n"
        )
        done = lorakit(*command, "hf:someone/none", *more)
        assert done.stderr.startswith("error: the Hub has no repository someone/none, or it is private; ")
    assert list(here.iterdir()) == []


def test_a_pickle_on_the_hub_needs_permission(lorakit, hub, base, adapters, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "old"
    folder.mkdir()
    torch.save(load_file(adapters / "wash.safetensors"), folder / "pytorch_lora_weights.bin")
    hub.add("someone/old", folder)
    asked = ("generate", "--base", base, "--lora", "someone/old", "--dry-run", "x")
    done = lorakit(*asked)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "pytorch_lora_weights.bin, which can run code when opened; pass --allow-pickle" in done.stderr
    assert hub.asked_for() == set()
    assert "adapter old:1 " in lorakit(*asked, "--allow-pickle").stdout


def test_plans_need_no_torch(hub, base, ink, tmp_path):
    """A dry run and a look download the adapter, and load nothing heavy but the Hub's client."""
    heavy = ("torch", "diffusers", "transformers", "peft", "safetensors")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for arguments in (["generate", "--base", str(base), "-l", ink, "--dry-run", "x"], ["inspect", ink]):
        code = (
            "import sys\nfrom lorakit_cli.app import app\n"
            f"try: app({arguments!r})\nexcept SystemExit as end: code = end.code\n"
            f"print([name for name in {heavy} if name in sys.modules], code, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
        assert done.stderr.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_a_terminal_sees_the_download(hub, ink, tmp_path, options):
    reading, writing = pytest.importorskip("pty").openpty()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "lorakit_cli", "inspect", ink, *options]
    done = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writing, env=variables | {"TERM": "xterm"})
    os.close(writing)
    text = b""
    try:
        while piece := os.read(reading, 65536):
            text += piece
    except OSError:
        # The other side is closed.
        pass
    assert done.wait() == 0
    assert (b"downloading ink.safetensors" in text) == (not options)
    assert not options or text == b""
