"""The layout of kohya's sd-scripts: a prefix for the component, then the module's name with `_` for `.`.

Whose names they are (diffusers', or those of the original code: sgm for SDXL, native ones for FLUX and its like)
shows when they are looked up. VideoX-Fun writes two underscores.
https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora.py
"""

from lorakit_cli.core.key_format import prefixed

KOHYA = prefixed(
    "kohya",
    {
        "lora_unet_": (),
        "lora_unet__": (),
        "lora_te_": ("text_encoder",),
        "lora_te1_": ("text_encoder",),
        "lora_te2_": ("text_encoder_2",),
        # T5: the third text encoder of SD3, the second of FLUX.
        "lora_te3_": ("text_encoder_3", "text_encoder_2"),
    },
    flat=True,
)
