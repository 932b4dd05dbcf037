"""diffusers' own layout: the component's name, a dot, the module's dotted name (`save_lora_weights`).

https://github.com/huggingface/diffusers/blob/main/src/diffusers/loaders/lora_base.py
"""

from lorakit_cli.core.key_format import prefixed

DIFFUSERS = prefixed(
    "diffusers",
    {
        f"{component}.": (component,)
        for component in (
            "unet", "transformer", "transformer_2", "prior", "connectors", "text_conditioner",
            "text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4",
        )
    },
    flat=False,
)  # fmt: skip
