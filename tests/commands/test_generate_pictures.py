"""Pictures that begin from others, other autoencoders, fewer text layers: held against diffusers called by hand."""

from pathlib import Path

import numpy
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from diffusers import StableDiffusionPipeline as TextPipeline
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from tests.commands.conftest import names
from tests.tiny import build_pipeline


def by_hand(kind, base, vae=None, **options):
    pipeline = kind.from_pretrained(base, dtype=torch.float32, **({"vae": vae} if vae else {}))
    pipeline.set_progress_bar_config(disable=True)
    # Where diffusers looks for its last norm, and transformers before 5 had it.
    pipeline.text_encoder.__dict__["text_model"] = pipeline.text_encoder
    generator = torch.Generator().manual_seed(7)
    return numpy.asarray(pipeline("a red heart", generator=generator, **options).images[0])


def pixels(path):
    return numpy.asarray(Image.open(path))


@pytest.fixture
def start(here):
    """A picture of 35 by 24 pixels, and a mask of its left half."""
    noise = numpy.random.default_rng(1).integers(0, 255, (24, 35, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save("start.png")
    mask = numpy.zeros((24, 35), dtype=numpy.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save("mask.png")
    return Image.open("start.png").crop((1, 0, 33, 24)), Image.open("mask.png").crop((1, 0, 33, 24))


def test_a_picture_to_begin_from(draw, base, adapters, start, here):
    options = ("--init-image", "start.png", "--strength", 0.5, "--steps", 4, "--seed", 7)
    result = draw(*options, "--out", "x.png")
    assert (result.exit_code, result.stderr) == (0, "seed 7\n")
    theirs = by_hand(StableDiffusionImg2ImgPipeline, base, image=start[0], strength=0.5, num_inference_steps=4)
    assert numpy.abs(pixels("x.png").astype(int) - theirs).max() <= 2
    assert pixels("x.png").shape == (24, 32, 3)
    assert draw(*options, "-l", f"{adapters}/ink.safetensors", "--width", 16, "--out", "y.png").exit_code == 0
    assert pixels("y.png").shape == (8, 16, 3)
    masked = draw(*options, "--mask", "mask.png", "--out", "z.png")
    assert masked.exit_code == 0
    theirs = by_hand(
        StableDiffusionInpaintPipeline,
        base,
        image=start[0],
        mask_image=start[1],
        strength=0.5,
        num_inference_steps=4,
        width=32,
        height=24,
    )
    assert numpy.abs(pixels("z.png").astype(int) - theirs).max() <= 2
    assert not numpy.array_equal(pixels("z.png"), pixels("x.png"))


def test_another_autoencoder(draw, base, tmp_path):
    other = build_pipeline(seed=9)
    other.save_pretrained(tmp_path / "other")
    save_file(other.vae.state_dict(), tmp_path / "vae.safetensors")
    vae = AutoencoderKL.from_pretrained(tmp_path / "other" / "vae")
    theirs = by_hand(TextPipeline, base, vae=vae, num_inference_steps=2)
    for number, given in enumerate((tmp_path / "other", tmp_path / "other" / "vae", tmp_path / "vae.safetensors")):
        result = draw("--vae", given, "--seed", 7, "--out", f"{number}.png")
        assert result.exit_code == 0, result.stderr
        assert numpy.array_equal(pixels(f"{number}.png"), theirs)
    assert draw("--seed", 7, "--out", "own.png").exit_code == 0
    assert not numpy.array_equal(pixels("own.png"), theirs)


def test_text_layers_are_counted_as_a1111_does(draw, base):
    for skip, theirs in ((1, None), (2, 1)):
        assert draw("--clip-skip", skip, "--seed", 7, "--out", f"{skip}.png").exit_code == 0
        expected = by_hand(TextPipeline, base, num_inference_steps=2, clip_skip=theirs)
        assert numpy.array_equal(pixels(f"{skip}.png"), expected)
    assert not numpy.array_equal(pixels("1.png"), pixels("2.png"))


def test_text_layers_are_told_as_a1111_counts(draw, lorakit):
    assert draw("--clip-skip", 2, "--seed", 7, "--out", "own.png").exit_code == 0
    with Image.open("own.png") as picture:
        text = picture.text["parameters"]
    assert ", Clip skip: 2," in text
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save("theirs.png", pnginfo=chunks)
    assert draw("--from", "theirs.png", "--out", "again.png").exit_code == 0
    assert numpy.array_equal(pixels("again.png"), pixels("own.png"))


def test_more_text_layers_than_there_are(draw, lorakit):
    result = draw("--clip-skip", 3)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: --clip-skip 3: the text_encoder of this base has 2 layers\n"


def test_less_memory_gives_the_picture_within_rounding(draw, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors:0.5", "--seed", 7)
    assert draw(*lora, "--out", "plain.png").exit_code == 0
    assert draw(*lora, "--low-memory", "--out", "low.png").exit_code == 0
    assert numpy.abs(pixels("plain.png").astype(int) - pixels("low.png")).max() <= 1


BAD = {
    "no init image": (["--init-image", "nowhere.png"], 2, "--init-image nowhere.png: there is no such file"),
    "unreadable": (["--init-image", "text.png"], 2, "is no picture that can be read; save it as PNG or JPEG"),
    "strength of nothing": (["--strength", "0.5"], 2, "give that picture with --init-image"),
    "mask of nothing": (["--mask", "mask.png"], 2, "give that picture with --init-image"),
    "strength": (["--init-image", "start.png", "--strength", "1.5"], 2, "--strength 1.5: above 0"),
    "too little": (["--init-image", "start.png", "--strength", "0.1"], 2, "take --steps 10 or a higher --strength"),
    "mask of another size": (
        ["--init-image", "start.png", "--mask", "small.png"], 2, "has 8x8 pixels and start.png 35x24; they must agree",
    ),
    "no vae": (["--vae", "nowhere"], 1, "--vae nowhere: there is no such folder or file"),
    "no vae, said beforehand": (["--vae", "nowhere", "--dry-run"], 1, "--vae nowhere: there is no such folder or file"),
    "empty vae": (["--vae", "."], 1, "holds no config.json"),
    "vae of another kind": (["--vae", "text.png"], 1, "is neither a folder nor a .safetensors file"),
    "unet as vae": (["--vae", "{base}/unet"], 1, "its class is UNet2DConditionModel"),
    "adapter as vae": (["--vae", "{ink}"], 1, "diffusers cannot load it"),
    "clip skip": (["--clip-skip", "0"], 2, "--clip-skip 0: 1 reads the last layer"),
    "offload": (["--offload", "disc"], 2, "--offload 'disc' is not known"),
    "offload on cpu": (["--offload", "model", "--device", "cpu"], 2, "so it needs --device cuda, xpu or mps"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be(draw, base, adapters, start, here, case):
    options, code, message = BAD[case]
    Path("text.png").write_text("no picture")
    Image.new("L", (8, 8)).save("small.png")
    before = names(here)
    result = draw(*(option.format(base=base, ink=adapters / "ink.safetensors") for option in options))
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert names(here) == before


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_offloading_needs_a_gpu(draw):
    result = draw("--offload", "group")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: --offload group needs cuda, xpu or mps" in result.stderr
