"""The settings a PEFT adapter carries in its file's metadata: alpha, and its exceptions per module."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorakit_cli.core.numbers import finite
from lorakit_cli.errors import CorruptFileError, UnknownFormatError

_KEY = "lora_adapter_metadata"
_LITERAL = re.compile(r"\^?[\w.]+\$?")
# A repeated group can take forever on a name it does not fit, and no trainer writes one.
_COSTLY = re.compile(r"\)[*+?{]")
_LONGEST_PATTERN = 1000
# Settings under which a layer is more, or other, than scale * up @ down.
_OTHER_ARITHMETIC = {
    "use_dora": "DoRA",
    "fan_in_fan_out": "transposed weights",
    "lora_bias": "biases of its own",
    "modules_to_save": "whole modules",
    "layer_replication": "replicated layers",
    "use_qalora": "QALoRA",
    "target_parameters": "bare parameters",
}
# Ways to start training that change the base itself, so that the factors alone are not the change.
_OTHER_BASE = ("pissa", "olora", "loftq", "corda")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The part of a peft LoraConfig that decides the scale of each layer."""

    alpha: float | None
    rank_stabilised: bool = False
    alpha_pattern: tuple[tuple[str, float], ...] = ()

    def alpha_of(self, module: str) -> float | None:
        """Give a module's alpha: of the first pattern that fits its name, else the common one."""
        return next((alpha for pattern, alpha in self.alpha_pattern if _fits(pattern, module)), self.alpha)

    def scale_of(self, module: str, rank: int) -> float | None:
        """Give alpha / rank, or alpha / sqrt(rank) for rank-stabilised adapters (Kalajdzievski, 2023)."""
        alpha = self.alpha_of(module)
        if alpha is None:
            return None
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank


def read_configs(metadata: Mapping[str, str], where: object) -> dict[str, AdapterConfig]:
    """Read what diffusers' `save_lora_weights` keeps: component -> config.

    Raises CorruptFileError, or UnknownFormatError where the settings ask for more than plain LoRA.
    """
    text = metadata.get(_KEY)
    if text is None:
        return {}
    try:
        components: dict[str, dict[str, Any]] = {}
        for key, value in json.loads(text).items():
            component, _, setting = key.partition(".")
            components.setdefault(component, {})[setting] = value
        for name, settings in components.items():
            _require_plain(settings, f"{where}: its {name}")
        return {name: _config(settings) for name, settings in components.items()}
    except (ValueError, TypeError, AttributeError, re.error, RecursionError) as error:
        raise CorruptFileError(f"{where}: its {_KEY} cannot be read: {error}") from error


def _config(settings: Mapping[str, Any]) -> AdapterConfig:
    pattern = tuple((str(key), finite(value)) for key, value in (settings.get("alpha_pattern") or {}).items())
    for key, _ in pattern:
        if len(key) > _LONGEST_PATTERN or _COSTLY.search(key):
            raise ValueError(f"the pattern {key[:60]!r} repeats a group or is too long")
        re.compile(_whole_or_end(key))
    alpha = settings.get("lora_alpha")
    return AdapterConfig(None if alpha is None else finite(alpha), bool(settings.get("use_rslora")), pattern)


def _require_plain(settings: Mapping[str, Any], where: str) -> None:
    start = str(settings.get("init_lora_weights")).lower()
    other = [what for setting, what in _OTHER_ARITHMETIC.items() if settings.get(setting)]
    if start.startswith(_OTHER_BASE):
        other.append(f"a base changed by {start}")
    if other:
        raise UnknownFormatError(f"{where} uses {other[0]}, which is not plain LoRA and is not applied by halves")


def _whole_or_end(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _fits(pattern: str, module: str) -> bool:
    """Tell whether peft would apply a pattern to a module: to its whole name or a dotted end of it.

    Most patterns are plain names, and a file may hold hundreds, so those do not go through `re`.
    https://github.com/huggingface/peft/blob/main/src/peft/utils/other.py (get_pattern_key)
    """
    if _LITERAL.fullmatch(pattern):
        name = pattern.strip("^$")
        return module == name or (not pattern.startswith("^") and module.endswith("." + name))
    return re.match(_whole_or_end(pattern), module) is not None
