"""`--scheduler` and its options: pictures held against diffusers with the scheduler swapped by hand."""

import shutil
from pathlib import Path

import diffusers
import numpy
import pytest
import torch
from PIL import Image


def by_hand(base, change, **options):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = change(pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(7)
    return pipeline("a red heart", num_inference_steps=4, generator=generator, **options).images[0]


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (
            ["--scheduler", "DPM++ 2M Karras"],
            lambda config: diffusers.DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True),
        ),
        (
            ["--scheduler", "dpmpp_2m", "--scheduler-option", "use_karras_sigmas=true"],
            lambda config: diffusers.DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True),
        ),
        (["--scheduler", "Euler a"], diffusers.EulerAncestralDiscreteScheduler.from_config),
        (["--scheduler", "heun"], diffusers.HeunDiscreteScheduler.from_config),
        (
            ["--scheduler-option", "timestep_spacing=trailing"],
            lambda config: diffusers.DDIMScheduler.from_config(config, timestep_spacing="trailing"),
        ),
    ],
)
def test_the_picture_is_that_of_diffusers(draw, base, options, change):
    result = draw(*options, "--steps", 4, "--seed", 7, "--out", "x.png")
    assert (result.exit_code, result.stderr) == (0, "seed 7\n")
    ours = numpy.asarray(Image.open("x.png"))
    assert numpy.array_equal(ours, numpy.asarray(by_hand(base, change)))
    assert not numpy.array_equal(ours, numpy.asarray(by_hand(base, diffusers.DDIMScheduler.from_config)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheduler", "eulr", "--dry-run"], "there is no scheduler 'eulr'; did you mean euler"),
        (["--scheduler", "flow-match-euler", "--dry-run"], "this base predicts noise, and that one is made for flow"),
        (["--scheduler-option", "karras", "--dry-run"], "--scheduler-option 'karras' is not NAME=VALUE"),
        (
            ["--scheduler", "euler", "--scheduler-option", "use_karras_sigms=true"],
            "EulerDiscreteScheduler has no option use_karras_sigms; did you mean use_karras_sigmas",
        ),
        (["--scheduler", "ddim", "--scheduler-option", "steps=1"], "Its options are num_train_timesteps, beta_start"),
        (["--scheduler", "DDIM Karras"], "DDIMScheduler has no option use_karras_sigmas"),
        (["--scheduler", "dpmpp_2m", "--scheduler-option", "algorithm_type=x"], "does not work with algorithm_type=x"),
    ],
)
def test_what_cannot_be(draw, here, options, message):
    result = draw(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not list(here.iterdir())


def test_a_base_may_say_which(lorakit, base, tmp_path):
    own = shutil.copytree(base, tmp_path / "own")
    (own / "lorakit.json").write_text('{"generate": {"steps": 4, "scheduler": "euler_a"}}')
    for name, options in {"own": [], "same": ["--scheduler", "euler_a"], "other": ["--scheduler", "ddim"]}.items():
        assert lorakit("generate", "--base", own, "--seed", 1, *options, "--out", f"{name}.png", "x").exit_code == 0
    own_bytes, same, other = (Image.open(f"{name}.png").tobytes() for name in ("own", "same", "other"))
    assert own_bytes == same
    assert own_bytes != other
    (own / "lorakit.json").write_text('{"generate": {"scheduler": 3}}')
    result = lorakit("generate", "--base", own, "x")
    assert "generate.scheduler is a name" in result.stderr
    assert not Path("x_seed1.png").exists()
