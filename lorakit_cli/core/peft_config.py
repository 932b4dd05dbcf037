"""The settings that peft and diffusers read with an adapter: rank and alpha of every module, exactly."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lorakit_cli.core.base_index import BaseComponent
from lorakit_cli.core.name_patterns import ends_of, one_of
from lorakit_cli.core.new_alpha import alpha_for
from lorakit_cli.core.new_layer import NewLayer

_DORA = "dora"


def peft_config(layers: Sequence[NewLayer], component: BaseComponent) -> dict[str, Any]:
    """Give a LoraConfig for the layers of one component, such that each has its own scale alpha / rank.

    peft holds every module against every pattern, so that there is one pattern for each rank and alpha, not for each
    module. It takes a bare name for every module that ends in it. That is meant for text encoders, whose modules are
    below `text_model.` in some versions of transformers and not in others; elsewhere whole names are asked for.
    https://github.com/huggingface/peft/blob/main/src/peft/tuners/lora/config.py
    """
    anchored = not component.is_clip
    names = [component.short_name(layer.name.text) for layer in layers]
    ranks = {name: layer.rank for name, layer in zip(names, layers, strict=True)}
    alphas = {name: _whole(alpha_for(layer.scale, layer.rank)) for name, layer in zip(names, layers, strict=True)}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": _patterns(ranks, rank, anchored=anchored),
        "alpha_pattern": _patterns(alphas, alpha, anchored=anchored),
        "target_modules": _targets(names, component.modules if anchored else ()),
        "use_dora": any(layer.kind == _DORA for layer in layers),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def diffusers_metadata(
    layers: Mapping[str, Sequence[NewLayer]], components: Mapping[str, BaseComponent]
) -> dict[str, str]:
    """Give the header metadata that `load_lora_weights` takes ranks and alphas from.

    Without it, it guesses: from the ranks of those modules of a text encoder that are usually trained.
    """
    packed = {
        f"{name}.{key}": value
        for name, own in layers.items()
        for key, value in peft_config(own, components[name]).items()
        if key not in ("peft_type", "inference_mode")
    }
    return {"lora_adapter_metadata": json.dumps(packed, sort_keys=True)}


def _patterns(values: Mapping[str, float], common: float, *, anchored: bool) -> dict[str, float]:
    by_value: dict[float, list[str]] = {}
    for name, value in values.items():
        if value != common:
            by_value.setdefault(value, []).append(name)
    return {one_of(names, anchored=anchored): value for value, names in by_value.items()}


def _targets(names: Sequence[str], modules: Sequence[str]) -> list[str] | str:
    """List the modules, or write them as one expression where a name would stand for another module as well."""
    known = set(names)
    if any(not known.isdisjoint(ends_of(module)) for module in modules if module not in known):
        return one_of(list(names), anchored=False)
    return list(names)


def _whole(alpha: float) -> float | int:
    return int(alpha) if alpha == int(alpha) else alpha
