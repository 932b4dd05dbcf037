"""XLabs' layout for FLUX: factors as parts of the blocks' processors, 1 for the image stream and 2 for the text's.

https://github.com/XLabs-AI/x-flux/blob/main/src/flux/modules/layers.py (DoubleStreamBlockLoraProcessor)
"""

from collections.abc import Iterator, Sequence

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.key_format import KeyFormat
from lorakit_cli.core.late import late

_PREFIX = "diffusion_model."
_STEM = late(r"(?:diffusion_model\.)?((?:double|single)_blocks\.\d+)\.processor\.((?:qkv|proj)_lora[12]?)")
_MODULES = {
    "img_attn.qkv": "qkv_lora1",
    "img_attn.proj": "proj_lora1",
    "txt_attn.qkv": "qkv_lora2",
    "txt_attn.proj": "proj_lora2",
    # Only query, key and value of the fused layer.
    "linear1.qkv": "qkv_lora",
    "linear2": "proj_lora",
}
_PARTS = {part: module for module, part in _MODULES.items()}
_BLOCK = late(r"((?:double|single)_blocks\.\d+)\.(.+)")


def _components(stem: str) -> tuple[str, ...]:
    return ("transformer",) if _STEM.fullmatch(stem) else ()


def _body(stem: str) -> str:
    found = _STEM.fullmatch(stem)
    return f"{found[1]}.{_PARTS[found[2]]}" if found else stem


def _write(component: str, names: Sequence[Name]) -> Iterator[tuple[str, Name]]:
    for entry in names:
        found = _BLOCK.fullmatch(entry.text)
        if component == "transformer" and found and found[2] in _MODULES:
            stem = f"{found[1]}.processor.{_MODULES[found[2]]}"
            yield stem, entry
            yield _PREFIX + stem, entry


XLABS = KeyFormat("xlabs", _components, _write, _body)
