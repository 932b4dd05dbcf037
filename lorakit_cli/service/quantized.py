"""Tell a base whose weights are packed by quantization, to which nothing can be added, by what its configs say."""

from collections.abc import Mapping
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.packed_tensors import QUANTIZED
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import UnsupportedError


def require_not_quantized(base: BaseIndex) -> None:
    """Raise UnsupportedError for a base with a quantized component, with the scheme's name and what to do instead."""
    for name, scheme in quantized_components(base).items():
        raise UnsupportedError(
            f"the {name} of {base.label} is quantized ({scheme}), and nothing can be added to packed "
            "weights; fuse into the model that it was made from, then quantize the result"
        )


def quantized_components(base: BaseIndex) -> dict[str, str]:
    """Name the quantized components of a base, and the scheme of each."""
    configs = {name: component.config.get(QUANTIZED) for name, component in base.components.items()}
    return {name: _scheme(config) for name, config in configs.items() if isinstance(config, Mapping)}


def attached_note(plan: Plan) -> str | None:
    """Say that the adapters of a plan are attached, and why, where nobody asked for it; None where they are fused."""
    packed = quantized_components(plan.base)
    if not packed or not plan.terms:
        return None
    told = " and ".join(f"the {name} is quantized ({scheme})" for name, scheme in packed.items())
    return f"{told}: adapters are attached, not fused"


def require_comparable(base: BaseIndex) -> None:
    """Raise UnsupportedError for a base with a quantized component, whose values are not those of a model."""
    for name, scheme in quantized_components(base).items():
        raise UnsupportedError(
            f"the {name} of {base.label} is quantized ({scheme}), and packed weights cannot be compared; take "
            "the model that it was made from"
        )


def _scheme(config: Mapping[str, Any]) -> str:
    """Name a scheme as its library does, with the bits where they are stated."""
    name = shown(str(config.get("quant_method") or config.get("quant_type") or "by a scheme without a name"), 40)
    bits = next((text for key, text in (("load_in_4bit", "4 bit"), ("load_in_8bit", "8 bit")) if config.get(key)), None)
    return f"{name}, {bits}" if bits else name
