"""diffusers' own layout: the component's name, a dot, the module's dotted name (`save_lora_weights`).

https://github.com/huggingface/diffusers/blob/main/src/diffusers/loaders/lora_base.py
"""

from lorakit_cli.core.lora_file import KeyFormat

_COMPONENTS = frozenset(
    {
        "unet", "transformer", "transformer_2", "prior", "text_encoder", "text_encoder_2", "text_encoder_3",
    }
)  # fmt: skip


def _component_of(stem: str) -> str | None:
    component, dot, _ = stem.partition(".")
    return component if dot and component in _COMPONENTS else None


def _stems(component: str, module: str) -> tuple[str, ...]:
    return (f"{component}.{module}",)


DIFFUSERS = KeyFormat("diffusers", _component_of, _stems)
