"""`lorakit generate` run for real on tiny pipelines; the pictures it wrote are opened."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny import rewrite, save_adapter


@pytest.fixture
def draw(lorakit, base):
    """Run generate on the tiny base with few steps."""

    def run(*arguments, prompt="a red heart"):
        return lorakit("generate", "--base", base, "--steps", 2, *arguments, prompt)

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def chunks(path):
    with Image.open(path) as picture:
        return json.loads(picture.text["lorakit"]), picture.text["parameters"], picture.size


def test_a_picture_and_what_it_says(draw, adapters, here):
    result = draw("-l", f"{adapters}/ink.safetensors:0.5", "-l", f"w={adapters}/wash.safetensors", "--seed", 7)
    assert (result.exit_code, result.stdout) == (0, "a-red-heart_seed7.png\n")
    assert result.stderr == "seed 7\n"
    made_with, parameters, size = chunks("a-red-heart_seed7.png")
    assert size == (16, 16)
    hashes = {
        name: hashlib.sha256((adapters / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("ink", "wash")
    }
    assert made_with["adapters"] == [
        {"name": "ink", "file": "ink.safetensors", "sha256": hashes["ink"], "weight": 0.5},
        {"name": "w", "file": "wash.safetensors", "sha256": hashes["wash"], "weight": 1.0},
    ]
    assert (made_with["prompt"], made_with["seed"], made_with["steps"], made_with["guidance"]) == (
        "a red heart",
        7,
        2,
        7.5,
    )
    assert (made_with["base"], made_with["device"], made_with["dtype"]) == ("tiny-base", "cpu", "float32")
    assert parameters.splitlines() == [
        "a red heart <lora:ink:0.5> <lora:w:1>",
        "Steps: 2, Sampler: DDIMScheduler, CFG scale: 7.5, Seed: 7, Size: 16x16, Model: tiny-base, "
        f'Lora hashes: "ink: {hashes["ink"][:12]}, w: {hashes["wash"][:12]}", Version: lorakit {made_with["lorakit"]}',
    ]
    assert names(here) == ["a-red-heart_seed7.png"]


def test_the_adapters_really_act(draw, adapters):
    specs = {"none": [], "half": [":0.5"], "full": [":1"], "zero": [":0"]}
    for name, weights in specs.items():
        options = [part for weight in weights for part in ("-l", f"{adapters}/ink.safetensors{weight}")]
        assert draw(*options, "--seed", 1, "--out", f"{name}.png").exit_code == 0
    pixels = {name: Image.open(f"{name}.png").tobytes() for name in specs}
    assert pixels["none"] == pixels["zero"]
    assert len(set(pixels.values())) == 3


def test_the_same_bytes_whatever_the_count(draw, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors:0.5")
    assert draw(*lora, "--seed", 5, "--out", "one.png").exit_code == 0
    many = draw(*lora, "--seed", 4, "--count", 3, "--out", "many/")
    assert many.stdout.split() == [f"many/a-red-heart_seed{seed}.png" for seed in (4, 5, 6)]
    ranged = draw(*lora, "--seed", "5-6", "--out", "ranged.png")
    assert ranged.stdout.split() == ["ranged_seed5.png", "ranged_seed6.png"]
    one = Path("one.png").read_bytes()
    assert Path("many/a-red-heart_seed5.png").read_bytes() == one
    assert Path("ranged_seed5.png").read_bytes() == one
    assert Path("many/a-red-heart_seed4.png").read_bytes() != one


def test_a_random_seed_is_reported_and_repeats(draw):
    first = draw("--out", "first.png")
    seed = first.stderr.removeprefix("seed ").strip()
    assert seed.isdigit()
    draw("--seed", seed, "--out", "second.png")
    assert Path("first.png").read_bytes() == Path("second.png").read_bytes()


def test_json_is_one_object_with_a_fixed_key_set(draw, adapters):
    result = draw("--json", "-l", f"{adapters}/ink.safetensors:0.5", "--seed", 3, "--out", "x.png", "--scale", 2)
    report = json.loads(result.stdout)
    assert report.keys() == {
        "schema", "pictures", "prompt", "negative_prompt", "base", "adapters", "scale", "attached", "width", "height",
        "steps", "guidance", "scheduler", "device", "dtype", "seconds", "warnings",
    }  # fmt: skip
    assert report["schema"] == "lorakit/generate/1"
    assert report["pictures"] == [{"path": "x.png", "seed": 3}]
    assert report["adapters"][0].keys() == {"name", "file", "sha256", "weight", "layers"}
    assert report["adapters"][0]["layers"] == 188
    assert report["scale"] == 2


def test_size_steps_guidance_negative_and_dtype(draw):
    options = ("--width", 24, "--height", 16, "--guidance", 1.5, "--negative", "blue", "--dtype", "bfloat16")
    assert draw(*options, "--seed", 1, "--out", "x.png").exit_code == 0
    made_with, parameters, size = chunks("x.png")
    assert size == (24, 16)
    assert (made_with["guidance"], made_with["negative_prompt"], made_with["dtype"]) == (1.5, "blue", "bfloat16")
    assert parameters.splitlines()[1] == "Negative prompt: blue"


def test_defaults_of_the_base(lorakit, base, tmp_path):
    import shutil

    own = shutil.copytree(base, tmp_path / "own")
    (own / "lorakit.json").write_text('{"generate": {"steps": 3, "guidance": 2.5, "width": 24}}')
    assert lorakit("generate", "--base", own, "--seed", 1, "--out", "x.png", "x").exit_code == 0
    made_with, _, size = chunks("x.png")
    assert (made_with["steps"], made_with["guidance"], size) == (3, 2.5, (24, 16))
    (own / "lorakit.json").write_text('{"generate": {"steps": "3"}}')
    result = lorakit("generate", "--base", own, "x")
    assert result.exit_code == 1
    assert "generate.steps is '3', not a whole number" in result.stderr


def test_attach_gives_the_same_picture_within_rounding(draw, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors:0.5", "--seed", 1)
    assert draw(*lora, "--out", "fused.png").exit_code == 0
    assert draw(*lora, "--attach", "--out", "attached.png").exit_code == 0
    fused, attached = (Image.open(f"{name}.png").tobytes() for name in ("fused", "attached"))
    assert max(abs(a - b) for a, b in zip(fused, attached, strict=True)) <= 1
    assert chunks("attached.png")[0]["attached"] is True


def test_block_scales_act(draw, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors", "--seed", 1)
    off = 'ink={"unet": {"down": 0, "mid": 0, "up": 0}, "text_encoder": 0}'
    assert draw(*lora, "--block-scales", off, "--out", "off.png").exit_code == 0
    assert draw("--seed", 1, "--out", "plain.png").exit_code == 0
    assert Image.open("off.png").tobytes() == Image.open("plain.png").tobytes()
    assert chunks("off.png")[0]["block_scales"] == {"ink": {"unet": {"down": 0, "mid": 0, "up": 0}, "text_encoder": 0}}


def test_prompt_tags_and_the_list_in_use(draw, adapters):
    assert (
        draw("--seed", 1, "--out", "tag.png", prompt=f"a red heart <lora:{adapters}/ink.safetensors:0.5>").exit_code
        == 0
    )
    assert draw("--seed", 1, "--out", "option.png", "-l", f"{adapters}/ink.safetensors:0.5").exit_code == 0
    assert Path("tag.png").read_bytes() == Path("option.png").read_bytes()
    Path("lorakit.toml").write_text(f'use = ["ink:0.5"]\nadapters_dir = "{adapters}"')
    assert draw("--seed", 1, "--out", "use.png").exit_code == 0
    assert Path("use.png").read_bytes() == Path("option.png").read_bytes()


def test_dry_run_prints_the_plan_and_writes_nothing(draw, adapters, here):
    scales = 'ink={"unet": {"down": 0.5, "mid": 0, "up": {"block_1": [0.4, 0.8, 1.0]}}}'
    result = draw("-l", f"{adapters}/ink.safetensors:0.5", "--block-scales", scales, "--dry-run", "--seed", "1-2")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].endswith("tiny-base (another UNet)")
    assert lines[1:] == [
        f"adapter ink:0.5 (lora rank 4) {adapters}/ink.safetensors",
        "  matched 188 of 188 layers: text_encoder 8, unet 180; strength 0 to 0.5",
        "  block scale unet.down.block_0 0.5",
        "  block scale unet.down.block_1 0.5",
        "  block scale unet.down.block_2 0.5",
        "  block scale unet.mid 0",
        "  block scale unet.up.block_0 1",
        "  block scale unet.up.block_1.0 0.4",
        "  block scale unet.up.block_1.1 0.8",
        "  block scale unet.up.block_1.2 1",
        "  block scale unet.up.block_2 1",
        "changes 172 tensors: text_encoder 8, unet 164",
        "seeds 1 2",
        "would write a-red-heart_seed1.png",
        "would write a-red-heart_seed2.png",
    ]
    report = json.loads(draw("-l", f"{adapters}/ink.safetensors:0.5", "--dry-run", "--json", "--seed", 1).stdout)
    assert report.keys() == {
        "schema", "plan", "prompt", "width", "height", "steps", "guidance", "seeds", "out", "warnings",
    }  # fmt: skip
    assert report["plan"].keys() == {"base", "architecture", "adapters", "changed", "unmatched"}
    assert report["plan"]["adapters"][0].keys() == {
        "name", "path", "architecture", "algorithms", "ranks", "weight", "layers", "matched", "strengths",
        "block_scales",
    }  # fmt: skip
    assert (report["schema"], report["plan"]["changed"]) == (
        "lorakit/generate-plan/1",
        {"text_encoder": 8, "unet": 180},
    )
    assert names(here) == []


def test_a_half_matching_adapter_warns_and_strict_refuses(draw, adapters, tmp_path):
    def rename(tensors):
        return {key.replace("up_blocks.1", "up_blocks.7"): value for key, value in tensors.items()}

    path = rewrite(adapters / "wash.safetensors", tmp_path / "half.safetensors", rename)
    result = draw("-l", path, "--seed", 1, "--out", "x.png")
    assert result.exit_code == 0
    assert "warning: 36 layers or keys of half have no effect on this base, first unet.up_blocks.7." in result.stderr
    assert "no such module in the base" in result.stderr
    strict = draw("-l", path, "--strict", "--out", "y.png")
    assert (strict.exit_code, strict.stdout) == (1, "")
    assert strict.stderr.startswith("error: 36 layers or keys do not fit the base, first unet.up_blocks.7.")
    assert "nearest: unet.up_blocks." in strict.stderr
    assert not Path("y.png").exists()


def test_missing_triggers_are_said(draw, adapters):
    Path("lorakit.toml").write_text(f'[adapters.a]\nsource = "{adapters}/ink.safetensors"\ntriggers = ["ink style"]')
    assert "warning: the prompt has no trigger word of a: ink style" in draw("-l", "a", "--dry-run").stderr
    assert draw("-l", "a", "--dry-run", prompt="a heart, Ink Style").stderr == ""
    assert draw("-l", "a", "--dry-run", "-q").stderr == ""


BAD = {
    "unknown adapter": (["-l", "pixl"], 1, "no adapter is called 'pixl'; did you mean pixel"),
    "malformed weight": (["-l", "toy:x"], 2, "the weight 'x' of adapter 'toy:x' is not a finite number"),
    "nan": (["-l", "toy:nan"], 2, "not a finite number"),
    "no source": (["-l", ":1"], 2, "adapter ':1' names no source"),
    "one name twice": (["-l", "toy", "-l", "toy:1"], 2, "two adapters are called 'toy'"),
    "no LoRA": (["-l", "{base}/unet/diffusion_pytorch_model.safetensors"], 1, "holds no adapter"),
    "unknown base": (["--base", "nowhere"], 1, "there is no base 'nowhere'"),
    "block scales": (["-l", "{ink}", "--block-scales", "{{"], 2, "not valid JSON"),
    "block scales of nobody": (["-l", "{ink}", "--block-scales", "inc={{}}"], 2, "adapter 'inc'; did you mean ink?"),
    "wrong block": (["-l", "{ink}", "--block-scales", 'ink={{"unet": {{"up": {{"block_9": 1}}}}}}'], 2, "has block_0"),
    "wrong length": (["-l", "{ink}", "--block-scales", 'ink={{"unet": {{"up": {{"block_0": [1]}}}}}}'], 2, "list of 3"),
    "existing output": (["--out", "there.png"], 1, "there.png exists already; choose another name or add --overwrite"),
    "output without folder": (["--out", "nowhere/x.png"], 1, "nowhere does not exist; create it first"),
    "output of another kind": (["--out", "x.jpg"], 2, "pictures are written as .png"),
    "size": (["--width", "17"], 2, "multiples of 8 pixels; the nearest are 16 and 24"),
    "no size": (["--height", "0"], 2, "multiples of 8 pixels"),
    "negative size": (["--height", "-8"], 2, "multiples of 8 pixels"),
    "no steps": (["--steps", "0"], 2, "at least one step"),
    "guidance": (["--guidance", "nan"], 2, "not a finite number"),
    "scale": (["-l", "{ink}", "--scale", "inf"], 2, "not a finite number"),
    "seed": (["--seed", "4-1"], 2, "--seed '4-1' is neither"),
    "count": (["--seed", "1-2", "--count", "3"], 2, "contradict each other"),
    "device": (["--device", "quantum"], 2, "'quantum' is no device"),
    "huge seed": (["--seed", "9" * 5000], 2, "is neither a whole number"),
    "huge count": (["--count", "100000000"], 2, "asks for more than 10000 pictures"),
    "huge picture": (["--width", "8000000000000", "--height", "8"], 2, "32768 pixels are the most"),
    "huge strength": (["-l", "{ink}:1e300", "--scale", "1e300"], 2, "multiply to what no number can hold"),
    "overflow": (["-l", "{ink}:1e18", "--seed", "1"], 1, "seed 1 gave no picture"),
    "no such user": (["-l", "~nobody-here/x.safetensors"], 1, "cannot be used"),
    "no such user's base": (["--base", "~nobody-here/x"], 1, "cannot be used"),
    "endless name": (["--out", "x" * 300 + "/"], 1, "cannot be used"),
    "undecodable prompt": (["--negative", "\udcff"], 2, "the negative prompt is not valid UTF-8 text"),
    "absent device": (["--device", "cuda:99"], 1, "this machine has no cuda:99 device"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_leaves_nothing(draw, base, adapters, here, case):
    options, code, message = BAD[case]
    Path("there.png").write_bytes(b"mine")
    result = draw(*(option.format(base=base, ink=adapters / "ink.safetensors") for option in options))
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert names(here) == ["there.png"]
    assert Path("there.png").read_bytes() == b"mine"


def test_attached_nan_is_refused_too(draw, adapters, tmp_path):
    def spoil(tensors):
        name = next(iter(tensors))
        tensors[name] = tensors[name] * float("nan")
        return tensors

    path = rewrite(adapters / "ink.safetensors", tmp_path / "bad.safetensors", spoil)
    result = draw("-l", path, "--attach")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("error: adapter bad holds NaN or infinity")


def test_names_that_torch_itself_uses_can_be_attached(draw, adapters):
    assert (
        draw("-l", f"pop={adapters}/ink.safetensors", "-l", f"float={adapters}/wash.safetensors", "--attach").exit_code
        == 0
    )


def test_files_from_strangers_cannot_write_on_the_terminal(draw, adapters, tmp_path):
    def damage(tensors):
        return tensors | {
            "unet.\x1b[31mx\x07.lora_A.weight": tensors["unet.mid_block.attentions.0.proj_in.lora_A.weight"]
        }

    path = rewrite(adapters / "ink.safetensors", tmp_path / "ansi.safetensors", damage)
    for options in ((), ("--strict",)):
        result = draw("-l", path, "--dry-run", *options)
        assert "[31mx" in result.stderr
        assert "\x1b" not in result.stderr + result.stdout
        assert "\x07" not in result.stderr + result.stdout


def test_a_folder_with_overwrite_replaces_the_picture(draw):
    for _ in range(2):
        assert draw("--out", "of/", "--overwrite", "--seed", 1).stdout == "of/a-red-heart_seed1.png\n"
    assert names(Path("of")) == ["a-red-heart_seed1.png"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_text_on_any_stdout(program, base, encoding):
    options = ("generate", "--base", base, "--dry-run", "--seed", 1, "日本 ☃")
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    plain = program(*options, env=environment, encoding=encoding)
    assert (plain.returncode, plain.stderr) == (0, "")
    report = program(*options, "--json", env=environment, encoding=encoding)
    assert json.loads(report.stdout)["prompt"] == "日本 ☃"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_an_error(program, base):
    with Path("/dev/full").open("w") as full:
        done = program("list-adapters", stdout=full, capture_output=False, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: cannot write to stdout: No space left on device"]


def test_an_adapter_for_another_base(lorakit, draw, tmp_path):
    path = save_adapter(tmp_path / "other.safetensors", seed=1, width=96, targets=["attn2.to_k"], text=False)
    result = draw("-l", path)
    assert result.exit_code == 1
    assert "it is made for lorakit demo (text features 96 wide), the base is another UNet (32)" in result.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_unwritable_folder(draw):
    result = draw("--out", "/proc/")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: cannot write into /proc: " in result.stderr


def test_overwrite(draw):
    Path("x.png").write_bytes(b"old")
    assert draw("--out", "x.png", "--overwrite", "--seed", 1).exit_code == 0
    assert chunks("x.png")[0]["seed"] == 1


def test_an_empty_prompt_is_a_prompt(draw):
    assert draw("--seed", 1, prompt="").stdout == "picture_seed1.png\n"


def test_as_a_program_it_is_quiet_and_stdout_may_be_closed(program, base):
    options = ("generate", "--base", base, "--steps", 1, "--seed", 1)
    done = program(*options, "-q", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "x_seed1.png\n", "")
    shell = f"exec {sys.executable} -m lorakit_cli generate --base '{base}' --steps 1 --seed 2 -q x"
    closed = subprocess.run(["sh", "-c", f"{shell} >&-"], capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")
    gone = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    gone.stdout.close()
    assert (gone.stderr.read(), gone.wait()) == ("", 0)
    assert names(Path.cwd()) == ["x_seed1.png", "x_seed2.png", "x_seed2_2.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_on_a_terminal_a_bar_shows_the_steps(base):
    import pty

    terminal, child = pty.openpty()
    command = [sys.executable, "-m", "lorakit_cli", "generate", "--base", str(base), "--steps", "3", "--seed", "1", "x"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child, env=os.environ | {"TERM": "xterm"})
    os.close(child)
    seen = b""
    # Reading fails once the program has closed its side.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            seen += part
    os.close(terminal)
    assert (running.stdout.read(), running.wait()) == (b"x_seed1.png\n", 0)
    assert b"denoising" in seen
    assert b"3/3" in seen
    assert seen.strip().endswith(b"seed 1")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupted_it_leaves_no_half_file_and_says_130(base, here):
    options = ["--base", str(base), "--steps", "1", "--seed", "1-9999", "--out", "many/", "x"]
    running = subprocess.Popen(
        [sys.executable, "-m", "lorakit_cli", "generate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(here.glob("many/*.png")):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout, stderr) == (130, "", "error: interrupted\n")
    for path in (here / "many").iterdir():
        assert path.suffix == ".png"
        with Image.open(path) as picture:
            picture.load()
