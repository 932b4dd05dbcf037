"""The guides' examples that fuse, unfuse, save and merge, as their own code and as commands: the same latents."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.guides import apart, assert_same, draw
from tests.outputs import refused


@pytest.fixture
def fuse(lorakit):
    """Fuse adapters into a base; give the folder."""

    def run(base, out, *arguments):
        result = lorakit("fuse", "-b", base, "-o", out, "-q", "--no-verify", *arguments)
        assert result.exit_code == 0, result.stderr
        return out

    return run


def components(pipeline):
    """Name what is to be fused: what diffusers takes by itself leaves out text encoders of some families."""
    return list(pipeline.get_list_adapters())


def test_fuse_and_unfuse(guide, latents, fuse, lorakit):
    pipeline = guide.pipeline("toy", "pixel")
    pipeline.set_adapters(["toy", "pixel"], [0.5, 1.0])
    pipeline.fuse_lora(components=components(pipeline), lora_scale=1.0)
    fuse(guide.base, "fused", "-l", f"{guide.toy}:0.5", "-l", guide.pixel)
    assert_same(latents("fused"), draw(pipeline), guide.bare)
    pipeline.unfuse_lora(components=components(pipeline))
    pipeline.disable_lora()
    assert apart(draw(pipeline), guide.bare) < 2e-5
    done = lorakit("unfuse", "fused", "-o", "base-again", "-q")
    assert done.exit_code == 0, done.stderr
    # The guide's way loses last digits; this one does not.
    assert torch.equal(latents("base-again"), guide.bare)


def test_fuse_some_of_the_adapters_and_at_another_scale(guide, latents, fuse):
    pipeline = guide.pipeline("toy", "pixel")
    pipeline.set_adapters(["pixel"])
    pipeline.fuse_lora(components=components(pipeline), adapter_names=["pixel"], lora_scale=0.5)
    wanted = draw(pipeline)
    assert_same(latents(fuse(guide.base, "pixel", "-l", guide.pixel, "--scale", 0.5)), wanted, guide.bare)
    # Neither a second time nor after another scale is it multiplied with what it was before.
    fuse(guide.base, "whole", "-l", guide.pixel)
    assert_same(latents(fuse(guide.base, "again", "-l", f"{guide.pixel}:0.5")), wanted, guide.bare)


def test_save_what_is_fused_and_load_it_without_the_adapters(guide, latents, fuse):
    pipeline = guide.pipeline("toy", "pixel")
    pipeline.set_adapters(["toy", "pixel"], [1.0, 0.7])
    pipeline.fuse_lora(components=components(pipeline), lora_scale=1.0)
    pipeline.unload_lora_weights()
    pipeline.save_pretrained("guides")
    fuse(guide.base, "ours", "-l", guide.toy, "-l", f"{guide.pixel}:0.7")
    wanted = draw(guide.pipeline(folder="guides"))
    for drawn in (latents("ours"), latents("guides"), draw(guide.pipeline(folder="ours"))):
        assert_same(drawn, wanted, guide.bare)


def test_fuse_one_after_another_keeps_both(guide, latents, fuse):
    """In the guide's own code the first is lost: loading the second takes it out of the weights."""
    pipeline = guide.pipeline("toy", "pixel")
    pipeline.set_adapters(["toy", "pixel"], [0.7, 0.7])
    first = fuse(guide.base, "first", "-l", f"{guide.toy}:0.7")
    second = fuse(first, "second", "-l", f"{guide.pixel}:0.7")
    assert_same(latents(second), draw(pipeline), guide.bare)


def test_leave_the_text_encoders_out_when_fusing(guide, latents, fuse):
    pipeline = guide.pipeline("toy")
    pipeline.fuse_lora(components=[guide.denoiser], lora_scale=1.0)
    wanted, whole = draw_without_text(pipeline), draw(guide.pipeline("toy"))
    off = '{"text_encoder": 0, "text_encoder_2": 0}' if guide.family == "sdxl" else '{"text_encoder": 0}'
    ours = latents(fuse(guide.base, "fused", "-l", guide.toy, "--block-scales", f"toy={off}"))
    assert_same(ours, wanted, guide.bare)
    assert apart(wanted, whole) > 1e-3


def draw_without_text(pipeline):
    for name in ("text_encoder", "text_encoder_2"):
        if name in pipeline.get_list_adapters():
            getattr(pipeline, name).disable_adapters()
    return draw(pipeline)


def test_merged_adapters_do_what_they_do_together(guide, latents, lorakit):
    pipeline = guide.pipeline("toy", "pixel")
    pipeline.set_adapters(["toy", "pixel"], [0.7, 0.4])
    done = lorakit(
        "merge", "-b", guide.base, "-l", f"{guide.toy}:0.7", "-l", f"{guide.pixel}:0.4", "-o", "both.safetensors", "-q"
    )
    assert done.exit_code == 0, done.stderr
    assert_same(latents(guide.base, "-l", "./both.safetensors"), draw(pipeline), guide.bare)


def test_nothing_unsafe_is_fused(guide, lorakit, here):
    """What `safe_fusing=True` is for; it leaves the layers before the bad one fused."""
    tensors = load_file(guide.toy)
    name = sorted(tensors)[-1]
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, here / "bad.safetensors")
    message = refused(lorakit("fuse", "-b", guide.base, "-l", "./bad.safetensors", "-o", "out"))
    assert "bad" in message
    assert [path.name for path in here.iterdir()] == ["bad.safetensors"]
