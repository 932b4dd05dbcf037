"""ComfyUI's layout: the dotted names of the original code behind `diffusion_model.`, text encoders by their own names.

ai-toolkit and the trainers of Black Forest Labs write it too.
https://github.com/comfyanonymous/ComfyUI/blob/master/comfy/lora.py
"""

from lorakit_cli.core.key_format import prefixed

# T5 is the third text encoder of SD3 and the second of FLUX.
_TEXT_ENCODERS = {
    "clip_l": ("text_encoder",),
    "clip_g": ("text_encoder_2",),
    "clip_h": ("text_encoder",),
    "t5xxl": ("text_encoder_3", "text_encoder_2", "text_encoder"),
    "umt5xxl": ("text_encoder",),
    "gemma2_2b": ("text_encoder",),
    "qwen25_7b": ("text_encoder",),
    "qwen3_4b": ("text_encoder",),
    "llama": ("text_encoder",),
}

COMFY = prefixed(
    "comfy",
    {"diffusion_model.": (), "model.diffusion_model.": ()}
    | {
        f"{outer}{name}.{inner}": components
        for name, components in _TEXT_ENCODERS.items()
        for outer in ("text_encoders.", "")
        for inner in ("transformer.", "")
    },
    flat=False,
)
