"""What the A1111 web UI calls the schedulers of diffusers.

https://huggingface.co/docs/diffusers/main/en/api/schedulers/overview
"""

from collections.abc import Mapping
from typing import NamedTuple

_SDE = {"algorithm_type": "sde-dpmsolver++"}


class Sampler(NamedTuple):
    """A name with the scheduler's class and the options that make it what it is."""

    name: str
    class_name: str
    options: Mapping[str, object] = {}


# The first that fits a scheduler names it; what has more options comes first.
SAMPLERS = (
    Sampler("DPM++ 3M SDE", "DPMSolverMultistepScheduler", _SDE | {"solver_order": 3}),
    Sampler("DPM++ 2M SDE", "DPMSolverMultistepScheduler", _SDE),
    Sampler("DPM++ 2M", "DPMSolverMultistepScheduler"),
    Sampler("DPM++ SDE", "DPMSolverSDEScheduler"),
    Sampler("DPM++ 2S a", "DPMSolverSinglestepScheduler"),
    Sampler("Euler a", "EulerAncestralDiscreteScheduler"),
    Sampler("Euler", "EulerDiscreteScheduler"),
    Sampler("Euler", "FlowMatchEulerDiscreteScheduler"),
    Sampler("Heun", "HeunDiscreteScheduler"),
    Sampler("Heun", "FlowMatchHeunDiscreteScheduler"),
    Sampler("LMS", "LMSDiscreteScheduler"),
    Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
    Sampler("DPM2", "KDPM2DiscreteScheduler"),
    Sampler("DDIM", "DDIMScheduler"),
    Sampler("PLMS", "PNDMScheduler"),
    Sampler("UniPC", "UniPCMultistepScheduler"),
    Sampler("LCM", "LCMScheduler"),
)
_SCHEDULES = {
    "Karras": "use_karras_sigmas",
    "Exponential": "use_exponential_sigmas",
    "Beta": "use_beta_sigmas",
}
# What the web UI chooses where nothing is said.
_NO_SCHEDULE = ("Automatic", "Uniform", "Normal", "DDIM")


def sampler_name(class_name: str, options: Mapping[str, object]) -> str:
    """Give the web UI's name of a scheduler with its options, the class's own where it has none there."""
    for sampler in SAMPLERS:
        if sampler.class_name == class_name and all(
            options.get(key) == value for key, value in sampler.options.items()
        ):
            schedule = next((f" {name}" for name, option in _SCHEDULES.items() if options.get(option)), "")
            return sampler.name + schedule
    return class_name


def scheduler_of(name: str, schedule: str = "") -> Sampler | None:
    """Give the scheduler that a sampler stands for, whether the name ends in its schedule or not; None: none does."""
    for end in _SCHEDULES:
        if name.lower().endswith(f" {end.lower()}"):
            name, schedule = name[: -len(end) - 1], end
    options = {_SCHEDULES[end]: True for end in _SCHEDULES if end.lower() == schedule.lower()}
    if schedule and not options and schedule.lower() not in map(str.lower, _NO_SCHEDULE):
        return None
    for sampler in SAMPLERS:
        if name.lower() in (sampler.name.lower(), sampler.class_name.lower()):
            return Sampler(sampler.name, sampler.class_name, {**sampler.options, **options})
    return None
