"""Replacements: values that take the place of a parameter.

ComfyUI's `set_weight` (https://github.com/comfyanonymous/ComfyUI/blob/master/comfy/lora.py) and the norms of Black
Forest Labs' control adapters. A scalar of the name `scale` is no value of a parameter but A1111's own scale, and is
left alone.
"""

import math
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.shapes import require_values

if TYPE_CHECKING:
    from torch import Tensor


def _is_no_scalar(shapes: Shapes) -> bool:
    return math.prod(shapes["value"]) != 1


def _rank(shapes: Shapes) -> int:
    require_values({"value": shapes["value"]})
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    return shapes["value"]


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `value - base`, in the base's shape."""
    assert base is not None
    return factors["value"].reshape(base.shape) - base


REPLACEMENT = Kind(
    "replacement",
    {"set_weight": "value", "scale": "value"},
    frozenset({"value"}),
    _delta_shape,
    _delta,
    _rank,
    unscaled,
    _is_no_scalar,
    needs_base=True,
)
