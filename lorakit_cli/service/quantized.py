"""Tell a base whose weights are packed by quantization, to which nothing can be added, by what its configs say."""

from collections.abc import Mapping
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import UnsupportedError

_CONFIG = "quantization_config"


def require_not_quantized(base: BaseIndex) -> None:
    """Raise UnsupportedError for a base with a quantized component, with the scheme's name and what to do instead."""
    for name, component in base.components.items():
        config = component.config.get(_CONFIG)
        if isinstance(config, Mapping):
            raise UnsupportedError(
                f"the {name} of {base.label} is quantized ({_scheme(config)}), and nothing can be added to packed "
                "weights; fuse into the model that it was made from, then quantize the result"
            )


def _scheme(config: Mapping[str, Any]) -> str:
    """Name a scheme as its library does, with the bits where they are stated."""
    name = shown(str(config.get("quant_method") or config.get("quant_type") or "by a scheme without a name"), 40)
    bits = next((text for key, text in (("load_in_4bit", "4 bit"), ("load_in_8bit", "8 bit")) if config.get(key)), None)
    return f"{name}, {bits}" if bits else name
