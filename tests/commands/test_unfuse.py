"""`lorakit unfuse`: the base to the last bit where it is at hand, else as near as it says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from lorakit_cli.core.tensor_file import read_header
from tests.outputs import fuse_file, refused, weights
from tests.tiny import save_adapter

UNET = Path("unet/diffusion_pytorch_model.safetensors")
KEYS = {
    "schema", "source", "out", "base", "exact", "adapters", "files", "size", "error_bound", "seconds", "warnings",
}  # fmt: skip


@pytest.fixture
def models(base, adapters, here):
    """Copies of the base and the adapters, which may be changed."""
    shutil.copytree(base, here / "base")
    shutil.copytree(adapters, here / "loras")


@pytest.fixture
def fuse(lorakit, models):
    """Fuse `ink` into the base, both of this folder, and give the output."""

    def run(weight=0.7, *options, base="base", lora="loras/ink.safetensors", out="out"):
        result = lorakit("fuse", "--base", base, "--lora", f"{lora}:{weight}", *options, "--out", out)
        assert result.exit_code == 0, result.stderr
        return Path(out)

    return run


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def missing(out):
    digest = json.loads((out / "lorakit.json").read_text())["base"]["files"][UNET.as_posix()]["xxh3"][:12]
    return (
        f"the base base ({UNET.as_posix()} of xxh3 {digest}) is not here: looked for it as base, also in out and in ."
    )


def errors(folder, base):
    """Compare all values with the base's: the largest error, and the largest in terms of its tensor's largest value."""
    absolute = relative = 0.0
    for name in weights(base):
        old, new = load_file(base / name), load_file(folder / name)
        assert old.keys() == new.keys()
        for key, value in old.items():
            error = float((new[key].double() - value.double()).abs().max())
            largest = float(new[key].abs().max())
            absolute, relative = max(absolute, error), max(relative, error / largest if largest else error)
    return absolute, relative


def test_the_base_comes_back_to_the_last_bit(lorakit, fuse, here):
    out = fuse()
    result = lorakit("unfuse", out, "--out", "back")
    assert (result.exit_code, result.stderr) == (0, "")
    size = sum(map(len, weights(here / "base").values()))
    assert result.stdout == f"back: {here}/base to the last bit, without ink, {size / 1e6:.1f} MB\n"
    assert files(here / "back") == files(here / "base")


def test_fusing_anew_after_undoing_compounds_nothing(lorakit, fuse, here):
    lorakit("unfuse", fuse(0.7), "--out", "back")
    assert weights(fuse(0.5, base="back", out="later")) == weights(fuse(0.5, out="at once"))


def test_what_was_fused_into_an_output_gives_that_back(lorakit, fuse, here):
    out = fuse()
    twice = fuse(0.3, base=out, lora="loras/wash.safetensors", out="twice")
    assert lorakit("unfuse", twice, "--out", "back").exit_code == 0
    assert weights(here / "back") == weights(out)
    assert (here / "back" / "lorakit.json").read_bytes() == (out / "lorakit.json").read_bytes()
    assert lorakit("unfuse", "back", "--out", "first").exit_code == 0
    assert files(here / "first") == files(here / "base")


def test_copying_needs_no_torch(fuse):
    fuse()
    code = """
import sys
from lorakit_cli.app import app
try: app(["unfuse", "out", "--out", "back", "--quiet"])
except SystemExit as end: print([name for name in ("torch", "diffusers") if name in sys.modules], end.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("back\n[] 0\n", "")


def test_a_base_that_moved(lorakit, fuse, here, tmp_path):
    out = fuse()
    shutil.move("base", tmp_path / "elsewhere")
    result = lorakit("unfuse", out, "--base", tmp_path / "elsewhere", "--out", "back")
    assert (result.exit_code, result.stderr) == (0, "")
    assert files(here / "back") == files(tmp_path / "elsewhere")


def test_a_variant_comes_back_under_the_plain_name(lorakit, adapters, base, here):
    shutil.copytree(base, here / "base")
    for file in (here / "base").rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert lorakit("fuse", "--base", "base", "--lora", adapters / "ink.safetensors", "--out", "out").exit_code == 0
    assert lorakit("unfuse", "out", "--out", "back").exit_code == 0
    assert weights(here / "back") == weights(base)


def test_the_report_as_json(lorakit, fuse, here):
    out = fuse()
    result = lorakit("unfuse", out, "--out", "back", "--json")
    report = json.loads(result.stdout)
    assert report.keys() == KEYS
    assert (report["schema"], report["exact"], report["error_bound"]) == ("lorakit/unfuse/1", True, None)
    assert (report["source"], report["out"], report["base"]) == ("out", "back", str(here / "base"))
    assert (report["adapters"], report["files"], report["warnings"]) == (["ink"], 3, [])
    assert report["size"] == sum(map(len, weights(here / "base").values()))
    assert lorakit("unfuse", out, "--out", "quiet", "--quiet").stdout == "quiet\n"


def test_without_the_base_the_adapters_are_subtracted(lorakit, fuse, base, here):
    out = fuse()
    said = missing(out)
    shutil.rmtree("base")
    result = lorakit("unfuse", out, "--out", "back", "--json")
    report = json.loads(result.stdout)
    warning = f"{said}; the adapters are subtracted, which comes near the base but not back to it"
    assert result.stderr == f"warning: {warning}\n"
    assert report.keys() == KEYS
    assert report["error_bound"].keys() == {"absolute", "relative", "tensor", "at_fusing", "now"}
    assert (report["exact"], report["base"], report["warnings"]) == (False, "base", [warning])
    absolute, relative = errors(here / "back", base)
    assert 0 < absolute <= report["error_bound"]["absolute"] < 2**-9
    assert 0 < relative <= report["error_bound"]["relative"] < 2**-9
    assert load_file(here / "back/vae/diffusion_pytorch_model.safetensors").keys()
    assert (here / "back/vae/diffusion_pytorch_model.safetensors").read_bytes() == (
        base / "vae/diffusion_pytorch_model.safetensors"
    ).read_bytes()
    assert files(here / "back").keys() == files(base).keys()
    StableDiffusionPipeline.from_pretrained(here / "back")


def test_subtracting_is_what_the_files_say(lorakit, fuse, here):
    """The fused values less the change, which is the sum fused into zeros, rounded once."""
    out = fuse()
    zeros = {name: load_file(here / "base" / name) for name in weights(here / "base")}
    for name, tensors in zeros.items():
        save_file({key: torch.zeros_like(value, dtype=torch.float32) for key, value in tensors.items()},
                  here / "base" / name)  # fmt: skip
    changes = fuse(out="changes")
    shutil.rmtree("base")
    assert lorakit("unfuse", out, "--out", "back").exit_code == 0
    for name in zeros:
        fused, change, back = (load_file(folder / name) for folder in (out, changes, here / "back"))
        for key, value in fused.items():
            assert torch.equal(back[key], (value.float() - change[key]).to(value.dtype)), key


def test_it_is_said_how_near_it_came(lorakit, fuse, here):
    out = fuse()
    shutil.rmtree("base")
    first, second = lorakit("unfuse", out, "--out", "back").stdout.splitlines()
    size = sum(map(len, weights(out).values()))
    assert first == f"back: out less ink, {size / 1e6:.1f} MB"
    report = json.loads(lorakit("unfuse", out, "--out", "again", "--json").stdout)["error_bound"]
    assert second == (
        f"  every value within {report['absolute']:.2g} of the base's, and within {report['relative']:.2%} of the "
        f"largest of its tensor ({report['tensor']})"
    )


def test_another_dtype_is_not_undone(lorakit, fuse, base, here):
    out = fuse(0.7, "--dtype", "bf16")
    shutil.move("base", "moved")
    result = lorakit("unfuse", out, "--out", "back", "--json")
    bound = json.loads(result.stdout)["error_bound"]
    assert result.stderr.splitlines()[1] == (
        "warning: it was fused with --dtype bf16 and stays in that; what rounding took from the base is lost"
    )
    absolute, relative = errors(here / "back", base)
    assert 2**-9 < relative <= bound["relative"]
    assert absolute <= bound["absolute"]
    assert lorakit("unfuse", out, "--base", "moved", "--out", "exact").exit_code == 0
    assert weights(here / "exact") == weights(base)


def test_block_scales_and_components_are_undone(lorakit, fuse, base, here):
    scales = '{"ink": {"unet": {"down": 0, "mid": -2.5}}}'
    out = fuse(1.5, "--scale", 2, "--block-scales", scales, "--components", "unet")
    shutil.rmtree("base")
    result = lorakit("unfuse", out, "--out", "back", "--json")
    absolute, _ = errors(here / "back", base)
    assert absolute <= json.loads(result.stdout)["error_bound"]["absolute"]
    encoder = "text_encoder/model.safetensors"
    assert (here / "back" / encoder).read_bytes() == (base / encoder).read_bytes()


def test_undoing_the_second_of_two_by_subtraction_keeps_the_first_in_mind(lorakit, fuse, here):
    out = fuse()
    twice = fuse(0.3, base=out, lora="loras/wash.safetensors", out="twice")
    said = json.loads((out / "lorakit.json").read_text())
    shutil.rmtree(out)
    assert lorakit("unfuse", twice, "--out", "back").exit_code == 0
    assert json.loads((here / "back" / "lorakit.json").read_text()) == said
    assert "ink is fused into back already" in refused(
        lorakit("fuse", "--base", "back", "--lora", "loras/ink.safetensors", "--out", "no")
    )


def test_what_the_embedded_base_says_about_pictures_stays(lorakit, here, monkeypatch):
    from lorakit_cli.demo import BASE

    shutil.copytree(BASE, "own")
    assert lorakit("fuse", "--base", "own", "--lora", "toy", "--out", "out").exit_code == 0
    said = Path("own/lorakit.json").read_text()
    shutil.rmtree("own")
    assert lorakit("unfuse", "out", "--out", "back").exit_code == 0
    assert json.loads(Path("back/lorakit.json").read_text()) == json.loads(said)


def test_what_depends_on_the_base_cannot_be_subtracted(lorakit, fuse, here):
    save_adapter(here / "loras" / "dora.safetensors", seed=3, use_dora=True, text=False, targets=["to_q"])
    out = fuse(lora="loras/dora.safetensors")
    said = missing(out)
    shutil.rmtree("base")
    assert refused(lorakit("unfuse", out, "--out", "back")) == (
        f"{said}; --base PATH says where it is. Without it dora (dora) cannot be undone: what that changes depends on "
        "the base's own values"
    )
    assert not (here / "back").exists()


def test_neither_base_nor_adapter(lorakit, fuse, here):
    out = fuse()
    said = missing(out)
    shutil.rmtree("base")
    # What lies around here would be found.
    moved = here.parent / "x.safetensors"
    shutil.move("loras/ink.safetensors", moved)
    message = refused(lorakit("unfuse", out, "--out", "back"))
    assert message.startswith(
        f"{said}; --base PATH says where it is. Without it the adapters have to be subtracted, but adapter ink "
        "(ink.safetensors, sha256 "
    )
    assert message.endswith("; --lora ink=PATH says where it is")
    result = lorakit("unfuse", out, "--lora", f"ink={moved}", "--out", "back")
    assert result.exit_code == 0, result.stderr


def test_a_base_that_changed(lorakit, fuse, here):
    out = fuse()
    data = bytearray((here / "base" / UNET).read_bytes())
    data[-2] ^= 1
    (here / "base" / UNET).write_bytes(data)
    digest = json.loads((out / "lorakit.json").read_text())["base"]["files"][UNET.as_posix()]["xxh3"][:12]
    changed = f"{here}/base is not the base it was: {UNET.as_posix()} differs from what the recipe has, xxh3 {digest}"
    assert refused(lorakit("unfuse", out, "--out", "back")) == (
        f"{changed}; --base PATH says where the one it was is, and with nothing in its place the adapters are "
        "subtracted"
    )
    assert refused(lorakit("unfuse", out, "--base", "base", "--out", "back")) == (
        f"{changed}; --base PATH says where the one it was is"
    )


def test_nothing_to_undo(lorakit, fuse, here):
    assert refused(lorakit("unfuse", "base", "--out", "back")) == (
        "base has no lorakit.json; only what `lorakit fuse` or `lorakit save` wrote says how it was made"
    )
    path = fuse() / "lorakit.json"
    path.write_text(path.read_text().replace('"verb": "fuse"', '"verb": "save"'))
    assert refused(lorakit("unfuse", "out", "--out", "back")) == (
        "out has nothing to undo: `lorakit save` keeps adapters beside the weights, which are the base's own; the base "
        "is what is in it without its adapters and lorakit.json"
    )


def test_a_single_file(lorakit, checkpoint, adapters, here):
    own = Path(shutil.copy(checkpoint, here / "tiny.safetensors"))
    out = fuse_file(own, f"{adapters}/ink.safetensors:0.7", here / "out.safetensors")
    result = lorakit("unfuse", "out.safetensors", "--out", "back.safetensors")
    size = checkpoint.stat().st_size
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"back.safetensors: {own} to the last bit, without ink, {size / 1e6:.1f} MB\n"
    assert Path("back.safetensors").read_bytes() == checkpoint.read_bytes()
    assert refused(lorakit("unfuse", out, "--out", "back")) == (
        f"{own} is a single file and becomes one: --out back.safetensors or another name in .safetensors"
    )
    own.rename("renamed.safetensors")
    assert lorakit("unfuse", out, "--base", "renamed.safetensors", "-o", "again.safetensors").exit_code == 0
    assert Path("again.safetensors").read_bytes() == checkpoint.read_bytes()


def test_a_single_file_without_its_base(lorakit, checkpoint, adapters, here):
    own = Path(shutil.copy(checkpoint, here / "tiny.safetensors"))
    out = fuse_file(own, f"{adapters}/ink.safetensors:0.7", here / "out.safetensors")
    own.unlink()
    bound = json.loads(lorakit("unfuse", out, "--out", "back.safetensors", "--json").stdout)["error_bound"]
    old, new = load_file(checkpoint), load_file("back.safetensors")
    assert old.keys() == new.keys()
    error = max(float((new[key].double() - value.double()).abs().max()) for key, value in old.items())
    assert 0 < error <= bound["absolute"] < 2**-9
    assert "lorakit" not in read_header(Path("back.safetensors")).metadata


def test_places_that_cannot_be(lorakit, fuse, here):
    out = fuse()
    assert refused(lorakit("unfuse", out, "--out", "back.safetensors")) == (
        f"{here}/base is a folder and becomes one: --out back or another name for a folder"
    )
    assert refused(lorakit("unfuse", out, "--out", "out", "--overwrite")) == (
        "out is out, which is read; choose another place"
    )
    assert refused(lorakit("unfuse", out, "--out", "base", "--overwrite")) == (
        f"base is {here}/base, which is read; choose another place"
    )
    assert refused(lorakit("unfuse", out, "--out", "loras")) == (
        "loras exists already; choose another name or add --overwrite"
    )
    assert refused(lorakit("unfuse", out, "--lora", "oink=loras/ink.safetensors", "--out", "back"), 2) == (
        "--lora oink=loras/ink.safetensors: the recipe has no adapter 'oink'; did you mean ink? It has ink"
    )
    shutil.copytree(here / "base", here / "old")
    assert lorakit("unfuse", out, "--out", "old", "--overwrite", "-q").exit_code == 0
    assert files(here / "old") == files(here / "base")
