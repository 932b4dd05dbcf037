"""Schedulers by the names people know: diffusers' classes, and what A1111 and ComfyUI call them.

https://huggingface.co/docs/diffusers/api/schedulers/overview has the table that this follows.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lorakit_cli.errors import OptionError, did_you_mean


class Sampler(NamedTuple):
    """A scheduler class of diffusers, and the options that make it what a name promises."""

    class_name: str
    options: Mapping[str, Any]


# Short name -> class and options; these are the names that errors list.
_DIFFUSION: Mapping[str, Sampler] = {
    "euler": Sampler("EulerDiscreteScheduler", {}),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", {}),
    "heun": Sampler("HeunDiscreteScheduler", {}),
    "lms": Sampler("LMSDiscreteScheduler", {}),
    "dpm2": Sampler("KDPM2DiscreteScheduler", {}),
    "dpm2_a": Sampler("KDPM2AncestralDiscreteScheduler", {}),
    "dpmpp_2m": Sampler("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_3m_sde": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "dpmpp_sde": Sampler("DPMSolverSinglestepScheduler", {}),
    "ddim": Sampler("DDIMScheduler", {}),
    "ddpm": Sampler("DDPMScheduler", {}),
    # Without its Runge-Kutta steps, as Stable Diffusion has it; with them few steps are too few.
    "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "deis": Sampler("DEISMultistepScheduler", {}),
    "unipc": Sampler("UniPCMultistepScheduler", {}),
    "sasolver": Sampler("SASolverScheduler", {}),
    "lcm": Sampler("LCMScheduler", {}),
    "tcd": Sampler("TCDScheduler", {}),
    "sde": Sampler("DPMSolverSDEScheduler", {}),
}
# What lets a scheduler made for noise predict flow.
_AS_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
_FLOW: Mapping[str, Sampler] = {
    "euler": Sampler("FlowMatchEulerDiscreteScheduler", {}),
    "heun": Sampler("FlowMatchHeunDiscreteScheduler", {}),
    "lcm": Sampler("FlowMatchLCMScheduler", {}),
    "unipc": Sampler("UniPCMultistepScheduler", _AS_FLOW),
    "dpmpp_2m": Sampler("DPMSolverMultistepScheduler", _AS_FLOW),
    "dpmpp_sde": Sampler("DPMSolverSinglestepScheduler", _AS_FLOW),
    "deis": Sampler("DEISMultistepScheduler", _AS_FLOW),
}
# As names are compared: in lower case, letters and digits only, `+` as p.
_ALIASES = {
    "eulerancestral": "euler_a",
    "dpm2ancestral": "dpm2_a",
    "kdpm2": "dpm2",
    "plms": "pndm",
    "dpmsolver": "dpmpp_2m",
    "dpmsolverpp": "dpmpp_2m",
    "dpmpp2s": "dpmpp_sde",
}
_FLOW_ALIASES = {"flowmatcheuler": "euler", "flowmatchheun": "heun", "flowmatchlcm": "lcm"}
# How the noise is spread over the steps, which A1111 says behind the name.
_SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "sgmuniform": {"timestep_spacing": "trailing"},
    "trailing": {"timestep_spacing": "trailing"},
}
_PYTHON = {"True": True, "False": False, "None": None}


def find_sampler(name: str, *, flow: bool) -> Sampler:
    """Find a scheduler for a base that predicts flow or noise.

    Raises OptionError with the nearest name and the list, and for one that is made for the other kind of base.
    """
    known, others = (_FLOW, _DIFFUSION) if flow else (_DIFFUSION, _FLOW)
    found = _find(name, known)
    if found:
        return found
    listed = f"this base takes {', '.join(known)}, or one of their classes"
    if _find(name, others):
        kind = "flow, and that one is made for noise" if flow else "noise, and that one is made for flow"
        raise OptionError(f"--scheduler {name}: this base predicts {kind}; {listed}")
    near = did_you_mean(_key(name), known) or ";"
    raise OptionError(f"there is no scheduler {name!r}{near} {listed}; `karras` and the like may follow")


def is_flow(scheduler: Mapping[str, Any]) -> bool:
    """Tell from a scheduler's configuration whether the base predicts flow."""
    named = str(scheduler.get("_class_name", "")).startswith("FlowMatch")
    return named or bool(scheduler.get("use_flow_sigmas")) or scheduler.get("prediction_type") == "flow_prediction"


def parse_scheduler_options(texts: Iterable[str]) -> dict[str, Any]:
    """Read `NAME=VALUE`, the value as JSON or Python's True, False and None, else as text. Raises OptionError."""
    options: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise OptionError(f"--scheduler-option {text!r} is not NAME=VALUE, such as use_karras_sigmas=true")
        if name in options:
            raise OptionError(f"--scheduler-option {name} is given twice")
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "p"))


def _find(name: str, known: Mapping[str, Sampler]) -> Sampler | None:
    """Find a name, alone or with a schedule behind it."""
    key = _key(name)
    table = {_key(short): sampler for short, sampler in known.items()}
    table |= {
        alias: known[short]
        for alias, short in (_FLOW_ALIASES if known is _FLOW else _ALIASES).items()
        if short in known
    }
    for short, sampler in known.items():
        # A class name stands for the class, without what a shorter name adds; the first that has it is the plainest.
        table.setdefault(_key(sampler.class_name), sampler if known is _FLOW else Sampler(sampler.class_name, {}))
        table.setdefault(_key(sampler.class_name.removesuffix("Scheduler")), table[_key(short)])
    if key in table:
        return table[key]
    for schedule, options in _SCHEDULES.items():
        plain = table.get(key.removesuffix(schedule)) if key.endswith(schedule) else None
        if plain:
            return Sampler(plain.class_name, {**plain.options, **options})
    return None
