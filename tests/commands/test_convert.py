"""`lorakit convert`: what it prints and writes, what it refuses, and that a failure leaves nothing behind."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conversions import metadata_of
from tests.pickles import write as write_pickle

HEAVY = ("torch", "diffusers", "transformers", "peft", "numpy", "safetensors", "huggingface_hub")
MODULE = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def pair(module=MODULE, rows=16, columns=16, **more):
    tensors = {
        f"{module}.lora_down.weight": torch.randn(2, columns, generator=torch.Generator().manual_seed(1)),
        f"{module}.lora_up.weight": torch.randn(rows, 2, generator=torch.Generator().manual_seed(2)),
        f"{module}.alpha": torch.tensor(1.0),
    }
    return tensors | {f"{module}.{part}": value for part, value in more.items()}


@pytest.fixture
def adapter(here):
    save_file(pair() | pair(TEXT, 32, 32), here / "in.safetensors", {"ss_output_name": "ink"})
    return here / "in.safetensors"


@pytest.fixture
def convert(lorakit, base):
    """Run convert for the tiny base."""

    def run(*arguments, on=None):
        return lorakit("convert", *arguments, "--base", on or base)

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(result, message, code=1):
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_it_says_what_it_wrote(convert, adapter, here):
    result = convert(adapter, "--to", "diffusers", "--out", "out.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = result.stdout.splitlines()
    size = (here / "out.safetensors").stat().st_size
    assert first == f"out.safetensors: diffusers, 2 layers, {size / 1e3:.1f} kB"
    assert second == "  from kohya, 2 layers of StableDiffusionPipeline: the same changes to the last bit"
    assert metadata_of(here / "out.safetensors")["ss_output_name"] == "ink"
    quiet = convert(adapter, "--to", "comfy", "--out", "quiet.safetensors", "-q")
    assert quiet.stdout == "quiet.safetensors: comfy, 2 layers, 1.7 kB\n"


def test_the_report_as_json_has_these_keys(convert, adapter, here):
    result = convert(adapter, "--to", "kohya", "--out", "out.safetensors", "--dtype", "fp16", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report.keys() == {
        "schema", "source", "out", "architecture", "dialect", "layout", "layers", "written", "split", "joined",
        "tensors", "size", "dtype", "exact", "error", "approximated", "left_out",
    }  # fmt: skip
    assert report["schema"] == "lorakit/convert/1"
    assert (report["layers"], report["written"], report["tensors"], report["dtype"]) == (2, 2, 6, "fp16")
    assert report["size"] == (here / "out.safetensors").stat().st_size
    assert 0 < report["error"] < 2**-10
    assert not report["exact"]


def test_roundings_and_approximations_are_told(convert, adapter, here):
    result = convert(adapter, "--to", "kohya", "--out", "a.safetensors", "--dtype", "bf16")
    assert "values rounded to bf16, by at most " in result.stdout
    save_file(pair(MODULE) | {f"{TEXT}.diff": torch.eye(32)}, here / "full.safetensors")
    result = convert("full.safetensors", "--to", "diffusers", "--out", "b.safetensors", "--to-lora", "--rank", 8)
    # Of the unit matrix 24 of 32 equal singular values are left out.
    _, second, third = result.stdout.splitlines()
    assert second.endswith("1 layers approximated, the worst by 86.60%")
    assert third == f"  {TEXT}: full as rank 8, error 86.60%"


def test_an_approximation_is_the_same_bytes_every_time(convert, here):
    metadata = {f"ss_{name}": name for name in "abcdefgh"}
    save_file(pair(MODULE) | {f"{TEXT}.diff": torch.eye(32)}, here / "full.safetensors", metadata)
    for name in ("one", "two"):
        arguments = "--to", "kohya", "--out", f"{name}.safetensors", "--to-lora", "--rank", 8
        assert convert("full.safetensors", *arguments).exit_code == 0
    assert (here / "one.safetensors").read_bytes() == (here / "two.safetensors").read_bytes()


def test_what_is_left_out_is_warned_of(convert, here):
    save_file(pair() | {"bundle_emb.ohwx.clip_l": torch.ones(1, 32), "junk": torch.ones(1)}, here / "in.safetensors")
    result = convert("in.safetensors", "--to", "kohya", "--out", "out.safetensors")
    assert result.exit_code == 0
    assert result.stderr == "warning: left out 2 keys that are no part of its change, such as junk\n"
    assert convert("in.safetensors", "--to", "comfy", "--out", "two.safetensors", "-q").stderr == ""


def test_the_embedded_adapter_goes_everywhere_without_a_base(lorakit, here):
    for to in ("diffusers", "kohya", "comfy"):
        assert lorakit("convert", "toy", "--to", to, "-o", f"{to}.safetensors").exit_code == 0
    result = lorakit("convert", "toy", "--to", "peft", "-o", "folder")
    assert result.stdout.splitlines()[0].startswith("folder: peft, 176 layers, ")
    assert names(here) == ["comfy.safetensors", "diffusers.safetensors", "folder", "kohya.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "a1111", "--out", "o.safetensors"), "Invalid value for '--to'"),
        (("--out", "o.safetensors"), "Missing option '--to'"),
        (("--to", "kohya"), "Missing option '--out'"),
        (("--to", "kohya", "--out", "o.safetensors", "--dtype", "fp8"), "Invalid value for '--dtype'"),
        (("--to", "kohya", "--out", "o.safetensors", "--to-lora"), "--to-lora and --rank N go together"),
        (("--to", "kohya", "--out", "o.safetensors", "--rank", "4"), "--to-lora and --rank N go together"),
        (("--to", "kohya", "--out", "o.safetensors", "--to-lora", "--rank", "0"), "Invalid value for '--rank'"),
        (("--to", "kohya", "--out", "o.bin"), "--out o.bin: the kohya layout is a file, so a name in .safetensors"),
        (("--to", "peft", "--out", "o.safetensors"), "the peft layout is a folder, so no name in .safetensors"),
    ],
)
def test_wrong_usage_is_exit_2_and_writes_nothing(convert, adapter, here, arguments, message):
    refused(convert(adapter, *arguments), message, 2)
    assert names(here) == ["in.safetensors"]


def test_files_that_cannot_be_converted(convert, here):
    broken = pair()
    del broken[f"{MODULE}.lora_up.weight"]
    cases = {
        "no-up": (broken, "lora_down.weight is there without what belongs to it; the file is incomplete or damaged"),
        "nan": (pair(alpha=torch.tensor(float("nan"))), f"{MODULE}.alpha is nan"),
        "ranks": (pair(**{"lora_up.weight": torch.ones(16, 3)}), "its ranks differ: down is [2, 16], up is [16, 3]"),
        "shape": (
            pair(columns=17),
            "1 layers of nowhere/shape.safetensors are no modules of ",
        ),
        "name": (pair("lora_unet_down_blocks_9_nothing"), "no such module in the base"),
        "empty": ({"a": torch.ones(1)}, "holds no adapter"),
        "words": ({"bundle_emb.a.clip_l": torch.ones(1, 2)}, "is a textual inversion (a), not a LoRA"),
    }
    (here / "nowhere").mkdir()
    for name, (tensors, message) in cases.items():
        path = here / "nowhere" / f"{name}.safetensors"
        save_file(tensors, path)
        for to in ("kohya", "diffusers"):
            refused(convert(path.relative_to(here), "--to", to, "--out", "out.safetensors"), message)
    (here / "cut.safetensors").write_bytes((here / "nowhere" / "nan.safetensors").read_bytes()[:-5])
    refused(convert("cut.safetensors", "--to", "kohya", "--out", "out.safetensors"), "is truncated")
    refused(convert("gone.safetensors", "--to", "kohya", "--out", "out.safetensors"), "there is no adapter file gone")
    assert names(here) == ["cut.safetensors", "nowhere"]


def test_a_model_that_the_keys_do_not_tell(lorakit, here):
    save_file(pair("lora_unet_double_blocks_0_img_attn_qkv", 9216, 3072), here / "in.safetensors")
    result = lorakit("convert", "in.safetensors", "--to", "comfy", "--out", "out.safetensors")
    refused(result, "HunyuanVideo I2V; --base BASE says which model's modules these are")
    save_file(pair("lora_unet_something_else"), here / "in.safetensors")
    result = lorakit("convert", "in.safetensors", "--to", "diffusers", "--out", "out.safetensors")
    refused(result, "no known names; --base BASE says which model's modules these are")
    assert names(here) == ["in.safetensors"]


def test_a_pickle_is_only_read_when_that_is_allowed(convert, here):
    write_pickle(here / "in.pt", pair())
    refused(convert("in.pt", "--to", "kohya", "--out", "out.safetensors"), "pass --allow-pickle to read its tensors")
    assert convert("in.pt", "--to", "kohya", "--out", "out.safetensors", "--allow-pickle").exit_code == 0
    assert load_file(here / "out.safetensors").keys() == pair().keys()


def test_what_exists_is_replaced_only_when_asked_and_only_by_something_whole(convert, adapter, here):
    (here / "out.safetensors").write_bytes(b"old")
    refused(convert(adapter, "--to", "kohya", "--out", "out.safetensors"), "out.safetensors exists already; choose ano")
    save_file(pair(alpha=torch.tensor(float("inf"))), here / "bad.safetensors")
    refused(convert("bad.safetensors", "--to", "kohya", "--out", "out.safetensors", "--overwrite"), "alpha is inf")
    assert (here / "out.safetensors").read_bytes() == b"old"
    assert convert(adapter, "--to", "kohya", "--out", "out.safetensors", "--overwrite").exit_code == 0
    assert load_file(here / "out.safetensors").keys() == load_file(adapter).keys()
    (here / "folder").mkdir()
    (here / "folder" / "mine.txt").write_text("old")
    refused(
        convert(adapter, "--to", "peft", "--out", "folder"), "folder exists already; choose another name or add --o"
    )
    assert names(here / "folder") == ["mine.txt"]
    refused(
        convert(adapter, "--to", "peft", "--out", "bad.safetensors/x", "--overwrite"), "cannot write bad.safetensors/x"
    )
    refused(convert(adapter, "--to", "peft", "--out", "folder", "--overwrite"), "folder holds other things than ")
    (here / "folder" / "mine.txt").rename(here / "folder" / "adapter_config.json")
    assert convert(adapter, "--to", "peft", "--out", "folder", "--overwrite").exit_code == 0
    assert names(here / "folder") == ["text_encoder", "unet"]
    assert names(here) == ["bad.safetensors", "folder", "in.safetensors", "out.safetensors"]


def test_the_input_is_never_written_over(convert, adapter, here):
    before = adapter.read_bytes()
    (here / "link.safetensors").symlink_to(adapter)
    os.link(adapter, here / "hard.safetensors")
    for out in ("in.safetensors", "./in.safetensors", "link.safetensors", "hard.safetensors"):
        reason = " is a link to " if out.startswith("link") else ", which is read; choose another place"
        refused(convert(adapter, "--to", "comfy", "--out", out, "--overwrite"), reason)
    assert convert(adapter, "--to", "peft", "--out", "folder").exit_code == 0
    result = convert("folder/unet", "--to", "peft", "--out", "folder", "--overwrite")
    refused(result, "folder holds folder/unet/adapter_model.safetensors, which is read; choose another place")
    assert adapter.read_bytes() == before
    assert names(here / "folder") == ["text_encoder", "unet"]


def test_a_place_that_cannot_be_written_to(convert, adapter, here):
    (here / "file").write_text("old")
    for to, out in (("kohya", "file/out.safetensors"), ("peft", "file/out")):
        refused(convert(adapter, "--to", to, "--out", out), f"cannot write {out}: {here}/file is not a folder")
    (here / "folder.safetensors").mkdir()
    refused(
        convert(adapter, "--to", "kohya", "--out", "folder.safetensors", "--overwrite"),
        "safetensors is a folder, and a file is to be written",
    )
    refused(convert(adapter, "--to", "peft", "--out", "file", "--overwrite"), "file is not a folder")
    assert names(here) == ["file", "folder.safetensors", "in.safetensors"]


def run_with(code, *arguments):
    """Run the program as a process of its own, after some code."""
    code = f"import sys; sys.argv[1:] = {[str(part) for part in arguments]!r}\n{code}\n"
    code += "from lorakit_cli.__main__ import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
@pytest.mark.parametrize("to", ["kohya", "peft"])
def test_a_full_disk_leaves_nothing_and_what_was_there_as_it_was(here, adapter, base, to):
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))"
    out = here / ("out" if to == "peft" else "out.safetensors")
    options = ("convert", adapter, "--to", to, "--out", out, "--base", base)
    done = run_with(limit, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: cannot write {out}: File too large\n"
    assert names(here) == ["in.safetensors"]
    assert run_with("", *options).returncode == 0
    before = {path: path.read_bytes() for path in sorted(here.rglob("*")) if path.is_file()}
    assert run_with(limit, *options, "--overwrite").returncode == 1
    assert {path: path.read_bytes() for path in sorted(here.rglob("*")) if path.is_file()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("to", ["kohya", "peft"])
def test_interrupted_while_it_writes_it_leaves_nothing(here, adapter, base, to):
    """Ctrl-C after the first tensor."""
    code = """
import os, signal
from lorakit_cli.core import new_tensor
flat, count = new_tensor.flat, []
def interrupted(pieces):
    count.append(1)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return flat(pieces)
new_tensor.flat = interrupted
"""
    out = here / ("out" if to == "peft" else "out.safetensors")
    done = run_with(code, "convert", adapter, "--to", to, "--out", out, "--base", base)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert names(here) == ["in.safetensors"]


@pytest.mark.parametrize("to", ["diffusers", "peft", "kohya", "comfy"])
def test_a_renaming_copies_bytes_and_loads_no_heavy_library(here, adapter, base, to):
    out = here / ("out" if to == "peft" else "out.safetensors")
    code = f"import atexit; atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))"
    done = run_with(code, "convert", adapter, "--to", to, "--out", out, "--base", base)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    files = sorted(out.rglob("*.safetensors")) if to == "peft" else [out]
    written = {tensor.numpy().tobytes() for file in files for tensor in load_file(file).values() if tensor.ndim}
    assert written == {tensor.numpy().tobytes() for tensor in load_file(adapter).values() if tensor.ndim}


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on memory of one's own")
def test_a_large_file_takes_no_memory_of_its_own(here):
    """160 MB of zeros, which take no room on the disk, and 64 MB of memory on top of what is there at the start."""
    size, rank = 4 * 62_500 * 320, 62_500
    stem = "lora_unet_down_blocks_0_attentions_0"
    tensors = {
        f"{stem}_proj_in.lora_down.weight": ((rank, 320), (0, size)),
        f"{stem}_proj_in.lora_up.weight": ((320, rank), (size, 2 * size)),
        f"{stem}_transformer_blocks_0_attn2_to_k.diff": ((320, 768), (2 * size, 2 * size + 983_040)),
    }
    header = json.dumps({n: {"dtype": "F32", "shape": s, "data_offsets": o} for n, (s, o) in tensors.items()}).encode()
    with (here / "in.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * size + 983_040)
    limit = """
import re, resource
used = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
"""
    done = run_with(limit, "convert", here / "in.safetensors", "--to", "comfy", "--out", here / "out.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "out.safetensors").stat().st_size > 2 * size


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
def test_what_is_written_can_be_read_by_whom_the_umask_allows(convert, adapter, here):
    os.umask(old := os.umask(0o022))
    convert(adapter, "--to", "kohya", "--out", "out.safetensors")
    assert (here / "out.safetensors").stat().st_mode & 0o777 == 0o666 & ~old


def test_a_base_of_another_family_is_named_with_the_adapters_own(lorakit, here, base):
    result = lorakit("convert", "toy", "--to", "kohya", "--out", "a.safetensors", "--base", base)
    assert (result.exit_code, result.stdout, list(here.iterdir())) == (1, "", [])
    expected = "this adapter is for lorakit demo (attn2 input 96); the base is another UNet (32); try another --base"
    assert result.stderr.splitlines()[-1].endswith(f"does not fit {base}: {expected}")


def test_a_mistyped_layout_or_base_is_told_in_plain_words(lorakit, here):
    result = lorakit("convert", "toy", "--to", "koya", "--out", "a.safetensors")
    assert result.stderr.startswith("error: Invalid value for '--to': 'koya' is not one of")
    result = lorakit("convert", "toy", "--to", "kohya", "--out", "a.safetensors", "--base", "demoo")
    assert "there is no base 'demoo'; did you mean demo?" in result.stderr
