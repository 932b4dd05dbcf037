"""OneTrainer's older layout: as kohya's, with the component's own name in the prefix, over diffusers' names.

https://github.com/Nerogar/OneTrainer/tree/master/modules/util/convert/lora
"""

from lorakit_cli.core.key_format import prefixed

ONETRAINER = prefixed(
    "onetrainer",
    {
        "lora_transformer_": ("transformer",),
        "lora_prior_unet_": ("prior",),
        "lora_prior_te_": ("text_encoder",),
        "lora_te4_": ("text_encoder_4",),
    },
    flat=True,
)
