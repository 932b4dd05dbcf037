"""The layouts that trainers write plain LoRA in: one pattern of stems for each component, and their ends of keys."""

import re
from dataclasses import dataclass

import torch
from torch import nn

from tests.dialects.judging import Changes, Tensors, cut, pair, product
from tests.dialects.natives import native_names

KOHYA = ("lora_down.weight", "lora_up.weight")
PEFT = ("lora_A.weight", "lora_B.weight")
NAMED = ("lora_A.default.weight", "lora_B.default.weight")
BARE = ("lora_A", "lora_B")
OLD = ("lora.down.weight", "lora.up.weight")
LINEAR = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")

EVERY = "sd1 sdxl flux sd3 wan wan_i2v qwen_image z_image lumina2 hunyuan_video flux2 ltx_video"
DITS = EVERY.removeprefix("sd1 sdxl ")


@dataclass(frozen=True)
class Layout:
    """A layout: `{}` in a stem is the module's name, `{_}` the same with `_`; a component without a stem is left out.

    `native`: the denoiser's modules go by the names of the original code. `clip`: what comes before the names of a
    CLIP text encoder.
    """

    name: str
    families: str
    stems: dict[str, str]
    ends: tuple[str, str] = PEFT
    alpha: bool = False
    native: bool = False
    clip: str = "text_model."
    only: str = ""
    reads_as: str = ""


_TE1, _TE2, _TE3 = "text_encoder", "text_encoder_2", "text_encoder_3"
_UNET_TEXTS = {_TE1: "lora_te1_{_}", _TE2: "lora_te2_{_}"}
_ATTENTION = r"attn[12]?\.(to_[qkv]|to_out\.0)$|self_attn\.\w+_proj$"


def _both(stem: str) -> dict[str, str]:
    return {"unet": stem, "transformer": stem}


def _own(stem: str) -> dict[str, str]:
    return {name: stem.format(name, "{}") for name in ("unet", "transformer", _TE1, _TE2, _TE3)}


LAYOUTS = (
    Layout("kohya", "sd1", {"unet": "lora_unet_{_}", _TE1: "lora_te_{_}"}, KOHYA, alpha=True, reads_as="kohya"),
    Layout("kohya, diffusers' names", "sdxl", {"unet": "lora_unet_{_}", **_UNET_TEXTS}, KOHYA, alpha=True),
    Layout("kohya, sgm's names", "sdxl sd1", {"unet": "lora_unet_{_}", **_UNET_TEXTS}, KOHYA, alpha=True, native=True),
    Layout("kohya, sd3", "sd3", {"transformer": "lora_unet_{_}", **_UNET_TEXTS, _TE3: "lora_te3_{_}"}, KOHYA,
           alpha=True, native=True, reads_as="kohya"),
    Layout("kohya, flux", "flux", {"transformer": "lora_unet_{_}", _TE1: "lora_te1_{_}", _TE2: "lora_te3_{_}"}, KOHYA,
           alpha=True, native=True),
    Layout("kohya, lumina", "lumina2", {"transformer": "lora_unet_{_}", _TE1: "lora_te_{_}"}, KOHYA, alpha=True,
           native=True),
    Layout("musubi", "wan wan_i2v z_image hunyuan_video flux2 qwen_image", _both("lora_unet_{_}"), KOHYA, alpha=True,
           native=True),
    Layout("VideoX-Fun", "wan wan_i2v z_image flux", _both("lora_unet__{_}"), KOHYA, alpha=True, native=True),
    Layout("VideoX-Fun, diffusers' names", "z_image qwen_image", _both("lora_unet__{_}"), KOHYA, alpha=True),
    Layout("peft", EVERY, _both("base_model.model.{}"), reads_as="peft"),
    Layout("peft in memory", EVERY, _both("base_model.model.{}"), NAMED, reads_as="peft"),
    Layout("DiffSynth", EVERY, _both("{}"), NAMED, reads_as="plain"),
    Layout("PixArt's trainer", EVERY, _own("{0}.base_model.model.{1}"), clip="", reads_as="peft"),
    Layout("diffusers", EVERY, _own("{0}.{1}"), reads_as="diffusers"),
    Layout("diffusers, transformers 5", "sd1 sdxl flux sd3", _own("{0}.{1}"), clip="", reads_as="diffusers"),
    Layout("diffusers 0.20", "sd1 sdxl", _own("{0}.{1}"), OLD),
    Layout("diffusers 0.20, text", "sd1 sdxl", {_TE1: f"{_TE1}.{{}}", _TE2: f"{_TE2}.{{}}"}, LINEAR),
    Layout("TheLastBen", "flux", {"transformer": "transformer.{}"}, alpha=True),
    Layout("without .weight", "ltx_video wan qwen_image", {"transformer": "transformer.{}"}, BARE),
    Layout("bare, without .weight", "ltx_video wan", {"transformer": "{}"}, BARE),
    Layout("ComfyUI", "flux", {"transformer": "diffusion_model.{}", _TE1: "text_encoders.clip_l.transformer.{}",
           _TE2: "text_encoders.t5xxl.transformer.{}"}, native=True, reads_as="comfy"),
    Layout("ComfyUI, short", "sd3", {"transformer": "diffusion_model.{}", _TE1: "clip_l.{}", _TE2: "clip_g.{}",
           _TE3: "t5xxl.{}"}, KOHYA, alpha=True, native=True, reads_as="comfy"),
    Layout("ComfyUI, sdxl", "sdxl", {"unet": "diffusion_model.{}", _TE1: "text_encoders.clip_l.transformer.{}",
           _TE2: "text_encoders.clip_g.transformer.{}"}, KOHYA, alpha=True, native=True),
    Layout("ComfyUI, denoiser", EVERY, _both("diffusion_model.{}"), KOHYA, alpha=True, native=True),
    Layout("ai-toolkit", EVERY, _both("diffusion_model.{}"), reads_as="comfy"),
    Layout("BFL", "flux flux2", _both("{}"), native=True, reads_as="plain"),
    Layout("fal", "flux flux2", _both("base_model.model.{}"), native=True, reads_as="peft"),
    Layout("OneTrainer, legacy", "flux", {"transformer": "lora_transformer_{_}", _TE1: "lora_te1_{_}",
           _TE2: "lora_te2_{_}"}, KOHYA, alpha=True),
    Layout("OneTrainer, legacy", "sd3", {"transformer": "lora_transformer_{_}", **_UNET_TEXTS, _TE3: "lora_te3_{_}"},
           KOHYA, alpha=True),
    Layout("OneTrainer, legacy", "hunyuan_video qwen_image z_image flux2 ltx_video lumina2",
           _both("lora_transformer_{_}"), KOHYA, alpha=True, reads_as="onetrainer"),
    Layout("OneTrainer, original", DITS, _both("transformer.{}"), PEFT, alpha=True, native=True),
    Layout("LyCORIS' wrapper", EVERY, _both("lycoris_{_}"), KOHYA, alpha=True, reads_as="lycoris"),
    Layout("attention processors", "sd1 sdxl", {"unet": "unet.{p}", _TE1: f"{_TE1}.{{p}}", _TE2: f"{_TE2}.{{p}}"},
           ("down.weight", "up.weight"), only=_ATTENTION, reads_as="attn-procs"),
    Layout("bare attention processors", "sd1 sdxl", {"unet": "{p}"}, ("down.weight", "up.weight"), only=_ATTENTION,
           reads_as="attn-procs"),
)  # fmt: skip


def cases() -> list[tuple[Layout, str]]:
    return [(layout, name.replace("_i2v", " i2v")) for layout in LAYOUTS for name in layout.families.split()]


def adapter(layout: Layout, family: str, parts: dict[str, nn.Module]) -> tuple[Tensors, Changes]:
    """Write a LoRA of everything that the layout has a name for, each layer of a rank and an alpha of its own."""
    torch.manual_seed(3)
    tensors: Tensors = {}
    wanted: Changes = {}
    for component, pattern in layout.stems.items():
        if component not in parts:
            continue
        model = parts[component]
        for name, (modules, swapped) in _names(layout, family, component, model).items():
            if not re.search(layout.only, name):
                continue
            shapes = [model.get_submodule(module).weight.shape for module in modules]
            number = len(wanted)
            rank, alpha = 1 + number % 3, (1 + number % 5) / 2
            down, up = pair((sum(shape[0] for shape in shapes), *shapes[0][1:]), rank)
            stem = _stem(pattern, name)
            tensors |= {f"{stem}.{layout.ends[0]}": down, f"{stem}.{layout.ends[1]}": up}
            if layout.alpha:
                tensors[f"{stem}.alpha"] = torch.tensor(alpha)
            whole = product(down, up, alpha / rank if layout.alpha else 1.0)
            wanted |= cut(whole, modules, swapped, component, model)
    return tensors, wanted


def _names(layout: Layout, family: str, component: str, model: nn.Module) -> dict[str, tuple[tuple[str, ...], bool]]:
    if layout.native and not component.startswith("text"):
        return native_names(family, model)
    linear = (nn.Linear, nn.Conv2d, nn.Conv3d)
    # transformers 5 puts this before the names only where there is a projection; it stood before all of them once.
    clip = layout.clip if type(model).__name__ == "CLIPTextModel" else ""
    return {clip + name: ((name,), False) for name, module in model.named_modules() if isinstance(module, linear)}


def _stem(pattern: str, name: str) -> str:
    if "{p}" not in pattern:
        return pattern.replace("{_}", name.replace(".", "_")).replace("{}", name)
    block, _, part = name.removesuffix(".0").rpartition(".")
    if block.endswith("self_attn"):
        return pattern.replace("{p}", f"{block}.to_{part.removesuffix('_proj')}_lora")
    return pattern.replace("{p}", f"{block}.processor.{part}_lora")
