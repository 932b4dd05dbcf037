"""BOFT as LyCORIS writes it: output rows are rotated in pairs of blocks, ever further apart, like a butterfly.

Liu et al., 2024, arXiv:2311.06243; https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/functional/boft.py.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import ALPHA, ANY, Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.diag_oft import SUFFIXES, require_blocks
from lorakit_cli.kinds.rotations import cayley_turn, constrained

if TYPE_CHECKING:
    from torch import Tensor


def _is_butterfly(shapes: Shapes) -> bool:
    return len(shapes["oft_blocks"]) == 4


def _rank(shapes: Shapes) -> int:
    blocks = shapes["oft_blocks"]
    rows = require_blocks(blocks, shapes)
    furthest = 2 ** (blocks[0] - 1) * blocks[-1]
    if blocks[-1] % 2 or rows % furthest:
        raise ValueError(f"its blocks are {list(blocks)}, which make no butterfly of {blocks[0]} stages")
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    return (require_blocks(shapes["oft_blocks"], shapes), ANY)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `rescale * R_m ... R_1 W - W` as `[out, in * kernel]`.

    Stage i takes rows 2^i * n / 2 apart together into blocks of n, and R is the Cayley transform of each block.
    """
    assert base is not None
    blocks = factors["oft_blocks"]
    _, count, size, _ = blocks.shape
    rows = count * size
    if base.shape[0] != rows:
        raise ValueError(f"its blocks {list(blocks.shape)} have {rows} rows, the weight is {list(base.shape)}")
    turns = cayley_turn(constrained(blocks, settings.get(ALPHA, 0.0) * rows))
    weight = base.to(blocks.dtype).reshape(rows, -1)
    columns = weight.shape[1]
    rotated = weight
    for stage, turn in enumerate(turns):
        apart = 2**stage * (size // 2)
        grouped = rotated.reshape(-1, 2, apart, columns).transpose(1, 2).reshape(count, size, columns)
        grouped = grouped + turn @ grouped
        rotated = grouped.reshape(-1, apart, 2, columns).transpose(1, 2).reshape(rows, columns)
    if "rescale" in factors:
        rotated = rotated * factors["rescale"].reshape(rows, 1)
    return rotated - weight


BOFT = Kind(
    "boft",
    SUFFIXES,
    frozenset({"oft_blocks"}),
    _delta_shape,
    _delta,
    _rank,
    scale=unscaled,
    when=_is_butterfly,
    optional=frozenset({"rescale"}),
    needs_base=True,
)
