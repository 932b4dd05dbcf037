"""The settings of a peft adapter that decide the scale of each layer: alpha, and its exceptions per module."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lorakit_cli.core.late import late
from lorakit_cli.core.name_patterns import NamePatterns
from lorakit_cli.core.numbers import finite
from lorakit_cli.errors import UnknownFormatError

_DROPPED = "text_model."
# Settings under which a layer is more, or other, than scale * up @ down.
_OTHER_ARITHMETIC = {
    "fan_in_fan_out": "transposed weights",
    "modules_to_save": "whole modules",
    "layer_replication": "replicated layers",
    "use_qalora": "QALoRA",
    "target_parameters": "bare parameters",
    "trainable_token_indices": "trained tokens",
    "alora_invocation_tokens": "activated LoRA, which acts on some tokens only",
    "arrow_config": "Arrow routing",
    "use_bdlora": "block-diagonal factors",
    "kasa_config": "a base cut down by KaSA",
}
# Ways to start training that change the base itself, so that the factors alone are not the change.
_OTHER_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
# From then on the last power of OFT's series counts once, and the file names its version.
_HALF_TAIL = (0, 18)
_VERSION = late(r"(\d{1,4})\.(\d{1,4})")


class AdapterConfig(NamedTuple):
    """The part of a peft LoraConfig that decides the scale of each layer."""

    alpha: float | None
    rank_stabilised: bool = False
    alpha_pattern: NamePatterns = NamePatterns()
    rank: float | None = None
    rank_pattern: NamePatterns = NamePatterns()
    type: str = "LORA"
    settings: Mapping[str, float] = MappingProxyType({})
    dora: bool = False

    def alpha_of(self, module: str) -> float | None:
        """Give a module's alpha: of the first pattern that fits its name, else the common one."""
        # transformers 5 writes CLIP's modules without what older versions had before them.
        bare = module.removeprefix(_DROPPED)
        found = (self.alpha_pattern.find(name) for name in (module, bare, _DROPPED + bare))
        return next((alpha for alpha in found if alpha is not None), self.alpha)

    def scale_of(self, module: str, rank: int) -> float | None:
        """Give alpha / rank, or alpha / sqrt(rank) for rank-stabilised adapters (Kalajdzievski, 2023).

        Raises ValueError where neither settings nor factors have a rank.
        """
        alpha = self.alpha_of(module)
        if alpha is None:
            return None
        if self.always_scales:
            configured = self.rank_pattern.find(module)
            rank = int((self.rank or rank) if configured is None else configured)
        if rank < 1:
            raise ValueError(f"its settings give it rank {rank}, no rank to divide alpha by")
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    @property
    def always_scales(self) -> bool:
        """Whether alpha / rank holds even where no factor shows a rank, as in peft's own LoKr."""
        return self.type == "LOKR"


def config_of(settings: Mapping[str, Any]) -> AdapterConfig:
    """Read a LoraConfig as JSON has it. Raises ValueError, TypeError, AttributeError or re.error."""
    kind = str(settings.get("peft_type") or "LORA")
    alpha = settings.get("lora_alpha", settings.get("alpha"))
    rank = settings.get("r")
    # AdaLoRA keeps something else under the same name: which of its ranks are left.
    ranks = {} if kind == "ADALORA" else settings.get("rank_pattern") or {}
    return AdapterConfig(
        None if alpha is None else finite(alpha),
        bool(settings.get("use_rslora")),
        _pattern(settings.get("alpha_pattern") or {}),
        None if rank is None else finite(rank),
        _pattern(ranks),
        kind,
        _settings(settings),
        bool(settings.get("use_dora")),
    )


def require_plain(settings: Mapping[str, Any], where: str) -> None:
    """Raise UnknownFormatError where the settings ask for more than plain LoRA."""
    start = str(settings.get("init_lora_weights")).lower()
    other = [what for setting, what in _OTHER_ARITHMETIC.items() if settings.get(setting)]
    if start.startswith(_OTHER_BASE):
        other.append(f"a base changed by {start}")
    if other:
        raise UnknownFormatError(f"{where} uses {other[0]}, which is not plain LoRA and is not applied by halves")


def _pattern(entries: Mapping[str, Any]) -> NamePatterns:
    patterns = NamePatterns(tuple((str(key), finite(value)) for key, value in entries.items()))
    patterns.require_sane()
    return patterns


def _settings(settings: Mapping[str, Any]) -> dict[str, float]:
    """Pick the numbers that an algorithm's arithmetic asks for beside its tensors."""
    if settings.get("peft_type") != "OFT":
        return {}
    # 0 terms: the exact rotation. That the setting is there tells peft's OFT from OneTrainer's.
    terms = settings.get("num_cayley_neumann_terms", 5) if settings.get("use_cayley_neumann") else 0
    version = _VERSION.match(str(settings.get("peft_version")))
    recent = version is not None and (int(version[1]), int(version[2])) >= _HALF_TAIL
    return {
        "neumann_terms": finite(terms),
        "neumann_full_tail": 0.0 if recent else 1.0,
        "coft_eps": finite(settings.get("eps", 6e-5)) if settings.get("coft") else 0.0,
    }
