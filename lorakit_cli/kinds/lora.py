"""LoRA: the product of two thin factors, for linear and convolution layers (Hu et al., 2021, arXiv:2106.09685)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lorakit_cli.core.lora_file import Kind, Shape, Shapes

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIXES = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
}


def _rank(shapes: Shapes) -> int:
    down, up = shapes["down"], shapes["up"]
    if len(down) not in (2, 4) or len(down) != len(up):
        raise ValueError(
            f"its factors have shapes {list(down)} and {list(up)}, which are no linear or convolution pair"
        )
    if down[0] != up[1] or not down[0]:
        raise ValueError(f"its ranks differ: down is {list(down)}, up is {list(up)}")
    if up[2:] not in ((), (1, 1)):
        raise ValueError(f"up is {list(up)}, but its kernel must be 1x1")
    return down[0]


def _delta_shape(shapes: Shapes) -> Shape:
    return (shapes["up"][0], *shapes["down"][1:])


def _delta(factors: Mapping[str, "Tensor"]) -> "Tensor":
    """Give `up @ down`: `[out, rank] @ [rank, in * kernel]`, shaped `[out, in, *kernel]`."""
    up, down = factors["up"], factors["down"]
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


LORA = Kind("lora", _SUFFIXES, frozenset({"down", "up"}), _rank, _delta_shape, _delta)
