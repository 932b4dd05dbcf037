"""diffusers' layout before 0.24: factors as parts of attention processors, for UNets with or without `unet.`.

`….attn1.processor.to_q_lora`, and `….self_attn.to_q_lora` for the text encoder's `q_proj`.
https://github.com/huggingface/diffusers/blob/v0.17.1/src/diffusers/models/attention_processor.py (LoRAAttnProcessor)
"""

from collections.abc import Iterator, Sequence

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.key_format import KeyFormat
from lorakit_cli.core.late import late

_STEM = late(r"(?:(unet|transformer)\.)?(?!double_blocks|single_blocks)(.+)\.processor\.(?:to|add)_\w+_lora")
_TEXT_STEM = late(r"(text_encoder(?:_2)?)\.(.+\.self_attn)\.to_(?:q|k|v|out)_lora")
_ATTENTION = late(r"(.+)\.((?:to_[qkv]|to_out|add_[kv]_proj|to_add_out))(?:\.0)?")
_TEXT_ATTENTION = late(r"(.+\.self_attn)\.(q|k|v|out)_proj")
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def _components(stem: str) -> tuple[str, ...]:
    if found := _STEM.fullmatch(stem):
        return (found[1],) if found[1] else ("unet",)
    found = _TEXT_STEM.fullmatch(stem)
    return (found[1],) if found else ()


def _body(stem: str) -> str:
    """Give the name of the module itself, as far as it can be told."""
    name = stem.removeprefix("unet.").removeprefix("transformer.")
    return name.replace(".processor.", ".").removesuffix("_lora")


def _write(component: str, names: Sequence[Name]) -> Iterator[tuple[str, Name]]:
    for entry in names:
        if component in _TEXT_ENCODERS:
            if found := _TEXT_ATTENTION.fullmatch(entry.text):
                yield f"{component}.{found[1]}.to_{found[2]}_lora", entry
        elif component in ("unet", "transformer") and (found := _ATTENTION.fullmatch(entry.text)):
            stem = f"{found[1]}.processor.{found[2]}_lora"
            yield f"{component}.{stem}", entry
            if component == "unet":
                yield stem, entry


ATTN_PROCS = KeyFormat("attn-procs", _components, _write, _body)
