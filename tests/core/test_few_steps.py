"""Names of adapters for few steps as they are on the Hub and on CivitAI, and names that only sound like them."""

import diffusers
import pytest

from lorakit_cli.core.few_steps import advice_for, few_steps_of
from lorakit_cli.core.schedulers import find_sampler

TRAILING = {"timestep_spacing": "trailing"}
PCM = TRAILING | {"clip_sample": False, "set_alpha_to_one": False}


def recognised(name, **options):
    found = few_steps_of({"its file's name": name}, **options)
    return (found.kind, found.steps) if found else None


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [
        ("lcm-lora-sdxl", "LCM", None),
        ("LCM_LoRA_Weights_SD15", "LCM", None),
        ("Hyper-SD15-8steps-lora", "Hyper-SD", 8),
        ("Hyper-SDXL-12steps-CFG-lora", "Hyper-SD", 12),
        ("Hyper-FLUX.1-dev-16steps-lora", "Hyper-SD", 16),
        ("sdxl_lightning_4step_lora", "Lightning", 4),
        ("SDXL-Lightning", "Lightning", None),
        ("Qwen-Image-Lightning-8steps-V1.0-bf16", "Lightning", 8),
        ("FLUX.1-Turbo-Alpha", "Turbo", None),
        ("sd_xl_turbo_lora_v1", "Turbo", None),
        ("TCD-SD21-base-LoRA", "TCD", None),
        ("pcm_sdxl_smallcfg_4step_converted", "PCM", 4),
        ("dmd2_sdxl_4step_lora_fp16", "DMD2", 4),
        ("flash-sdxl", "Flash", None),
        ("Wan21_CausVid_14B_T2V_lora_rank32", "CausVid", None),
        ("Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank64", "LightX2V", None),
        ("Wan2.1-T2V-14B-StepDistill-CfgDistill", "LightX2V", None),
    ],
)
def test_names_that_tell(name, kind, steps):
    assert recognised(name) == (kind, steps)


@pytest.mark.parametrize(
    "name",
    [
        "flash_photography", "flash_photography_sdxl", "adobe_flash_xl", "hyperrealism", "hyper_realism_xl",
        "turbografx", "turbografx-16", "porsche_911_turbo_xl", "lightning_storm", "lightning_storm_sdxl",
        "sdxl-turbo-DPO-LoRA", "z_image_turbo_lora_v1", "flux-schnell-lora", "pcm_audio", "tcd", "turbo", "lightning",
        "lightning-000012", "lightning_4000_steps", "pixel-art-sdxl-8steps", "calcmatic", "", "8steps",
    ],
)  # fmt: skip
def test_names_that_do_not(name):
    assert recognised(name) is None


def test_bases():
    assert recognised("sdxl-turbo", base=True) == ("Turbo", None)
    assert recognised("FLUX.1-schnell", base=True) == ("schnell", None)
    assert recognised("FLUX.1-dev", base=True) is recognised("stable-diffusion-xl-base-1.0", base=True) is None


def test_the_first_name_that_tells_and_steps_from_any():
    found = few_steps_of({"its file's name": "my_4steps", "its repository": "SDXL-Lightning", "its title": "LCM"})
    assert (found.kind, found.where, found.steps) == ("Lightning", "its repository", 4)


@pytest.mark.parametrize(
    ("name", "flow", "advice"),
    [
        ("lcm", False, ("lcm", {}, 4, 1.5, None)),
        ("sdxl_lightning_8step_lora", False, ("euler", TRAILING, 8, 0.0, None)),
        ("Hyper-SDXL-1step-lora", False, ("tcd", {}, 1, 0.0, None)),
        ("Hyper-SDXL-8steps-CFG-lora", False, ("ddim", TRAILING, 8, 5.0, None)),
        ("Hyper-FLUX.1-dev-8steps-lora", True, (None, {}, 8, 3.5, 0.125)),
        ("Hyper-SD3-16steps-CFG-lora", True, (None, {}, 16, 7.0, 0.125)),
        ("pcm_sdxl_normalcfg_8step", False, ("ddim", PCM, 8, 4.5, None)),
        ("pcm_sd15_lcmlike_lora", False, ("lcm", {}, 4, 1.5, None)),
        ("TCD-SDXL-LoRA", True, None),
    ],
)  # fmt: skip
def test_advice(name, flow, advice):
    assert advice_for(few_steps_of({"": name}), flow=flow) == advice


def test_dmd2_gets_the_time_steps_of_its_training():
    advice = advice_for(few_steps_of({"": "dmd2_sdxl_4step_lora"}), flow=False)
    scheduler = diffusers.LCMScheduler(**advice.options)
    scheduler.set_timesteps(advice.steps)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize("flow", [False, True])
def test_every_scheduler_takes_its_options(flow):
    for name in ("lcm", "tcd-sdxl", "sdxl turbo", "flash-sdxl", "pcm sdxl", "Hyper-SDXL", "Qwen-Image-Lightning",
                 "dmd2", "causvid", "lightx2v"):  # fmt: skip
        advice = advice_for(few_steps_of({"": name}), flow=flow)
        if advice and advice.scheduler:
            sampler = find_sampler(advice.scheduler, flow=flow)
            scheduler = getattr(diffusers, sampler.class_name)(**{**sampler.options, **advice.options})
            assert all(scheduler.config[option] == value for option, value in advice.options.items())
