"""Adapters that let a base draw in a few steps, and the settings that their makers recommend for them."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lorakit_cli.core.late import late
from lorakit_cli.core.record import Record

_TRAILING = {"timestep_spacing": "trailing"}
# What a guidance up to here is: none, or as good as none.
LITTLE_GUIDANCE = 2.0


class FewSteps(Record):
    """That an adapter or a base is made for few steps: of which kind, where that is said, and in which words.

    `steps` is the number it was made for, None where nothing says it.
    """

    kind: str
    where: str
    steps: int | None
    words: str


class Advice(NamedTuple):
    """The settings that suit a kind; None leaves one to the base. `weight` is the adapter's own."""

    scheduler: str | None
    options: Mapping[str, Any]
    steps: int
    guidance: float | None
    weight: float | None = None


# For bases that predict noise. The steps are those for a file that names none.
_NOISE: Mapping[str, Advice] = {
    # https://huggingface.co/docs/diffusers/using-diffusers/inference_with_lcm_lora: 4 steps, guidance from 1 to 2.
    "LCM": Advice("lcm", {}, 4, 1.5),
    # https://huggingface.co/ByteDance/SDXL-Lightning
    "Lightning": Advice("euler", _TRAILING, 4, 0.0),
    # https://huggingface.co/ByteDance/Hyper-SD
    "Hyper-SD": Advice("ddim", _TRAILING, 4, 0.0),
    # https://huggingface.co/docs/diffusers/using-diffusers/inference_with_tcd_lora
    "TCD": Advice("tcd", {}, 4, 0.0),
    # https://huggingface.co/docs/diffusers/using-diffusers/sdxl_turbo: from 1 to 4 steps.
    "Turbo": Advice("euler_a", _TRAILING, 4, 0.0),
    # https://huggingface.co/tianweiy/DMD2
    "DMD2": Advice("lcm", {}, 4, 0.0),
    # https://huggingface.co/jasperai/flash-sdxl
    "Flash": Advice("lcm", _TRAILING, 4, 0.0),
    # https://huggingface.co/wangfuyun/PCM_Weights
    "PCM": Advice("ddim", {**_TRAILING, "clip_sample": False, "set_alpha_to_one": False}, 4, 1.5),
}
_QWEN_SHIFT = math.log(3)
# For bases that predict flow.
_FLOW: Mapping[str, Advice] = {
    # https://huggingface.co/docs/diffusers/api/schedulers/flow_match_lcm
    "LCM": Advice("lcm", {}, 4, None),
    # https://github.com/ModelTC/Qwen-Image-Lightning (generate_with_diffusers.py)
    "Lightning": Advice(
        "euler",
        {
            "base_shift": _QWEN_SHIFT,
            "max_shift": _QWEN_SHIFT,
            "shift_terminal": None,
            "use_dynamic_shifting": True,
            "time_shift_type": "exponential",
        },
        8,
        None,
    ),
    # https://huggingface.co/ByteDance/Hyper-SD: of FLUX.1-dev.
    "Hyper-SD": Advice(None, {}, 8, 3.5, 0.125),
    # https://huggingface.co/alimama-creative/FLUX.1-Turbo-Alpha
    "Turbo": Advice(None, {}, 8, 3.5),
    # https://huggingface.co/black-forest-labs/FLUX.1-schnell
    "schnell": Advice(None, {}, 4, 0.0),
    # https://huggingface.co/jasperai/flash-sd3
    "Flash": Advice(None, {}, 4, 0.0),
    # https://huggingface.co/wangfuyun/PCM_Weights
    "PCM": Advice(None, {}, 4, None),
    # https://civitai.com/models/1585622: by who made an adapter of it.
    "CausVid": Advice("unipc", {}, 12, 1.0, 0.3),
    # https://huggingface.co/lightx2v/Wan2.1-T2V-14B-StepDistill-CfgDistill
    "LightX2V": Advice("lcm", {"shift": 5.0}, 4, 1.0),
}
# ByteDance/Hyper-SD, of SD3: steps -> guidance.
_HYPER_SD3 = {4: 3.0, 8: 5.0, 16: 7.0}

# What says a kind by itself.
_STRONG = late(
    r" (?P<LCM>lcm|lcmlora|latent consistency) "
    r"| (?P<TCD>trajectory consistency) "
    r"| (?P<PCM>phased consistency|pcm (?:sdxl|sd15|deterministic|stochastic)) "
    r"| (?P<DMD2>dmd2) "
    r"| (?P<CausVid>causvid) "
    r"| (?P<LightX2V>lightx2v|step ?distill) "
)
# What says one only with the number of steps, or where nothing but words of the trade stand beside it.
_WEAK = {
    "lightning": "Lightning",
    "hyper": "Hyper-SD",
    "hypersd": "Hyper-SD",
    "hypersdxl": "Hyper-SD",
    "tcd": "TCD",
    "turbo": "Turbo",
    "flash": "Flash",
    "pcm": "PCM",
    "dmd": "DMD2",
}
_MODEL = late(r"sd|sdxl|xl|sd3|sd15|sd21|sdv1|sdv2|stable diffusion|ssd|flux|flux1|qwen|qwenimage")
_TECHNICAL = late(
    r"lora|loras|lcm|v?\d+|v\d+[a-z]?|base|dev|alpha|beta|image|edit|fp16|fp32|bf16|fp8|float16|rank\d*|r\d+|dim\d*|unet|cfg"
    r"|converted|weights|model|comfyui|diffusers|pruned|1b|large|medium|distill|distilled|safetensors"
)
_STEPS = late(r" (\d{1,2}) ?steps? ")
_MOST_STEPS = 16
_LONGEST_NAME = 200


def few_steps_of(names: Mapping[str, str], *, base: bool = False) -> FewSteps | None:
    """Recognise a kind by names, place -> name, the first that tells; None where none does.

    A word that means other things too, as `flash` or `turbo` do, is not enough: the number of steps must stand in the
    name, or the name of a model and nothing but words of the trade. A base may also be FLUX.1-schnell, which adapters
    are named after that were made for it.
    """
    words = {where: _words(name) for where, name in names.items()}
    for where, text in words.items():
        kind = _kind(text, base=base)
        if kind:
            steps = next((found for each in (text, *words.values()) if (found := _steps(each))), None)
            return FewSteps(kind, where, steps, text)
    return None


def advice_for(found: FewSteps, *, flow: bool, steps: int | None = None) -> Advice | None:
    """Give the settings for a kind on a base that predicts flow or noise; None where there are none for it.

    `steps` are those that are asked for anyway, which others depend on.
    """
    advice = (_FLOW if flow else _NOISE).get(found.kind)
    if advice is None:
        return None
    steps = steps or found.steps or advice.steps
    advice = advice._replace(steps=steps)
    if found.kind == "DMD2":
        # Which makes of it the time steps of its training: 999, 749, 499, 249.
        return advice._replace(options={"original_inference_steps": steps})
    if found.kind == "Lightning" and flow and " qwen" not in found.words:
        return advice._replace(scheduler=None, options={})
    if found.kind == "Hyper-SD":
        return _hyper(advice, found, flow=flow)
    if found.kind == "PCM" and not flow:
        if " lcmlike " in found.words:
            return _NOISE["LCM"]._replace(steps=steps)
        if " normalcfg " in found.words:
            return advice._replace(guidance=3.0 if steps <= 4 else 4.5)
    return advice


def _hyper(advice: Advice, found: FewSteps, *, flow: bool) -> Advice:
    if flow:
        of_sd3 = " sd3 " in found.words
        return advice._replace(guidance=_HYPER_SD3.get(advice.steps, 5.0)) if of_sd3 else advice
    if " cfg " in found.words:
        return advice._replace(guidance=5.0)
    # That of one step is made for any number of them, with another scheduler.
    return advice._replace(scheduler="tcd", options={}) if found.steps == 1 else advice


def _words(name: str) -> str:
    """Write a name in lower case, its words between blanks."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', name[:_LONGEST_NAME].lower()))} "


def _kind(text: str, *, base: bool) -> str | None:
    if found := _STRONG.search(text):
        return found.lastgroup
    words = text.split()
    if base and "schnell" in words and any(word.startswith("flux") for word in words):
        return "schnell"
    kinds = list(dict.fromkeys(_WEAK[word] for word in words if word in _WEAK))
    if len(kinds) != 1:
        return None
    if _steps(text):
        return kinds[0]
    others = [word for word in _STEPS.sub(" ", text).split() if word not in _WEAK]
    models = [word for word in others if _MODEL.fullmatch(word)]
    if "hypersdxl" in words or "hypersd" in words:
        models.append("sd")
    plain = all(_MODEL.fullmatch(word) or _TECHNICAL.fullmatch(word) for word in others)
    return kinds[0] if models and plain else None


def _steps(text: str) -> int | None:
    found = _STEPS.search(text)
    return int(found[1]) if found and 0 < int(found[1]) <= _MOST_STEPS else None
