"""`--base` of every kind, through the program: what it finds out, and what it says where there is no base."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.commands.conftest import names
from tests.hub_server import HubServer


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that the program finds by its variables when it is run as a process of its own, with empty caches."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def reports(run, base, ink):
    """Say what every verb that reads headers finds out about an adapter and a base, but for the base's own name."""
    told = []
    for arguments in (
        ("generate", "--base", base, "-l", f"{ink}:0.5", "--dry-run", "--seed", 1, "--out", "x.png", "x"),
        ("inspect", ink, "--base", base),
        ("list-adapters", "--base", base, "-l", ink),
    ):
        done = run(*arguments, "--json")
        assert done.stderr == ""
        told.append(json.loads(done.stdout))
    plan, inspected, listed = told
    called = {plan["plan"].pop("base"), inspected["match"][0].pop("base"), listed.pop("base")}
    for each in plan["plans"]:
        called.add(each.pop("base"))
    # How large the pictures of a base were is not written in a single file.
    for size in ("width", "height"):
        assert plan.pop(size) in (16, None)
    return told, called


def test_a_checkpoint_tells_what_its_folder_tells(lorakit, base, checkpoint, adapters):
    ink = adapters / "ink.safetensors"
    expected, _ = reports(lorakit, base, ink)
    assert expected[0]["plan"]["changed"] == {"text_encoder": 8, "unet": 180}
    assert expected[1]["match"][0]["fits"] is True
    assert expected[2]["adapters"][0]["touches"] == {"text_encoder": 8, "unet": 180}
    assert reports(lorakit, checkpoint, ink) == (expected, {str(checkpoint)})


@pytest.mark.parametrize("asked", ["someone/tiny", "hf:someone/tiny@v1"])
def test_a_base_on_the_hub_tells_what_its_folder_tells(lorakit, program, hub, base, adapters, asked):
    commit = hub.add("someone/tiny", base, "main", "v1")
    ink = adapters / "ink.safetensors"
    assert reports(program, asked, ink) == (reports(lorakit, base, ink)[0], {f"someone/tiny@{commit}"})
    asked_for = len(hub.requests)
    # What a report calls the base can be asked for again, and is then known for good.
    assert program("list-adapters", "--base", f"someone/tiny@{commit}").returncode == 0
    # The client itself asks for other things now and then.
    assert [request.path for request in hub.requests[asked_for:] if "someone" in request.path] == []


def test_native_names_fit_every_kind_of_base(lorakit, base, checkpoint, tmp_path):
    """A layer under sgm's name: the base's class leads to its architecture, which knows the name."""
    stem = "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_k"
    path = tmp_path / "a.safetensors"
    save_file({f"{stem}.lora_down.weight": torch.ones(2, 32), f"{stem}.lora_up.weight": torch.ones(16, 2)}, path)
    for known in (base, checkpoint):
        (row,) = json.loads(lorakit("list-adapters", "--base", known, "-l", path, "--json").stdout)["adapters"]
        assert row["touches"] == {"unet": 1}


def test_the_library_may_name_any_base(lorakit, program, hub, base, checkpoint, here, adapters):
    hub.add("someone/tiny", base)
    ink = adapters / "ink.safetensors"
    (here / "models").mkdir()
    shutil.copy(checkpoint, here / "models" / "tiny.safetensors")
    for wanted, run in (("models/tiny.safetensors", lorakit), ("someone/tiny", program)):
        (here / "lorakit.toml").write_text(f'base = "{wanted}"')
        report = json.loads(run("list-adapters", "-l", ink, "--json").stdout)
        assert wanted in report["base"]
        assert report["adapters"][0]["touches"] == {"text_encoder": 8, "unet": 180}


def test_a_folder_here_wins_over_the_hub(program, hub, base, here, adapters):
    (here / "someone").mkdir()
    shutil.copytree(base, here / "someone" / "tiny")
    report = json.loads(
        program("list-adapters", "-b", "someone/tiny", "-l", adapters / "ink.safetensors", "--json").stdout
    )
    assert Path(report["base"]) == Path("someone/tiny")
    assert hub.requests == []


def one_line(result, code):
    """Give the only line that a failure wrote."""
    assert (code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


FILES = {
    "vae": ("{base}/vae/diffusion_pytorch_model.safetensors", "is a VAE alone; a base has a UNet or transformer too"),
    "unet": ("{base}/unet/diffusion_pytorch_model.safetensors", "give the pipeline's folder, with its model_index"),
    "text encoder": ("{base}/text_encoder/model.safetensors", "is a text encoder alone"),
    "adapter": ("{ink}", "is an adapter, not a base; give it with --lora"),
    "index": ("{base}/model_index.json", "is one file of a pipeline; give the folder it is in"),
    "component": ("{base}/unet", "is not a diffusers pipeline: it has no model_index.json"),
    "unknown": ("unknown.safetensors", "is no base lorakit knows: it has 1 tensors, such as layers_of_a_kind.weight"),
    "other family": ("sd3.safetensors", "is a model of a family whose single files lorakit does not read; take its"),
    "empty": ("empty.safetensors", "holds no tensors; is the download complete?"),
    "cut off": ("cut.safetensors", "is truncated: its header promises"),
    "no bytes": ("nothing.safetensors", "is no complete safetensors file (0 bytes)"),
    "pickle": ("old.ckpt", "is a pickle, and only safetensors are read"),
    "pickle by another name": ("old.safetensors", "is a pickle file under another name"),
    "gguf": ("q4.gguf", "is quantized, and nothing can be added to it"),
    "text": ("notes.txt", "is no safetensors file"),
    "missing": ("tiny", "there is no base 'tiny'; give the path"),
    "misspelt": ("unknwn.safetensors", "there is no base 'unknwn.safetensors'; did you mean unknown.safetensors"),
}


@pytest.mark.parametrize("case", FILES)
def test_what_is_no_base_is_one_clear_line(lorakit, base, checkpoint, adapters, here, case):
    save_file({"layers_of_a_kind.weight": torch.zeros(2)}, "unknown.safetensors")
    save_file({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(2)}, "sd3.safetensors")
    save_file({}, "empty.safetensors")
    Path("cut.safetensors").write_bytes(checkpoint.read_bytes()[:-1])
    Path("nothing.safetensors").touch()
    torch.save({"state_dict": {}}, "old.ckpt", _use_new_zipfile_serialization=False)
    shutil.copy("old.ckpt", "old.safetensors")
    for name in ("q4.gguf", "notes.txt"):
        Path(name).write_bytes(b"GGUF")
    before = names(here)
    asked, message = FILES[case]
    ink = adapters / "ink.safetensors"
    asked = asked.format(base=base, ink=ink)
    for arguments in (
        ("list-adapters", "--base", asked),
        ("inspect", ink, "--base", asked),
        ("generate", "--base", asked, "-l", ink, "x"),
    ):
        result = lorakit(*arguments)
        line = one_line(result, result.exit_code)
        assert line.startswith("error: ")
        assert message in line
    assert names(here) == before


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("someone/none", "the Hub has no repository someone/none, or it is private; check its name, or log in with"),
        ("someone/gated", "someone/gated is gated; accept its licence at HUB/someone/gated and log in with"),
        ("someone/tiny@v9", "someone/tiny has no revision v9; its branches and tags are listed at HUB/someone/tiny/"),
        ("someone/adapters", "someone/adapters is not a diffusers pipeline: it has no model_index.json"),
        ("hf:none", "'hf:none' names no Hub repository, which is written hf:owner/name or hf:owner/name@revision"),
        ("models/tine", "`hf auth login`; the folder models here has none either; did you mean tiny?"),
    ],
)
def test_what_the_hub_does_not_give_is_one_clear_line(program, hub, base, adapters, here, asked, message):
    (here / "models" / "tiny").mkdir(parents=True)
    hub.add("someone/tiny", base)
    hub.add("someone/gated", base, gated=True, token="hf_other")
    hub.add("someone/adapters", adapters)
    done = program("list-adapters", "--base", asked)
    line = one_line(done, done.returncode).replace(hub.url, "HUB")
    assert line.startswith("error: ")
    assert message in line


def test_without_a_network_what_was_never_read_is_said_so(program, hub, base):
    hub.add("someone/tiny", base)
    offline = {"env": os.environ | {"HF_HUB_OFFLINE": "1"}}
    done = program("list-adapters", "--base", "someone/tiny", **offline)
    assert one_line(done, done.returncode) == (
        "error: someone/tiny is not in the cache, and HF_HUB_OFFLINE forbids the network; unset it once, or give the "
        "path of a folder"
    )
    assert hub.requests == []
    assert program("list-adapters", "--base", "someone/tiny").returncode == 0
    assert program("list-adapters", "--base", "someone/tiny", **offline).returncode == 0


def test_a_hub_out_of_reach_is_said_so(program, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = program("list-adapters", "--base", "someone/tiny")
    assert one_line(done, done.returncode) == (
        "error: http://127.0.0.1:9 cannot be reached for someone/tiny (ConnectError); check the connection, or give "
        "the path of a folder"
    )
