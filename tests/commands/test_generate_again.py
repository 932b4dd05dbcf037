"""A picture made again from what is in it: `lorakit generate --from`."""

import json
import os
import platform
import shutil
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.commands.conftest import names
from tests.infotext import read_infotext
from tests.tiny import build_pipeline, rewrite

PROMPT = 'a "red" heart,\nwith <x>, \N{SNOWMAN} \N{CAT FACE} and c:d'


@pytest.fixture
def own(base, adapters, here):
    """The base and the adapters where a picture does not look of itself."""
    folder = here.parent / "away"
    shutil.copytree(base, folder / "tiny-base")
    for name in ("ink", "wash"):
        shutil.copy(adapters / f"{name}.safetensors", folder)
    return folder


@pytest.fixture
def made(lorakit, own):
    """A picture with all that can be different from what is usual."""

    def make(out, *arguments):
        scales = 'i={"unet": {"up": {"block_0": [0.1, 0.2, 0.3]}}}'
        options = ("--base", own / "tiny-base", "-l", f"i={own}/ink.safetensors:0.5", "-l", f"{own}/wash.safetensors:2")
        options += ("--steps", 2, "--guidance", 3, "--seed", 5, "--negative", "blue", "--width", 24, "--scale", 0.5)
        result = lorakit("generate", *options, "--block-scales", scales, "--out", out, *arguments, PROMPT)
        assert result.exit_code == 0, result.stderr
        return Path(out)

    return make


def pixels(path):
    with Image.open(path) as picture:
        return picture.tobytes()


def again(lorakit, path, *arguments):
    result = lorakit("generate", "--from", path, "--out", "again.png", "--overwrite", *arguments)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_the_same_picture_again_and_its_file(lorakit, made, own, suffix, dtype):
    lossless = made("first.png", "--dtype", dtype)
    picture = made(f"first{suffix}", "--dtype", dtype, "--overwrite")
    result = again(
        lorakit,
        picture,
        "--base",
        own / "tiny-base",
        "-l",
        f"i={own}/ink.safetensors",
        "-l",
        f"wash={own}/wash.safetensors",
    )
    assert result.stderr == "seed 5\n"
    # Texts and all: what is written into it is the same, too.
    assert Path("again.png").read_bytes() == lossless.read_bytes()


def test_nothing_of_this_machine_is_in_a_picture(made, own, here):
    data = made("first.png").read_bytes()
    record = Image.open("first.png").text["lorakit"]
    for secret in (str(here), str(own), "/away", str(Path.home()), platform.node()):
        assert secret.encode() not in data
    assert json.loads(record)["recipe"]["base"]["source"] == "tiny-base"


@pytest.mark.parametrize("suffix", [".webp", ".jpeg", ".png"])
def test_the_web_ui_reads_it(made, suffix):
    path = made(f"first{suffix}")
    with Image.open(path) as picture:
        if suffix == ".png":
            text = picture.text["parameters"]
        else:
            comment = picture.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"UNICODE\0"
            text = comment[8:].decode("utf-16-be")
    prompt, negative, parameters = read_infotext(text)
    assert (prompt, negative) == (PROMPT + " <lora:ink:0.25> <lora:wash:1>", "blue")
    assert parameters.keys() == {
        "Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Lora hashes", "Version",
    }  # fmt: skip
    assert (parameters["Size"], parameters["CFG scale"], parameters["Seed"]) == ("24x16", "3.0", "5")


def test_options_beside_it_win(lorakit, made, own):
    picture = made("first.png")
    base = ("--base", own / "tiny-base")
    places = ("-l", f"i={own}/ink.safetensors", "-l", f"wash={own}/wash.safetensors")
    plain = ("--steps", 2, "--guidance", 3, "--negative", "blue", "--width", 24, *base)
    scales = ("--block-scales", 'i={"unet": {"up": {"block_0": [0.1, 0.2, 0.3]}}}', "--scale", 0.5)
    loras = ("-l", f"i={own}/ink.safetensors:0.5", "-l", f"{own}/wash.safetensors:2")
    other = ("-l", f"{own}/wash.safetensors:1")
    cases = {
        "seed": ((*places, "--seed", 6), (*plain, *scales, *loras, "--seed", 6, PROMPT)),
        "steps": ((*places, "--steps", 3), (*plain, *scales, *loras, "--seed", 5, "--steps", 3, PROMPT)),
        "prompt": ((*places, "a star"), (*plain, *scales, *loras, "--seed", 5, "a star")),
        "scale": ((*places, "--scale", 1), (*plain, *scales, *loras, "--scale", 1, "--seed", 5, PROMPT)),
        "adapters": (other, (*plain, *other, "--seed", 5, PROMPT)),
        "block scales": (
            (*places, "--block-scales", 'i={"unet": 0}'),
            (*plain, *loras, "--scale", 0.5, "--block-scales", 'i={"unet": 0}', "--seed", 5, PROMPT),
        ),
    }  # fmt: skip
    seen = {pixels(picture)}
    for name, (options, afresh) in cases.items():
        again(lorakit, picture, *base, *options)
        assert lorakit("generate", "--out", "afresh.png", "--overwrite", *afresh).exit_code == 0
        assert pixels("again.png") == pixels("afresh.png"), name
        seen.add(pixels("again.png"))
    assert len(seen) == len(cases) + 1
    counted = lorakit("generate", "--from", picture, *base, *places, "--count", 2, "--out", "n/")
    assert [Path(name).stem.rpartition("_")[2] for name in counted.stdout.split()] == ["seed5", "seed6"]
    assert pixels(counted.stdout.split("\n")[0]) == pixels(picture)


def test_base_and_adapters_are_found_by_their_hashes(lorakit, made, own, here, monkeypatch):
    picture = made("first.png")
    # As on another machine, where nothing is remembered.
    monkeypatch.setenv("XDG_CACHE_HOME", str(here.parent / "empty"))
    missing = lorakit("generate", "--from", picture, "--out", "again.png")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "error: the base tiny-base (unet/diffusion_pytorch_model.safetensors of xxh3 " in missing.stderr
    assert missing.stderr.endswith("--base PATH says where it is\n")
    shutil.move(own / "tiny-base", here / "tiny-base")
    missing = lorakit("generate", "--from", picture, "--out", "again.png")
    assert "error: adapter i (ink.safetensors, sha256 " in missing.stderr
    assert missing.stderr.endswith("--lora i=PATH says where it is\n")
    shutil.move(own / "ink.safetensors", here / "renamed.safetensors")
    (here / "folder").mkdir()
    shutil.move(own / "wash.safetensors", here / "folder" / "other.safetensors")
    Path("lorakit.toml").write_text('adapters_dir = "folder"')
    assert again(lorakit, picture).stderr == "seed 5\n"
    assert pixels("again.png") == pixels(picture)


def test_where_they_were_last_is_remembered(lorakit, made, own, here):
    for path in own.rglob("*.safetensors"):
        # Younger files may change unseen, so that nothing is kept about them.
        os.utime(path)
    import time

    time.sleep(2.1)
    picture = made("first.png")
    shutil.move(picture, here.parent / "elsewhere.png")
    again(lorakit, here.parent / "elsewhere.png")
    assert pixels("again.png") == pixels(here.parent / "elsewhere.png")


def test_what_has_changed_is_refused_and_can_be_allowed(lorakit, made, own, here):
    picture = made("first.png")
    base = ("--base", own / "tiny-base")

    def double(tensors):
        return {name: tensor * 2 for name, tensor in tensors.items()}

    rewrite(own / "ink.safetensors", own / "ink.safetensors", double)
    places = ("-l", f"i={own}/ink.safetensors", "-l", f"wash={own}/wash.safetensors")
    changed = lorakit("generate", "--from", picture, *base, *places)
    assert (changed.exit_code, changed.stdout) == (1, "")
    assert f"error: adapter i: {own}/ink.safetensors is not the file it was: sha256 " in changed.stderr
    assert changed.stderr.endswith("--allow-changed draws with this one all the same\n")
    allowed = again(lorakit, picture, *base, *places, "--allow-changed")
    assert f"warning: adapter i is no longer the file it was: {own}/ink.safetensors\n" in allowed.stderr
    assert pixels("again.png") != pixels(picture)

    weights = own / "tiny-base" / "unet" / "diffusion_pytorch_model.safetensors"
    rewrite(weights, weights, double)
    changed = lorakit("generate", "--from", picture, *base, "-l", f"{own}/wash.safetensors:1")
    assert (changed.exit_code, changed.stdout) == (1, "")
    assert "tiny-base is not the base it was: unet/diffusion_pytorch_model.safetensors differs" in changed.stderr
    assert changed.stderr.endswith("--allow-changed draws with this one all the same\n")
    allowed = again(lorakit, picture, *base, "-l", f"{own}/wash.safetensors:1", "--allow-changed")
    assert "warning: " in allowed.stderr
    assert names(here) == ["again.png", "first.png"]


def rewritten(path, change, text="lorakit"):
    """Write a picture again with other text in it."""
    with Image.open(path) as picture:
        texts = dict(picture.text)
        chunks = PngImagePlugin.PngInfo()
        texts[text] = change(texts[text])
        for name, value in texts.items():
            if value is not None:
                chunks.add_itxt(name, value)
        picture.save("odd.png", pnginfo=chunks)
    return "odd.png"


def changed(*keys, to):
    def change(text):
        record = json.loads(text)
        part = record
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to
        return json.dumps(record)

    return change


HOSTILE = {
    "no JSON": (lambda _: "{", "is not JSON"),
    "no object": (lambda _: "[]", "schema None"),
    "deep": (lambda _: "[" * 100_000, "is nested too deeply"),
    "another schema": (changed("schema", to="lorakit/picture/9"), "schema 'lorakit/picture/9'"),
    "another recipe": (changed("recipe", "schema", to="x"), "is of the kind 'x'"),
    "another verb": (changed("recipe", "verb", to="fuse"), "its recipe is none of a picture"),
    "no seed": (changed("seed", to="7"), "seed is '7'"),
    "steps": (changed("settings", "steps", to="2; rm"), "steps is '2; rm'"),
    "unknown setting": (changed("settings", "magic", to=1), "'magic' is no setting that this lorakit knows"),
    "infinite": (changed("settings", "guidance", to=1e999), "guidance is inf"),
    "name": (changed("recipe", "adapters", 0, "name", to="../x"), "names an adapter '../x'"),
    "prompt": (changed("prompt", to=["x"]), "is no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_records_are_one_clear_line(lorakit, base, draw, adapters, case):
    change, message = HOSTILE[case]
    draw("-l", f"{adapters}/ink.safetensors", "--seed", 1, "--out", "x.png")
    result = lorakit("generate", "--base", base, "--from", rewritten("x.png", change))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_compressed_bomb_is_refused(lorakit, draw):
    draw("--seed", 1, "--out", "x.png")
    chunk = b"lorakit\0\0" + zlib.compress(b" " * 200_000_000, 9)
    body = b"zTXt" + chunk
    packed = len(chunk).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    data = Path("x.png").read_bytes()
    Path("bomb.png").write_bytes(data[:33] + packed + data[33:])
    result = lorakit("generate", "--from", "bomb.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: bomb.png cannot be read as a PNG, WebP or JPEG: ")


def test_a_picture_that_says_nothing(lorakit):
    for name in ("x.png", "x.webp", "x.jpg"):
        Image.new("RGB", (8, 8)).save(name)
        result = lorakit("generate", "--from", name)
        assert result.exit_code == 1
        assert f"error: {name} does not say how it was made" in result.stderr


def test_a_workflow_and_a_folder_are_told_for_what_they_are(lorakit):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("prompt", '{"3": {"class_type": "KSampler"}}')
    Image.new("RGB", (8, 8)).save("comfy.png", pnginfo=chunks)
    Path("folder").mkdir()
    for name, message in (("comfy.png", "holds a workflow of ComfyUI"), ("folder", "is a folder; give a picture")):
        result = lorakit("generate", "--from", name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: {name} {message}")


FOREIGN = (
    "a red heart, <lora:ink:0.5> <lora:My wash (v1.0):1:te=0> <lora:gone:1>\nNegative prompt: blue\n"
    "Steps: 3, Sampler: Odd one, CFG scale: 4.5, Seed: 11, Size: 24x16, Model hash: 0123456789, Model: other, "
    'Hires upscale: 2, Clip skip: 1, Lora hashes: "My wash (v1.0): {wash}", Version: v1.10.1'
)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_of_the_web_ui(lorakit, base, adapters, suffix):
    from lorakit_cli.service.hashing import hashes

    shutil.copy(adapters / "ink.safetensors", "ink.safetensors")
    shutil.copy(adapters / "wash.safetensors", "whatever.safetensors")
    text = FOREIGN.format(wash=hashes(adapters / "wash.safetensors").auto_v3.lower())
    exif, chunks = Image.Exif(), PngImagePlugin.PngInfo()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    chunks.add_text("parameters", text)
    Image.new("RGB", (24, 16)).save(f"theirs.{suffix}", **({"exif": exif} if suffix == "jpg" else {"pnginfo": chunks}))
    result = again(lorakit, f"theirs.{suffix}", "--base", base)
    told = result.stderr
    assert f"warning: theirs.{suffix} is of another program: its settings, not its very picture" in told
    assert "warning: there is no adapter 'gone' in the library or around" in told
    assert "warning: it was made with the model 'other'; --base chooses" in told
    assert "warning: not taken over: Sampler Odd one, Hires upscale 2\n" in told
    options = ("-l", "./ink.safetensors:0.5", "-l", "./whatever.safetensors:1", "--steps", 3, "--guidance", 4.5)
    options += ("--negative", "blue", "--seed", 11, "--width", 24, "--height", 16, "--base", base, "--out", "own.png")
    assert lorakit("generate", *options, "a red heart").exit_code == 0
    assert pixels("again.png") == pixels("own.png")


def test_what_it_is_made_on_this_time_is_told(lorakit, base, draw):
    draw("--seed", 1, "--out", "x.png")
    odd = rewritten("x.png", changed("recipe", "arithmetic", "torch", to="1.0"))
    result = again(lorakit, odd, "--base", base)
    assert "made on torch " in result.stderr
    assert " instead of 1.0: the picture may differ in the last digits\n" in result.stderr
    report = json.loads(again(lorakit, odd, "--base", base, "--json").stdout)
    assert len(report["notes"]) == 1
    assert report["warnings"] == []


def test_a_dry_run_of_a_picture_loads_no_torch(base, draw, here):
    import subprocess
    import sys

    draw("--seed", 1, "--out", "x.png")
    code = (
        "import sys\nfrom lorakit_cli.app import app\n"
        f"try: app({['generate', '--base', str(base), '--from', 'x.png', '--dry-run']!r})\n"
        "except SystemExit as end: code = end.code\nprint('torch' in sys.modules, code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "False 0"


def test_quality_acts_and_repeats(draw):
    for name, quality in (("low.webp", 10), ("high.webp", 100), ("low.jpg", 10), ("high.jpg", 100)):
        assert draw("--seed", 1, "--out", name, "--quality", quality).exit_code == 0
    assert Path("low.webp").stat().st_size < Path("high.webp").stat().st_size
    assert Path("low.jpg").stat().st_size < Path("high.jpg").stat().st_size
    assert draw("--seed", 1, "--out", "again.jpg", "--quality", 10).exit_code == 0
    assert Path("again.jpg").read_bytes() == Path("low.jpg").read_bytes()


def test_the_variant_of_the_base_is_drawn_with_again(lorakit, here):
    build_pipeline().save_pretrained(here / "both")
    # Other values, so that it shows which were taken.
    build_pipeline(seed=1).save_pretrained(here / "both", variant="fp16")
    first = lorakit("generate", "-b", "both", "--variant", "fp16", "--seed", 3, "--steps", 2, "-o", "first.png", PROMPT)
    assert first.exit_code == 0, first.stderr
    again(lorakit, "first.png")
    assert Path("again.png").read_bytes() == Path("first.png").read_bytes()
    # The other one is asked for, and is what the picture then says.
    lorakit("generate", "-b", "both", "--seed", 3, "--steps", 2, "-o", "plain.png", PROMPT)
    again(lorakit, "plain.png", "--variant", "fp16")
    assert Path("again.png").read_bytes() == Path("first.png").read_bytes() != Path("plain.png").read_bytes()
