"""`lorakit inspect` where it reads more than headers: hashes, scans, strengths and their picture."""

import hashlib
import os
import subprocess
import sys
from contextlib import suppress

import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.commands.conftest import names
from tests.inspected import kohya
from tests.pickles import saved
from tests.tiny import rewrite

A_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def test_hashes_are_of_the_file(look, here):
    path = kohya(here / "a.safetensors", {"sshs_model_hash": "0" * 64})
    code, report = look(path, "--hash")
    data = path.read_bytes()
    whole = hashlib.sha256(data).hexdigest()
    tensors = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    hashes = report["hashes"]
    assert (hashes["sha256"], hashes["auto_v2"]) == (whole, whole[:10].upper())
    assert (hashes["sshs_model_hash"], hashes["auto_v3"]) == (tensors, tensors[:12].upper())
    assert hashes["stated"][0]["matches"] is False
    assert code == 0
    assert any("they were changed since" in problem for problem in report["problems"])


def test_a_scan_finds_what_is_broken_and_what_is_dead(look, lorakit, adapters, tmp_path):
    def spoil(tensors):
        tensors[f"{A_LAYER}.lora_B.weight"][3, 1] = float("nan")
        tensors["unet.mid_block.attentions.0.proj_in.lora_B.weight"].zero_()
        return tensors

    path = rewrite(adapters / "ink.safetensors", tmp_path / "bad.safetensors", spoil)
    assert look(path)[0] == 0
    code, report = look(path, "--scan")
    assert (code, report["usable"]) == (1, False)
    found = f"{A_LAYER}.lora_B.weight holds 1 NaN of 64 values, the first at [3, 1]"
    assert report["problems"][0] == report["verdict"] == found
    assert any("proj_in changes nothing" in problem for problem in report["problems"])
    assert report["scan"].keys() == {"tensors", "layers", "unjudged", "non_finite", "zero", "too_large"}
    result = lorakit("inspect", path, "--scan")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"error: {path}: {found}"


def test_a_sound_file_scans_clean(look, lorakit):
    code, report = look("toy", "--scan")
    assert (code, report["problems"]) == (0, [])
    assert "352 tensors of 176 layers: all finite, none of them dead" in lorakit("inspect", "toy", "--scan").stdout


def test_strength_is_that_of_the_deltas(look, lorakit, base, adapters):
    path = adapters / "ink.safetensors"
    code, report = look(path, "--strength", "--base", base)
    tensors = load_file(path)
    delta = tensors[f"{A_LAYER}.lora_B.weight"].double() @ tensors[f"{A_LAYER}.lora_A.weight"].double()
    weight = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")[f"{A_LAYER.removeprefix('unet.')}.weight"]
    (layer,) = [layer for layer in report["strength"]["layers"] if layer["stem"] == A_LAYER]
    assert layer["norm"] == pytest.approx(float(delta.norm()), rel=1e-6)
    assert layer["relative"] == pytest.approx(float(delta.norm() / weight.double().norm()), rel=1e-6)
    assert (code, report["strength"]["base"]) == (0, str(base))
    text = lorakit("inspect", path, "--strength", "--base", base).stdout
    assert f"strength   relative to {base}" in text
    assert text.splitlines()[-1].startswith("  layers.1")
    assert look(path, "--strength")[1]["strength"]["base"] is None


def test_blocks_of_flattened_names_are_known_without_a_base(look, here):
    code, report = look(kohya(here / "a.safetensors"), "--strength")
    (block,) = report["strength"]["blocks"]
    assert (code, block["component"], block["block"], block["layers"]) == (0, "unet", "down.block_0", 2)


def test_strength_as_a_picture(lorakit, here):
    result = lorakit("inspect", "toy", "--plot", "toy.png")
    assert (result.exit_code, names(here)) == (0, ["toy.png"])
    with Image.open("toy.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 600
    again = lorakit("inspect", "toy", "--plot", "toy.png")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "toy.png exists already; choose another name or add --overwrite" in again.stderr
    assert lorakit("inspect", "toy", "--plot", "toy.png", "--overwrite").exit_code == 0


def test_pickles_are_read_where_that_is_allowed(look, here):
    tensors = load_file(kohya(here / "a.safetensors"))
    (here / "a.pt").write_bytes(saved(tensors))
    (here / "a.safetensors").unlink()
    code, report = look(here / "a.pt", "--allow-pickle", "--hash")
    assert (code, report["layers"], report["architecture"]) == (0, 2, "SD1.x")
    assert report["hashes"]["sha256"] == hashlib.sha256((here / "a.pt").read_bytes()).hexdigest()
    assert report["hashes"]["auto_v3"] is None


def test_off_a_terminal_there_is_no_progress(program):
    done = program("inspect", "toy", "--scan", "--hash", "--strength")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="what a closed terminal reads as differs")
@pytest.mark.parametrize("quiet", [False, True])
def test_on_a_terminal_progress_is_shown_unless_quiet(program, quiet):
    terminal, theirs = os.openpty()
    options = ["-q"] if quiet else []
    done = program("inspect", "toy", "--scan", *options, capture_output=False, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the end of what was written
        while part := os.read(terminal, 4096):
            written += part
    os.close(terminal)
    assert done.returncode == 0
    assert (b"scanning tensors" in written) is not quiet
    assert bool(written) is not quiet
