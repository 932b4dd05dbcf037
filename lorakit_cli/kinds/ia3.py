"""IA3: every row or every column of a weight is multiplied by a number.

Liu et al., 2022, arXiv:2205.05638. LyCORIS stores what is added to 1, with a flag that says "columns":
https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/modules/ia3.py. PEFT stores the factor itself, and
multiplies the bias too where it multiplies rows: https://github.com/huggingface/peft/blob/main/src/peft/tuners/ia3/layer.py.
"""

import math
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import ANY, Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.shapes import require_values

if TYPE_CHECKING:
    from torch import Tensor


def _require_vector(role: str, shape: Shape) -> None:
    require_values({role: shape})
    if not shape or max(shape) != math.prod(shape):
        raise ValueError(f"its {role} is {list(shape)}, which is no list of numbers")


def _along(vector: "Tensor", base: "Tensor", dimension: int) -> "Tensor":
    """Shape a vector so that it multiplies `base` along one dimension."""
    return vector.reshape([-1 if position == dimension else 1 for position in range(base.ndim)])


def _rank(shapes: Shapes) -> int:
    _require_vector("weight", shapes["ia3_weight"])
    if math.prod(shapes["on_input"]) != 1:
        raise ValueError(f"its on_input is {list(shapes['on_input'])}, but must be one value")
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    return (ANY, ANY)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `W * w` along the columns where `on_input` is set, along the rows otherwise; in the base's shape."""
    assert base is not None
    weight = factors["ia3_weight"]
    rows, columns = base.shape[:2]
    if weight.numel() not in (rows, columns):
        raise ValueError(f"its weight is {list(weight.shape)}, which fits neither side of {list(base.shape)}")
    if rows == columns:
        # The flag is a value on the device: asking for it in Python would wait for it.
        by_column, by_row = _along(weight, base, 1), _along(weight, base, 0)
        return base * by_column.where(factors["on_input"].reshape(()) != 0, by_row)
    return base * _along(weight, base, 0 if weight.numel() == rows else 1)


IA3 = Kind(
    "ia3",
    {"weight": "ia3_weight", "on_input": "on_input"},
    frozenset({"ia3_weight", "on_input"}),
    _delta_shape,
    _delta,
    _rank,
    scale=unscaled,
    needs_base=True,
    whole_numbers=frozenset({"on_input"}),
)


def _peft_rank(shapes: Shapes) -> int:
    _require_vector("ia3_l", shapes["ia3_l"])
    if len(shapes["ia3_l"]) < 2:
        raise ValueError(f"its ia3_l is {list(shapes['ia3_l'])}, which does not say rows or columns")
    return 0


def _peft_delta_shape(shapes: Shapes) -> Shape:
    shape = shapes["ia3_l"]
    if len(shape) > 2:
        return (ANY, ANY)
    return (shape[0], ANY) if shape[1] == 1 and shape[0] != 1 else (ANY, shape[1])


def _peft_delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `W * (l - 1)`, along the rows for `[out, 1]`, along the columns for `[1, in]`, in the base's shape.

    Of a convolution, l is `[1, n, 1, 1]` for both, and the base's sizes decide; where they are equal, PEFT's
    configuration alone would tell. Raises ValueError.
    """
    assert base is not None
    factor = factors["ia3_l"]
    rows, columns = base.shape[:2]
    values = factor.numel()
    if factor.ndim == 2:
        by_row = values == rows and factor.shape[0] == rows
        fits = by_row or (values == columns and factor.shape[1] == columns)
    else:
        by_row = values == rows
        fits = (values == rows) != (values == columns)
    if not fits:
        raise ValueError(f"its ia3_l is {list(factor.shape)}, which is ambiguous or wrong for {list(base.shape)}")
    return base * _along(factor - 1, base, 0 if by_row else 1)


def _bias_delta_shape(shapes: Shapes) -> Shape:
    return (ANY,)


def _bias_delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `b * (l - 1)` for an l of rows; an l of columns, which the bias comes after, changes nothing."""
    assert base is not None
    factor = factors["ia3_l"]
    if factor.numel() != base.numel() or (factor.ndim == 2 and factor.shape[0] != base.numel()):
        return factor.new_zeros(base.shape)
    return base * (factor.reshape(-1) - 1)


_IA3_PEFT_BIAS = Kind(
    "ia3-peft",
    {"ia3_l": "ia3_l"},
    frozenset({"ia3_l"}),
    _bias_delta_shape,
    _bias_delta,
    scale=unscaled,
    parameter="bias",
    needs_base=True,
)

IA3_PEFT = Kind(
    "ia3-peft",
    {"ia3_l": "ia3_l"},
    frozenset({"ia3_l"}),
    _peft_delta_shape,
    _peft_delta,
    _peft_rank,
    scale=unscaled,
    needs_base=True,
    beside=(_IA3_PEFT_BIAS,),
)
