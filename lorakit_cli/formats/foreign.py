"""Files that people take for LoRA adapters and that are something else: what they are, and what to do with them."""

import re
from collections.abc import Collection
from itertools import filterfalse
from operator import methodcaller

from lorakit_cli.core.late import late

# (literals of which a key has one, what such a key must look like, how many must at least, what the file is)
_KEYS = (
    (
        ("lora_controlnet", "zero_conv"),
        r"lora_controlnet$|(?:.*\.)?zero_convs?\.\d+",
        1,
        "a control-LoRA, a ControlNet in factors of its own; ComfyUI loads it as a ControlNet",
    ),
    (
        ("_custom_diffusion",),
        r".*_custom_diffusion\.(?:\d+\.)?(?:weight|bias)$",
        1,
        "a Custom Diffusion file, which replaces attention weights; load it with diffusers' unet.load_attn_procs",
    ),
    (
        ("vera_",),
        r".*\.vera_lambda_[bd](?:\.\w+)*$|.*vera_[AB](?:\.\w+)*$",
        1,
        "a VeRA adapter, whose factors are random matrices shared by all layers; merge it with peft first",
    ),
    (
        ("qweight", "wscales", "smooth", "proj_down", "proj_up"),
        r".*\.(?:qweight|wscales|smooth_factor|smooth|proj_down|proj_up)$",
        2,
        "a nunchaku (SVDQuant) file packed for a quantized base; use the adapter it was made from",
    ),
    (
        ("fourierft_", "randlora_", "hra_", "vblora_", "c3a_", "road_", "shira_", "miss_", "bone_", "gralora_"),
        r".*\.(?:fourierft|randlora|hra|vblora|c3a|road|shira|miss|bone|gralora)_\w+(?:\.\w+)*$",
        1,
        "a peft adapter of an algorithm that lorakit does not know; merge it with peft, then take it as a full model",
    ),
    (
        ("image_proj.", "ip_adapter."),
        r"(?:image_proj|ip_adapter)\.",
        2,
        "an IP-Adapter; load it with diffusers' load_ip_adapter",
    ),
)  # fmt: skip
_LATE = tuple((marks, late(pattern), least, what) for marks, pattern, least, what in _KEYS)
# Ends and parts of keys that no model has of its own: not "oft_" in soft_, "_emb" in time_embed, ".diff" in diffusion.
_ADAPTER = late(
    r"lora|lokr|hada_|(?:^|[._])b?oft_|ia3_|\.diff(?:_b)?$|\.(?:a1|b1)\.weight|on_input|\.[wb]_norm$|:(?:up|down)$"
    r"|^bundle_emb\.|\.(?:set_weight|bias_values)$|^emb_params$",
    re.M,
)
# What is called so is a LoRA's, and nothing else has it.
_PLAIN = tuple(f".lora_{part}.weight" for part in ("down", "up", "A", "B"))
_FULL_MODEL = 100
_CHECKPOINT = late(r"^(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner\.embedders)\.", re.M)


def foreign(keys: Collection[str]) -> str | None:
    """Say what a file is that holds no adapter and what to do with it, None where it may be one."""
    doubtful = list(filterfalse(methodcaller("endswith", _PLAIN), keys))
    text = "\n".join(doubtful)
    for marks, pattern, least, what in _LATE:
        if any(mark in text for mark in marks) and sum(pattern.match(key) is not None for key in doubtful) >= least:
            return what
    if len(doubtful) < len(keys) or _ADAPTER.search(text):
        return None
    if _CHECKPOINT.search(text):
        return "a full checkpoint, not a LoRA; give it as --base, or a LoRA of it as FILE"
    if len(keys) >= _FULL_MODEL:
        return "the weights of a whole model, not a LoRA; give its folder or checkpoint as --base"
    return None
