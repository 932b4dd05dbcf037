"""The bias of LoRA's up factor, which goes to the bias of the layer.

https://github.com/huggingface/peft/blob/main/src/peft/tuners/lora/layer.py (`lora_bias`); Black Forest Labs' control
adapters have it.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.shapes import require_values

if TYPE_CHECKING:
    from torch import Tensor


def _rank(shapes: Shapes) -> int:
    require_values({"up_bias": shapes["up_bias"]})
    if len(shapes["up_bias"]) != 1:
        raise ValueError(f"its up_bias is {list(shapes['up_bias'])}, which is no bias")
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    return shapes["up_bias"]


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale * bias`: the up factor's output is scaled with its bias."""
    return factors["up_bias"] * scale


LORA_BIAS = Kind(
    "lora-bias",
    {"lora_B.bias": "up_bias"},
    frozenset({"up_bias"}),
    _delta_shape,
    _delta,
    _rank,
    unscaled,
    parameter="bias",
    shares_scale=True,
)
