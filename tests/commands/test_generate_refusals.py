"""What `lorakit generate` refuses: one clear line, and nothing written."""

from pathlib import Path

import pytest

from tests.commands.conftest import names
from tests.tiny import rewrite, save_adapter

BAD = {
    "unknown adapter": (["-l", "pixl"], 1, "no adapter is called 'pixl'; did you mean pixel"),
    "malformed weight": (["-l", "toy:x"], 2, "the weight 'x' of adapter 'toy:x' is not a finite number"),
    "nan": (["-l", "toy:nan"], 2, "not a finite number"),
    "no source": (["-l", ":1"], 2, "adapter ':1' names no source"),
    "one name twice": (["-l", "toy", "-l", "toy:1"], 2, "two adapters are called 'toy'"),
    "no LoRA": (["-l", "{base}/unet/diffusion_pytorch_model.safetensors"], 1, "the weights of a whole model"),
    "unknown base": (["--base", "nowhere"], 1, "there is no base 'nowhere'"),
    "block scales": (["-l", "{ink}", "--block-scales", "{{"], 2, "not valid JSON"),
    "block scales of nobody": (["-l", "{ink}", "--block-scales", "inc={{}}"], 2, "adapter 'inc'; did you mean ink?"),
    "wrong block": (["-l", "{ink}", "--block-scales", 'ink={{"unet": {{"up": {{"block_9": 1}}}}}}'], 2, "has block_0"),
    "wrong length": (["-l", "{ink}", "--block-scales", 'ink={{"unet": {{"up": {{"block_0": [1]}}}}}}'], 2, "list of 3"),
    "wrong component": (["-l", "{ink}", "--block-scales", 'ink={{"unett": 1}}'], 2, "'unett'; did you mean unet?"),
    "wrong part": (["-l", "{ink}", "--block-scales", 'ink={{"unet": {{"upp": 1}}}}'], 2, "did you mean up? It"),
    "no scheduler": (["--scheduler", "eulr"], 2, "there is no scheduler 'eulr'; did you mean euler"),
    "no VAE": (["--vae", "nowhere"], 1, "--vae nowhere: there is no such folder or file"),
    "base offline": (["--base", "some/one"], 1, "some/one is not in the cache, and HF_HUB_OFFLINE forbids the network"),
    "existing output": (["--out", "there.png"], 1, "there.png exists already; choose another name or add --overwrite"),
    "output without folder": (["--out", "nowhere/x.png"], 1, "nowhere does not exist; create it first"),
    "output of another kind": (["--out", "x.gif"], 2, "pictures are written as .png, .webp, .jpg, .jpeg"),
    "quality of a PNG": (["--quality", "80"], 2, "--quality 80: .png loses nothing"),
    "prompts twice": (["--prompt-file", "there.png"], 2, "both PROMPT and --prompt-file are given"),
    "no picture": (["--from", "nowhere.png"], 1, "there is no picture nowhere.png; did you mean there.png?"),
    "no picture at all": (["--from", "there.png"], 1, "there.png cannot be read as a PNG, WebP or JPEG"),
    "changes of no picture": (["--allow-changed"], 2, "--allow-changed goes with --from"),
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


def test_an_adapter_for_another_base(lorakit, draw, tmp_path):
    path = save_adapter(tmp_path / "other.safetensors", seed=1, width=96, targets=["attn2.to_k"], text=False)
    result = draw("-l", path)
    assert result.exit_code == 1
    assert "this adapter is for lorakit demo (attn2 input 96); the base is another UNet (32)" in result.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_unwritable_folder(draw):
    result = draw("--out", "/proc/")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: cannot write into /proc: " in result.stderr
