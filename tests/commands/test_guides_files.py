"""The guides' examples with files of other trainers, other settings of the call and other parts: the same latents."""

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file

from lorakit_cli.service.session import Session
from tests.guides import PROMPT, apart, assert_same, draw
from tests.originals import build


@pytest.fixture(params=["sd1", "sdxl"])
def stable(request, guides):
    """What the guides work with, for both families of Stable Diffusion."""
    return guides(request.param)


def as_attention_processors(guide):
    """Write the part for the UNet as `save_attn_procs` once did, without a prefix."""
    tensors = {}
    for name, value in load_file(guide.toy).items():
        if name.startswith("unet."):
            layer, end = name.removeprefix("unet.").split(".lora_")
            module, _, part = (
                layer.removesuffix(".to_out.0").rpartition(".")
                if "to_out" not in layer
                else (layer.removesuffix(".to_out.0"), "", "to_out")
            )
            tensors[f"{module}.processor.{part}_lora.{'down' if end.startswith('A') else 'up'}.weight"] = value
    return tensors


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_files_of_the_first_training_scripts(stable, latents, here, suffix):
    """`unet.load_attn_procs` is no more; what it read is loaded under the prefix that came later."""
    tensors = as_attention_processors(stable)
    path = here / f"pytorch_lora_weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    pipeline = stable.pipeline()
    pipeline.load_lora_weights({f"unet.{name}": value for name, value in tensors.items()})
    given = ("-l", f"./{path.name}", *(("--allow-pickle",) if suffix == ".bin" else ()))
    assert_same(latents(stable.base, *given), draw(pipeline), stable.bare)


def as_kohya(guide, convolution):
    """Write the part for the UNet as sd-scripts does, every alpha half the rank, with `convolution` as LoCon."""
    tensors = {}
    for name, value in load_file(guide.toy).items():
        if name.startswith("unet."):
            layer, end = name.removeprefix("unet.").split(".lora_")
            stem = "lora_unet_" + layer.replace(".", "_")
            tensors[f"{stem}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = value
            tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    if convolution:
        stem = "lora_unet_mid_block_resnets_0_conv1"
        torch.manual_seed(8)
        tensors |= {f"{stem}.lora_down.weight": torch.randn(4, 16, 3, 3), f"{stem}.alpha": torch.tensor(2.0)}
        tensors[f"{stem}.lora_up.weight"] = torch.randn(16, 4, 1, 1)
    return tensors


@pytest.mark.parametrize("convolution", [False, True])
def test_files_of_sd_scripts_with_a_negative_prompt_and_a_size(stable, latents, here, convolution):
    save_file(as_kohya(stable, convolution), here / "light_and_shadow.safetensors")
    pipeline = stable.pipeline()
    pipeline.load_lora_weights(".", weight_name="light_and_shadow.safetensors")
    wide = {"negative_prompt": "bad hands", "width": 24, "height": 16}
    ours = latents(stable.base, "-l", "./light_and_shadow.safetensors", "--negative", "bad hands", "--width", 24)
    assert_same(ours, draw(pipeline, **wide), draw(stable.pipeline(), **wide))


def test_four_pictures_at_once(guide, latents):
    pipeline = guide.pipeline("toy")
    seeds = [torch.Generator("cpu").manual_seed(seed) for seed in range(4)]
    settings = {"width": 16, "height": 16, "num_inference_steps": 1, "output_type": "latent"}
    together = pipeline(PROMPT, num_images_per_prompt=4, generator=seeds, **settings).images
    for ours, wanted in zip(latents(guide.base, "-l", guide.toy, "--count", 4), together, strict=True):
        assert apart(ours[0], wanted) < 2e-5
    assert apart(together[0], together[1]) > 0.1


def test_another_scheduler(stable, latents):
    pipeline = stable.pipeline("toy")
    made = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    pipeline.scheduler = made
    scheduler = ("--scheduler", "dpmpp_2m", "--scheduler-option", "use_karras_sigmas=true")
    wanted = draw(pipeline, num_inference_steps=3)
    ours = latents(stable.base, "-l", stable.toy, *scheduler, steps=3)
    assert_same(ours, wanted, draw(stable.pipeline("toy"), num_inference_steps=3))


def test_another_vae(stable, lorakit, monkeypatch):
    """It does not change latents: here the picture itself is compared."""
    vae = build("sd1").vae
    for value in vae.parameters():
        value.data *= 0.9
    vae.save_pretrained("vae-fix")
    pictures, values = [], Session.values
    monkeypatch.setattr(
        Session, "values", lambda *given, **more: pictures.append(values(*given, **more)) or pictures[-1]
    )
    small = ("--width", 16, "--height", 16, "--steps", 1, "--seed", 0)
    given = ("-l", f"{stable.toy}:0.7", "-l", f"{stable.pixel}:0.7", "--vae", "vae-fix")
    done = lorakit("generate", "-b", stable.base, *small, *given, PROMPT)
    assert done.exit_code == 0, done.stderr
    pipeline = stable.pipeline("toy", "pixel")
    pipeline.set_adapters(["toy", "pixel"], [0.7, 0.7])
    plain = draw(pipeline, output_type="pt")
    pipeline.vae = AutoencoderKL.from_pretrained("vae-fix")
    assert_same(pictures[0], draw(pipeline, output_type="pt"), plain)
