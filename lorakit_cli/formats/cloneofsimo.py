"""The layout of cloneofsimo's lora: pairs numbered in the order of the model's modules, as its diffusers declared them.

The UNet's middle block comes last, and each transformer layer is self attention, feed forward (if it was trained),
cross attention; the text encoder's attention is key, value, query, output.
https://github.com/cloneofsimo/lora/blob/master/lora_diffusion/lora.py (DEFAULT_TARGET_REPLACE)
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from lorakit_cli.core.architecture import Name, Shape
from lorakit_cli.core.key_format import KeyFormat
from lorakit_cli.core.late import late

_KEY = late(r"((?:unet|text_encoder):\d+):(up|down)")
_COMPONENTS = ("unet", "text_encoder")
_UNET_LAYERS = (
    "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj",
    "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
)  # fmt: skip
# The first versions trained the attention alone.
_FEED_FORWARD = "ff.net.0.proj"
_FIFTH = "unet:4"
_WIDENED = 8
_FLAT = 2
_TEXT_LAYERS = ("k_proj", "v_proj", "q_proj", "out_proj")
_UNET = late(
    r"(down|up|mid)_block(?:s\.(\d+))?\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.("
    + "|".join(re.escape(layer) for layer in _UNET_LAYERS)
    + ")"
)
_TEXT = late(r"(?:text_model\.)?encoder\.layers\.(\d+)\.self_attn\.(\w+)")
_SIDES = ("down", "up", "mid")


def _split(key: str) -> tuple[str, str] | None:
    found = _KEY.fullmatch(key)
    return (found[1], found[2]) if found else None


def _components(stem: str) -> tuple[str, ...]:
    component, colon, number = stem.partition(":")
    return (component,) if colon and component in _COMPONENTS and number.isdecimal() else ()


def _numbered(component: str, names: Sequence[Name], left_out: str | None) -> Iterator[tuple[str, Name]]:
    places: dict[tuple[int, ...], list[Name]] = {}
    for entry in names:
        place = _place(component, entry.text)
        if place is not None and not (left_out and entry.text.endswith(left_out)):
            # A text encoder's module goes by two names.
            places.setdefault(place, []).append(entry)
    for number, place in enumerate(sorted(places)):
        for entry in places[place]:
            yield f"{component}:{number}", entry


def _write(component: str, names: Sequence[Name]) -> Iterator[tuple[str, Name]]:
    return _numbered(component, names, None)


def _write_attention(component: str, names: Sequence[Name]) -> Iterator[tuple[str, Name]]:
    return _numbered(component, names, _FEED_FORWARD)


def _place(component: str, module: str) -> tuple[int, ...] | None:
    """Give what sorts a module into its place."""
    if component == "unet" and (found := _UNET.fullmatch(module)):
        side, block, attention, layer, part = found.groups()
        order = (_SIDES.index(side), int(block or 0), int(attention), int(layer), _UNET_LAYERS.index(part))
        return order
    if component == "text_encoder" and (found := _TEXT.fullmatch(module)) and found[2] in _TEXT_LAYERS:
        return (int(found[1]), _TEXT_LAYERS.index(found[2]))
    return None


def _body(stem: str) -> str:
    """Say what kind of module it is; which of them only the model tells."""
    return "down_blocks.0.attentions.0" if stem.startswith("unet:") else "encoder.layers.0"


def _settle(stems: Mapping[str, Sequence[Shape]]) -> KeyFormat:
    """Choose by the fifth layer: a feed forward, eight times as high as wide, or the first of cross attention."""
    if any(len(shape) > _FLAT for shapes in stems.values() for shape in shapes):
        return _EXTENDED
    up_and_down = stems.get(_FIFTH, ())
    rows = max((shape[0] for shape in up_and_down if shape), default=0)
    columns = max((shape[1] for shape in up_and_down if len(shape) > 1), default=0)
    return CLONEOFSIMO if rows == _WIDENED * columns else _ATTENTION_ONLY


CLONEOFSIMO = KeyFormat("cloneofsimo", _components, _write, _body, _split, _settle)
_ATTENTION_ONLY = KeyFormat("cloneofsimo", _components, _write_attention, _body, _split)
# With resnets trained too, their convolutions are in a numbering that no file shows.
_EXTENDED = KeyFormat("cloneofsimo", _components, lambda component, names: (), _body, _split)
