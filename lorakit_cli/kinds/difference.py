"""Differences: whole tensors to add to a weight, a bias or a norm, as they are.

https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/modules/full.py and `modules/norms.py`; ComfyUI's extracted
adapters write the same. None of them scales with an alpha.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.norms import only_norm
from lorakit_cli.kinds.shapes import require_values

if TYPE_CHECKING:
    from torch import Tensor


def _difference(name: str, suffix: str, role: str, parameter: str) -> Kind:
    """Make a kind that adds a tensor as it is."""

    def rank(shapes: Shapes) -> int:
        require_values({role: shapes[role]})
        return 0

    def delta_shape(shapes: Shapes) -> Shape:
        return shapes[role]

    def delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
        return factors[role] * scale

    return Kind(
        name,
        {suffix: role},
        frozenset({role}),
        delta_shape,
        delta,
        rank,
        unscaled,
        parameter=parameter,
        norm=only_norm,
        by_row=frozenset({role}),
    )


FULL = _difference("full", "diff", "diff", "weight")
BIAS = _difference("bias", "diff_b", "bias_diff", "bias")
NORM = _difference("norm", "w_norm", "norm_diff", "weight")
NORM_BIAS = _difference("norm-bias", "b_norm", "norm_bias_diff", "bias")
