"""Schedulers by the names people know: diffusers' classes, and what A1111 and ComfyUI call them, both ways.

https://huggingface.co/docs/diffusers/api/schedulers/overview has the table that this follows.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lorakit_cli.errors import OptionError, did_you_mean


class Sampler(NamedTuple):
    """A scheduler class of diffusers, and the options that make it what a name promises."""

    class_name: str
    options: Mapping[str, Any]


class Scheduler(NamedTuple):
    """One scheduler: its short name, its class with the options for that name, and what the A1111 web UI calls it."""

    name: str
    class_name: str
    options: Mapping[str, Any] = {}
    web_ui: str | None = None

    @property
    def sampler(self) -> Sampler:
        """The class and its options."""
        return Sampler(self.class_name, self.options)


_SDE = {"algorithm_type": "sde-dpmsolver++"}
# The short names are those that errors list.
_NOISE = (
    Scheduler("euler", "EulerDiscreteScheduler", web_ui="Euler"),
    Scheduler("euler_a", "EulerAncestralDiscreteScheduler", web_ui="Euler a"),
    Scheduler("heun", "HeunDiscreteScheduler", web_ui="Heun"),
    Scheduler("lms", "LMSDiscreteScheduler", web_ui="LMS"),
    Scheduler("dpm2", "KDPM2DiscreteScheduler", web_ui="DPM2"),
    Scheduler("dpm2_a", "KDPM2AncestralDiscreteScheduler", web_ui="DPM2 a"),
    Scheduler("dpmpp_2m", "DPMSolverMultistepScheduler", web_ui="DPM++ 2M"),
    Scheduler("dpmpp_2m_sde", "DPMSolverMultistepScheduler", _SDE, "DPM++ 2M SDE"),
    Scheduler("dpmpp_3m_sde", "DPMSolverMultistepScheduler", _SDE | {"solver_order": 3}, "DPM++ 3M SDE"),
    # diffusers' own table calls it DPM++ SDE, what it computes is the web UI's 2S.
    Scheduler("dpmpp_sde", "DPMSolverSinglestepScheduler", web_ui="DPM++ 2S a"),
    Scheduler("ddim", "DDIMScheduler", web_ui="DDIM"),
    Scheduler("ddpm", "DDPMScheduler"),
    # Without its Runge-Kutta steps, as Stable Diffusion has it; with them few steps are too few.
    Scheduler("pndm", "PNDMScheduler", {"skip_prk_steps": True}, "PLMS"),
    Scheduler("deis", "DEISMultistepScheduler"),
    Scheduler("unipc", "UniPCMultistepScheduler", web_ui="UniPC"),
    Scheduler("sasolver", "SASolverScheduler"),
    Scheduler("lcm", "LCMScheduler", web_ui="LCM"),
    Scheduler("tcd", "TCDScheduler"),
    Scheduler("sde", "DPMSolverSDEScheduler", web_ui="DPM++ SDE"),
)
# What lets a scheduler made for noise predict flow.
_AS_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
# Where a class does both, the web UI's name of it stands above.
_FLOW = (
    Scheduler("euler", "FlowMatchEulerDiscreteScheduler", web_ui="Euler"),
    Scheduler("heun", "FlowMatchHeunDiscreteScheduler", web_ui="Heun"),
    Scheduler("lcm", "FlowMatchLCMScheduler"),
    Scheduler("unipc", "UniPCMultistepScheduler", _AS_FLOW),
    Scheduler("dpmpp_2m", "DPMSolverMultistepScheduler", _AS_FLOW),
    Scheduler("dpmpp_sde", "DPMSolverSinglestepScheduler", _AS_FLOW),
    Scheduler("deis", "DEISMultistepScheduler", _AS_FLOW),
)
SCHEDULERS = _NOISE + _FLOW
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
# How the noise is spread over the steps, which the web UI says behind the name.
_SPREADS: Mapping[str, Mapping[str, Any]] = {
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "Beta": {"use_beta_sigmas": True},
}
_TRAILING = {"timestep_spacing": "trailing"}
_SCHEDULES = {name.lower(): options for name, options in _SPREADS.items()}
_SCHEDULES |= {"sgmuniform": _TRAILING, "trailing": _TRAILING}
# What the web UI chooses where nothing is said.
_NO_SCHEDULE = ("automatic", "uniform", "normal", "ddim")
_PYTHON = {"True": True, "False": False, "None": None}


def find_sampler(name: str, *, flow: bool) -> Sampler:
    """Find a scheduler for a base that predicts flow or noise.

    Raises OptionError with the nearest name and the list, and for one that is made for the other kind of base.
    """
    known, others = (_FLOW, _NOISE) if flow else (_NOISE, _FLOW)
    found = _find(name, known)
    if found:
        return found
    names = [scheduler.name for scheduler in known]
    listed = f"this base takes {', '.join(names)}, or one of their classes"
    if _find(name, others):
        kind = "flow, and that one is made for noise" if flow else "noise, and that one is made for flow"
        raise OptionError(f"--scheduler {name}: this base predicts {kind}; {listed}")
    near = did_you_mean(_key(name), names) or ";"
    raise OptionError(f"there is no scheduler {name!r}{near} {listed}; `karras` and the like may follow")


def web_ui_name(class_name: str, options: Mapping[str, object]) -> str:
    """Give the A1111 web UI's name of a scheduler with its options, the class's own where it has none there."""
    alike = [each for each in SCHEDULERS if each.class_name == class_name and each.web_ui]
    if not alike:
        return class_name
    # What has more options is the narrower name.
    fitting = [each for each in alike if all(options.get(name) == value for name, value in each.options.items())]
    best = max(fitting, key=lambda each: len(each.options)) if fitting else alike[0]
    schedule = next((f" {name}" for name, said in _SPREADS.items() if all(map(options.get, said))), "")
    return f"{best.web_ui}{schedule}"


def from_web_ui(name: str, schedule: str = "") -> Sampler | None:
    """Give what the web UI's sampler stands for, whether the name ends in its schedule or not; None: nothing does."""
    for end in _SPREADS:
        if name.lower().endswith(f" {end.lower()}"):
            name, schedule = name[: -len(end) - 1], end
    spread = next((options for end, options in _SPREADS.items() if end.lower() == schedule.lower()), {})
    if schedule and not spread and schedule.lower() not in _NO_SCHEDULE:
        return None
    for each in SCHEDULERS:
        if name.lower() in ((each.web_ui or each.class_name).lower(), each.class_name.lower()):
            return Sampler(each.class_name, {**each.options, **spread})
    return None


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


def scheduler_words(
    name: str | None, options: Mapping[str, Any], steps: int | None, guidance: float | None
) -> list[str]:
    """Write what is not None as options of the command line, one a text."""
    words = [f"--scheduler {shlex.quote(name)}"] if name is not None else []
    for option, value in options.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words.append(f"--scheduler-option {shlex.quote(f'{option}={text}')}")
    words += [f"--steps {steps}"] if steps is not None else []
    return [*words, *([f"--guidance {guidance:g}"] if guidance is not None else [])]


def _value(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "p"))


def _find(name: str, known: tuple[Scheduler, ...]) -> Sampler | None:
    """Find a name, alone or with a schedule behind it."""
    key = _key(name)
    table = {_key(scheduler.name): scheduler.sampler for scheduler in known}
    aliases = _FLOW_ALIASES if known is _FLOW else _ALIASES
    table |= {alias: table[_key(short)] for alias, short in aliases.items()}
    for scheduler in known:
        # A class name stands for the class, without what a shorter name adds; the first that has it is the plainest.
        plain = scheduler.sampler if known is _FLOW else Sampler(scheduler.class_name, {})
        table.setdefault(_key(scheduler.class_name), plain)
        table.setdefault(_key(scheduler.class_name.removesuffix("Scheduler")), scheduler.sampler)
    if key in table:
        return table[key]
    for schedule, options in _SCHEDULES.items():
        found = table.get(key.removesuffix(schedule)) if key.endswith(schedule) else None
        if found:
            return Sampler(found.class_name, {**found.options, **options})
    return None
