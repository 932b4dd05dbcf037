"""BOFT as PEFT writes it: the input columns are rotated like a butterfly, and every row is then scaled.

Liu et al., 2024, arXiv:2311.06243; https://github.com/huggingface/peft/blob/main/src/peft/tuners/boft/layer.py.
"""

import math
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import ANY, Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.rotations import cayley_turn, skew
from lorakit_cli.kinds.shapes import require_values

if TYPE_CHECKING:
    from torch import Tensor

_ROLES = ("boft_R", "boft_s")


def _rank(shapes: Shapes) -> int:
    blocks = shapes["boft_R"]
    require_values({role: shapes[role] for role in _ROLES if role in shapes})
    if len(blocks) != 4 or blocks[2] != blocks[3]:
        raise ValueError(f"its boft_R is {list(blocks)}, but must be [stages, blocks, n, n]")
    if blocks[0] > 1 and (blocks[2] % 2 or blocks[1] % 2 ** (blocks[0] - 1)):
        raise ValueError(f"its boft_R is {list(blocks)}, whose blocks make no butterfly of {blocks[0]} stages")
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    _, count, size, _ = shapes["boft_R"]
    return (math.prod(shapes["boft_s"]) if "boft_s" in shapes else ANY, count * size)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `s * W (R_m ... R_1).T - W` as `[out, in * kernel]`.

    R is `(I - Q)(I + Q)^-1` of every block, with Q half the difference of the block and its transpose. Stage i deals
    its columns, in halves of blocks, from 2^i blocks in turn.
    """
    assert base is not None
    blocks = factors["boft_R"]
    _, count, size, _ = blocks.shape
    weight = base.to(blocks.dtype).flatten(1)
    rows = weight.shape[0]
    if weight.shape[1] != count * size:
        raise ValueError(f"its blocks {list(blocks.shape)} are for {count * size} columns, not for {list(base.shape)}")
    turns = cayley_turn(skew(blocks) * -0.5)
    rotated = weight
    for stage, turn in enumerate(turns):
        apart, half = 2**stage, (size // 2 if len(turns) > 1 else size)
        if stage:
            rotated = rotated.reshape(rows, -1, 2, apart, half).transpose(2, 3)
        grouped = rotated.reshape(rows, count, size).transpose(0, 1)
        grouped = grouped + grouped @ turn.mT
        rotated = grouped.transpose(0, 1)
        if stage:
            rotated = rotated.reshape(rows, -1, apart, 2, half).transpose(2, 3)
    rotated = rotated.reshape(rows, -1)
    if "boft_s" in factors:
        rotated = rotated * factors["boft_s"].reshape(rows, 1)
    return rotated - weight


BOFT_PEFT = Kind(
    "boft-peft",
    {role: role for role in _ROLES},
    frozenset({"boft_R"}),
    _delta_shape,
    _delta,
    _rank,
    scale=unscaled,
    optional=frozenset({"boft_s"}),
    needs_base=True,
)
