"""What `lorakit inspect` refuses: one clear line, no output, and nothing written.

Where a file can be read but not used, what is known of it is still shown, and the last line on stderr says why.
"""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from tests.commands.conftest import names
from tests.pickles import rezipped, saved

GOOD = {"unet.a.lora_A.weight": torch.ones(2, 3), "unet.a.lora_B.weight": torch.ones(5, 2)}
LONG = "x" * 3_000_000


def header(entries, data=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


class Exploit:
    def __reduce__(self):
        return Path.touch, (Path("proof"),)


def bomb():
    """A torch file whose one member is two hundred megabytes of zeros, compressed to a fraction."""
    return rezipped(saved({"a": torch.ones(4)}), lambda name, data: data + bytes(200_000_000 * ("data/0" in name)),
                    zipfile.ZIP_DEFLATED)  # fmt: skip


UNREADABLE = {
    "truncated": ("a.safetensors", lambda: save(GOOD)[:-8], "is truncated", "download or copy it again"),
    "cut in the header": ("a.safetensors", lambda: save(GOOD)[:40], "is no complete safetensors file", "again"),
    "empty": ("a.safetensors", lambda: b"", "is no complete safetensors file (0 bytes)", "again"),
    "two bytes": ("a.safetensors", lambda: b"ab", "is no complete safetensors file (2 bytes)", "again"),
    "git lfs pointer": (
        "a.safetensors", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "is a Git LFS pointer", "again",
    ),
    "html": ("a.safetensors", lambda: b"<!DOCTYPE html><html>Sign in</html>", "is a web page", "again"),
    "json": ("a.safetensors", lambda: b'{"error": "not found"}', "is a JSON text", "again"),
    "renamed pickle": ("a.safetensors", lambda: saved(GOOD), "zip or PyTorch pickle file under another name", ""),
    "renamed old pickle": ("a.safetensors", lambda: pickle.dumps([1, "x" * 90], 2), "a pickle file under another", ""),
    "header bomb": ("a.safetensors", lambda: header({}, length=2**62), "is no complete safetensors file", "again"),
    "duplicate keys": (
        "a.safetensors", lambda: header(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
        "a name stands in it twice", "",
    ),
    "checkpoint": (
        "a.safetensors", lambda: save({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2)}),
        "is a full checkpoint, not a LoRA", "give it as --base",
    ),
    "embedding": ("a.safetensors", lambda: save({"emb_params": torch.ones(2, 768)}), "is a textual inversion", "load"),
    "pickle": ("a.pt", lambda: saved(GOOD), "is a pickle file, which can run code", "--allow-pickle"),
    "no adapter": ("a.safetensors", lambda: save({"some.tensor": torch.ones(2)}), "holds no adapter", "some.tensor"),
    "other suffix": ("a.txt", lambda: b"hello", "only .safetensors adapters are read", "name it so"),
}  # fmt: skip
BROKEN = {
    "broken pair": ({"unet.b.lora_A.weight": torch.ones(2, 3)}, "unet.b.lora_A.weight is there without"),
    "rank 0": (
        {"unet.b.lora_A.weight": torch.ones(0, 3), "unet.b.lora_B.weight": torch.ones(5, 0)}, "unet.b: ",
    ),
    "ranks that differ": (
        {"unet.b.lora_A.weight": torch.ones(2, 3), "unet.b.lora_B.weight": torch.ones(5, 3)}, "unet.b: ",
    ),
    "alpha nan": ({"unet.a.alpha": torch.tensor(float("nan"))}, "unet.a.alpha is nan"),
    "alpha infinite": ({"unet.a.alpha": torch.tensor(float("inf"))}, "unet.a.alpha is inf"),
    "alpha of several elements": ({"unet.a.alpha": torch.ones(3)}, "unet.a.alpha should be one number but is F32 [3]"),
    "one part twice": ({"unet.a.lora_down.weight": torch.ones(2, 3)}, "are the same part of one layer"),
    "unknown part": ({"unet.a.lora_Z": torch.ones(2)}, "an algorithm lorakit does not know"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_clear_line(lorakit, here, case):
    name, content, cause, fix = UNREADABLE[case]
    Path(name).write_bytes(content())
    for options in ((), ("--json",), ("--scan", "--hash", "--strength"), ("--plot", "a.png")):
        result = lorakit("inspect", name, *options)
        assert (result.exit_code, result.stdout, names(here)) == (1, "", [name])
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert cause in line
        assert fix in line


@pytest.mark.parametrize("case", BROKEN)
def test_what_can_be_read_but_not_used_says_why_last(lorakit, here, case):
    extra, cause = BROKEN[case]
    save_file(GOOD | extra, "a.safetensors")
    result = lorakit("inspect", "a.safetensors")
    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: a.safetensors: ")
    assert cause in line
    assert "problem" in result.stdout
    report = json.loads(lorakit("inspect", "a.safetensors", "--json").stdout)
    assert (report["usable"], report["verdict"]) == (False, report["problems"][0])
    assert cause in report["verdict"]
    assert names(here) == ["a.safetensors"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_never_does(lorakit, here, legacy):
    Path("a.pt").write_bytes(saved({"a": Exploit()}, legacy=legacy))
    Path("b.safetensors").write_bytes(saved({"a": Exploit()}, legacy=legacy))
    for arguments in (("a.pt",), ("a.pt", "--allow-pickle"), ("b.safetensors", "--allow-pickle")):
        result = lorakit("inspect", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.splitlines()[-1].startswith("error: ")
    assert lorakit("inspect", here, "--allow-pickle").exit_code == 1
    assert names(here) == ["a.pt", "b.safetensors"]


def test_a_compressed_bomb_is_not_unpacked(lorakit, here):
    Path("a.pt").write_bytes(bomb())
    assert Path("a.pt").stat().st_size < 1_000_000
    result = lorakit("inspect", "a.pt", "--allow-pickle")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: a.pt ")


def test_hostile_names_are_shown_without_effect_and_short(lorakit, here):
    evil = "unet.\x1b[31m\0\x07\r\n" + LONG
    tensors = {
        f"{evil}.lora_A.weight": torch.ones(2, 3),
        f"{evil}.lora_B.weight": torch.ones(5, 2),
        evil: torch.ones(1),
    }
    metadata = {"modelspec.trigger_phrase": "\x1b[31m" + LONG, "ss_training_comment": LONG, "\x1b]0;x\x07": LONG}
    metadata |= {"modelspec.title": "\x1b[2J" + LONG, "modelspec.architecture": LONG, "ss_tag_frequency": LONG}
    save_file(tensors, "a.safetensors", metadata)
    for options in ((), ("--keys",), ("--base", "demo"), ("--scan", "--strength")):
        result = lorakit("inspect", "a.safetensors", *options)
        text = result.stdout + result.stderr
        assert not any(mark in text for mark in "\x1b\0\x07\r")
        assert max(map(len, text.splitlines())) < 4000
        assert len(text) < 20_000
    save_file({f"{evil}.lora_A.weight": torch.ones(2, 3)}, "a.safetensors")
    result = lorakit("inspect", "a.safetensors", here)
    assert "\x1b" not in result.stdout + result.stderr
    assert len(result.stdout + result.stderr) < 4000


def test_a_hostile_file_name_is_shown_without_effect(lorakit, here):
    name = "a\x1b[31m\x07.safetensors"
    save_file(GOOD, name)
    result = lorakit("inspect", f"./{name}")
    assert "layers     1" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_numbers_in_json_are_finite(lorakit, here):
    spoiled = {name: tensor * float("inf") for name, tensor in GOOD.items()}
    save_file(spoiled | {"unet.a.alpha": torch.tensor(1e300, dtype=torch.float64)}, "a.safetensors")
    result = lorakit("inspect", "a.safetensors", "--scan", "--strength", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout, parse_constant=pytest.fail)
    assert report["scan"]["non_finite"][0]["inf"] == 6
    assert report["strength"]["layers"][0]["norm"] is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_an_unreadable_file(lorakit, here):
    save_file(GOOD, "a.safetensors")
    Path("a.safetensors").chmod(0)
    result = lorakit("inspect", "a.safetensors")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: a.safetensors cannot be read: Permission denied\n"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that even root cannot read")
def test_a_file_that_fails_while_it_is_read(lorakit, here):
    Path("a.safetensors").symlink_to("/proc/self/mem")
    result = lorakit("inspect", "a.safetensors")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: a.safetensors ")


def test_folders_without_an_adapter_or_that_are_a_base(lorakit, here, base):
    Path("empty").mkdir()
    result = lorakit("inspect", "empty")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: empty holds no adapter file (.safetensors, .pt")
    for part in ("unet", "text_encoder"):
        Path("empty", part).mkdir()
        Path("empty", part, "adapter_model.safetensors").touch()
    assert lorakit("inspect", "empty").stderr.endswith("); name one of empty/text_encoder, empty/unet\n")
    result = lorakit("inspect", base)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {base} is a diffusers pipeline, a base and no adapter; give it with --base\n"
    result = lorakit("inspect", base / "unet" / "diffusion_pytorch_model.safetensors")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the weights of a whole model, not a LoRA; give its folder or checkpoint as --base" in result.stderr
