"""`merge` and `resize` on adapters from wherever they come: the same file as from those on this machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conversions import metadata_of
from tests.merging import done, read, refused
from tests.pickles import write


@pytest.fixture
def merged(lorakit, base, adapters, here):
    """Merge adapters, and hold the file against what comes of those on this machine."""
    pair = "--lora", f"ink={adapters}/ink.safetensors:0.7", "--lora", f"wash={adapters}/wash.safetensors:-0.5"
    done(lorakit("merge", *pair, "--base", base, "--out", "local.safetensors", "--json"))

    def run(*arguments):
        report = done(lorakit("merge", *arguments, "--base", base, "--out", "out.safetensors", "--json"))
        require_same(here / "out.safetensors", here / "local.safetensors")
        return report

    return run


def require_same(one, two):
    """Check that two files hold the same tensors to the last bit."""
    ours, theirs = load_file(one), load_file(two)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def inks(hub, adapters, tmp_path):
    """The adapter `ink` in a repository, among others."""
    folder = tmp_path / "published"
    (folder / "v2").mkdir(parents=True)
    shutil.copy(adapters / "ink.safetensors", folder / "v2" / "ink.safetensors")
    hub.add("someone/inks", folder)
    return "someone/inks/v2/ink.safetensors"


def test_from_the_hub_and_by_a_name_for_it(merged, hub, inks, adapters, here, tmp_path):
    folder = tmp_path / "washes"
    folder.mkdir()
    shutil.copy(adapters / "wash.safetensors", folder)
    hub.add("someone/wash", folder)
    (here / "lorakit.toml").write_text('[adapters.wash]\nsource = "someone/wash"\nweight = -0.5\n')
    report = merged("--lora", f"{inks}:0.7", "--lora", "wash")
    digests = [hashlib.sha256((adapters / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("ink", "wash")]
    assert [each["sha256"] for each in report["adapters"]] == digests
    assert metadata_of(here / "out.safetensors") == metadata_of(here / "local.safetensors")


def test_from_the_web(merged, site, adapters, monkeypatch):
    content = (adapters / "ink.safetensors").read_bytes()
    site.serve("/files/ink.safetensors", content)
    url = site.serve("/wash.safetensors", (adapters / "wash.safetensors").read_bytes())
    file = {
        "name": "ink_v3.safetensors", "type": "Model", "primary": True,
        "downloadUrl": f"{site.url}/files/ink.safetensors",
        "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
    }  # fmt: skip
    version = {"trainedWords": [], "baseModel": "SD 1.5", "model": {"type": "LORA", "name": "Ink"}, "files": [file]}
    site.serve_json("/api/v1/model-versions/12345", version)
    report = merged("--lora", "civitai:12345:0.7", "--lora", f"{url}:-0.5")
    assert [each["name"] for each in report["adapters"]] == ["civitai_12345", "wash"]


def test_pickles_need_permission(merged, lorakit, hub, base, adapters, here, tmp_path):
    ink, wash = (load_file(adapters / f"{name}.safetensors") for name in ("ink", "wash"))
    # Its scale, 2 / 8, stands in metadata, which no pickle has.
    wash = {name: tensor / 4 if "lora_B" in name else tensor for name, tensor in wash.items()}
    pickle = write(tmp_path / "ink.bin", ink)
    folder = tmp_path / "old"
    folder.mkdir()
    write(folder / "pytorch_lora_weights.bin", wash)
    hub.add("someone/wash", folder)
    pair = "--lora", f"{pickle}:0.7", "--lora", "someone/wash:-0.5"
    before = sorted(path.name for path in here.iterdir())
    result = lorakit("merge", *pair, "--base", base, "--out", "out.safetensors")
    refused(result, "someone/wash holds only pickled adapters, pytorch_lora_weights.bin, ")
    assert "--allow-pickle" in result.stderr
    refused(lorakit("merge", "-l", pickle, "--base", base, "--out", "out.safetensors"), "pass --allow-pickle")
    assert sorted(path.name for path in here.iterdir()) == before
    merged(*pair, "--allow-pickle")


@pytest.mark.parametrize("words", [["merge", "--lora"], ["resize", "--rank", "2"], ["convert", "--to", "kohya"]])
def test_a_pickled_base_needs_permission_too(lorakit, base, adapters, here, words):
    shutil.copytree(base, "old")
    weights = here / "old" / "text_encoder" / "model.safetensors"
    write(weights.with_name("pytorch_model.bin"), load_file(weights))
    weights.unlink()
    asked = [*words, adapters / "ink.safetensors", "--out"]
    result = lorakit(*asked, "out.safetensors", "--base", "old")
    refused(result, "is a pickle, and only safetensors are read; --allow-pickle takes")
    for name, options in (("old", ["--allow-pickle"]), (base, [])):
        assert lorakit(*asked, f"{Path(name).name}.safetensors", "--base", name, *options).exit_code == 0
    assert (here / "old.safetensors").read_bytes() == (here / f"{base.name}.safetensors").read_bytes()
    tensors = load_file(adapters / "ink.safetensors")
    save_file({name.replace("mid_block", "odd_block"): tensor for name, tensor in tensors.items()}, "odd.safetensors")
    asked[-2] = "odd.safetensors"
    refused(lorakit(*asked, "x.safetensors", "--base", "old", "--allow-pickle"), "are no modules of old")


@pytest.mark.parametrize("source", ["someone/inks/v2/ink.safetensors", "ink", "pickle"])
def test_resize_takes_them_too(lorakit, base, adapters, inks, here, tmp_path, source):
    (here / "lorakit.toml").write_text(f'[adapters.ink]\nsource = "{inks}"\n')
    arguments = ["--rank", 2, "--base", base, "--json", "--out"]
    if source == "pickle":
        folder = tmp_path / "folder"
        folder.mkdir()
        write(folder / "ink.pt", load_file(adapters / "ink.safetensors"))
        source = folder
        refused(lorakit("resize", source, *arguments, "a.safetensors"), "pass --allow-pickle")
        arguments.insert(0, "--allow-pickle")
    done(lorakit("resize", source, *arguments, "a.safetensors"))
    done(lorakit("resize", adapters / "ink.safetensors", *arguments, "b.safetensors"))
    require_same(here / "a.safetensors", here / "b.safetensors")


def test_what_cannot_be_fetched_is_one_line(lorakit, hub, base, adapters, here):
    hub.add("someone/many", adapters)
    for command in (["merge", "--lora"], ["resize", "--rank", "2"]):
        asked = [*command, "someone/many", "--base", base, "--out", "x.safetensors"]
        refused(lorakit(*asked), "someone/many holds several adapters, name one: someone/many/ink.safetensors")
        asked[len(command)] = "hf:someone/none"
        refused(lorakit(*asked), "the Hub has no repository someone/none, or it is private")
    assert list(here.iterdir()) == []


def test_block_weights_behind_a_weight_count(lorakit, base, adapters, here):
    """As in prompts of the web UIs: text encoders at the first number, all else at the second."""
    lora = f"{adapters}/ink.safetensors:0.5:2"
    done(lorakit("merge", "--lora", lora, "--base", base, "--dtype", "fp32", "--out", "out.safetensors", "--json"))
    whole = read(base, adapters / "ink.safetensors")
    wanted = {key: change.double() * (0.5 if key[0] == "text_encoder" else 2) for key, change in whole.items()}
    found = read(base, here / "out.safetensors")
    assert found.keys() == wanted.keys()
    assert all(float((found[key] - wanted[key]).norm()) <= 1e-6 * float(wanted[key].norm()) for key in wanted)


@pytest.mark.parametrize("options", [[], ["--quiet"]])
@pytest.mark.parametrize("command", ["merge", "resize"])
def test_a_terminal_sees_the_download_and_the_layers(hub, inks, base, adapters, tmp_path, command, options):
    reading, writing = pytest.importorskip("pty").openpty()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ["merge", "-l", inks, "-l", adapters / "wash.safetensors"] if command == "merge" else ["resize", inks]
    words += ["--rank", "2", "--base", base, "--out", "out.safetensors", "--json", *options]
    command = [sys.executable, "-m", "lorakit_cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writing, env=variables | {"TERM": "xterm"}) as run:
        os.close(writing)
        drawn = b""
        try:
            while piece := os.read(reading, 65536):
                drawn += piece
        except OSError:
            # The other end is closed.
            pass
        stdout = run.stdout.read()
    os.close(reading)
    assert run.returncode == 0, drawn
    assert json.loads(stdout)["layers"] == 188
    for label in (b"downloading ink.safetensors", b"layers"):
        assert (label in drawn) == (not options)
