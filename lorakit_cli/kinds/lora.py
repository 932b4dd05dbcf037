"""LoRA: the product of two thin factors, for linear and convolution layers of up to three dimensions.

Hu et al., 2021, arXiv:2106.09685; the convolution as in
https://github.com/kohya-ss/sd-scripts/blob/main/networks/merge_lora.py. DyLoRA, LoRA-FA and LoRA+ train the same two
factors differently and write them alike.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Array, Factors, Kind, Settings, Shape, Shapes
from lorakit_cli.kinds.norms import lora_norm
from lorakit_cli.kinds.shapes import require_same_rank, require_values

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A": "down",
    "lora_B": "up",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    # Attention processors write to_q_lora.down.weight: the name before the dot belongs to the module.
    "down.weight": "down",
    "up.weight": "up",
    "down": "down",
    "up": "up",
}


def pair_rank(down: Shape, up: Shape) -> int:
    """Give the rank of `[rank, in, *kernel]` and `[out, rank, 1, ...]`; either may leave out dimensions of size 1.

    Raises ValueError.
    """
    dimensions = {len(down), len(up)}
    if not dimensions <= {2, 3, 4, 5} or (len(dimensions) > 1 and 2 not in dimensions):
        raise ValueError(
            f"its factors have shapes {list(down)} and {list(up)}, which are no linear or convolution pair"
        )
    rank = require_same_rank(down=(down[0], down), up=(up[1], up))
    if any(size != 1 for size in up[2:]):
        raise ValueError(f"up is {list(up)}, but its kernel must be 1x1")
    require_values({"down": down, "up": up})
    return rank


def _rank(shapes: Shapes) -> int:
    return pair_rank(shapes["down"], shapes["up"])


def _delta_shape(shapes: Shapes) -> Shape:
    return (shapes["up"][0], *shapes["down"][1:])


def _product(factors: Mapping[str, Array], scale: float) -> tuple[Array, Array]:
    """Give `scale * up`, `[out, rank]`, and `down`, `[rank, in * kernel]`.

    A kernel in down and a 1x1 kernel in up, one after the other, are one convolution with their product.
    """
    # The thin factor takes the scale: the product needs no second pass.
    up, down = factors["up"], factors["down"]
    return up.reshape(len(up), -1) * scale, down.reshape(len(down), -1)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale * up @ down`, shaped `[out, in, *kernel]`."""
    up, down = _product(factors, scale)
    return (up @ down).reshape(up.shape[0], *factors["down"].shape[1:])


LORA = Kind(
    "lora",
    SUFFIXES,
    frozenset({"down", "up"}),
    _delta_shape,
    _delta,
    _rank,
    norm=lora_norm,
    product=_product,
)
