"""AdaLoRA: LoRA with a singular value per rank, scaled by alpha over the ranks that were left.

Zhang et al., 2023, arXiv:2303.10512; https://github.com/huggingface/peft/blob/main/src/peft/tuners/adalora/layer.py.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shapes, Thin
from lorakit_cli.kinds.lora import LORA, SUFFIXES, pair_rank
from lorakit_cli.kinds.shapes import require_same_rank

if TYPE_CHECKING:
    from torch import Tensor

# PEFT adds it to the rank it divides by.
_EPSILON = 1e-5


def _rank(shapes: Shapes) -> int:
    down, singular = shapes["down"], shapes["singular"]
    rank = pair_rank(down, shapes["up"])
    if len(singular) != 2 or singular[1] != 1:
        raise ValueError(f"its singular values are {list(singular)}, but must be [rank, 1]")
    return require_same_rank(down=(rank, down), singular=(singular[0], singular))


def _scale(alpha: float | None, rank: int, shapes: Shapes) -> float:
    """Give alpha / (rank + 1e-5); a missing alpha is the rank, as it is for PEFT."""
    return (rank if alpha is None else alpha) / (rank + _EPSILON)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale * up @ (singular * down)` as `[out, in * kernel]`; a stored `ranknum` takes the rank's place."""
    up, down = _thin(factors, scale)
    return up @ down


def _thin(factors: Factors, scale: float) -> tuple["Tensor", "Tensor"]:
    """Give up, and down with the singular values and the scale."""
    up, down, singular = (factors[role].flatten(1) for role in ("up", "down", "singular"))
    weights = singular * scale
    if "ranknum" in factors:
        weights = weights * ((down.shape[0] + _EPSILON) / (factors["ranknum"].reshape(()) + _EPSILON))
    return up, down * weights


ADALORA = Kind(
    "adalora",
    SUFFIXES | {"lora_E": "singular", "ranknum": "ranknum"},
    frozenset({"down", "up", "singular"}),
    LORA.delta_shape,
    _delta,
    _rank,
    _scale,
    optional=frozenset({"ranknum"}),
    whole_numbers=frozenset({"ranknum"}),
    thin=Thin(_rank, _thin),
)
