"""Diag-OFT: every block of output rows is rotated among itself; with a constraint it is COFT.

Qiu et al., 2023, arXiv:2306.07280; https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/modules/diag_oft.py and
https://github.com/kohya-ss/sd-scripts/blob/main/networks/oft.py, which write the same names. Their `alpha` is no scale
but the constraint, per row; 0 or none means none. (kohya's own reader takes 0 for "no rotation at all", which no
training can have meant.)
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import ALPHA, ANY, Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.rotations import cayley_turn, constrained
from lorakit_cli.kinds.shapes import require_values

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = {"oft_blocks": "oft_blocks", "rescale": "rescale"}


def require_blocks(blocks: Shape, shapes: Shapes) -> int:
    """Give the rows that `[..., blocks, n, n]` rotate, having checked `rescale` against them. Raises ValueError."""
    require_values({role: shape for role, shape in shapes.items() if role in SUFFIXES.values()})
    if blocks[-1] != blocks[-2]:
        raise ValueError(f"its blocks are {list(blocks)}, but rotations are square")
    rows = blocks[-3] * blocks[-1]
    rescale = shapes.get("rescale")
    if rescale is not None and (not rescale or rescale[0] != rows or any(size != 1 for size in rescale[1:])):
        raise ValueError(f"its rescale is {list(rescale)}, but its blocks {list(blocks)} have {rows} rows")
    return rows


def _is_diagonal(shapes: Shapes) -> bool:
    return len(shapes["oft_blocks"]) == 3


def _rank(shapes: Shapes) -> int:
    require_blocks(shapes["oft_blocks"], shapes)
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    return (require_blocks(shapes["oft_blocks"], shapes), ANY)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `rescale * R.T @ W - W` with R the Cayley transform of every block, as `[out, in * kernel]`."""
    assert base is not None
    blocks = factors["oft_blocks"]
    count, size, _ = blocks.shape
    rows = count * size
    if base.shape[0] != rows:
        raise ValueError(f"its blocks {list(blocks.shape)} have {rows} rows, the weight is {list(base.shape)}")
    skews = constrained(blocks, settings.get(ALPHA, 0.0) * rows)
    weight = base.to(blocks.dtype).reshape(count, size, -1)
    delta = (cayley_turn(-skews) @ weight).reshape(rows, -1)
    if "rescale" in factors:
        rescale = factors["rescale"].reshape(rows, 1)
        delta.mul_(rescale).addcmul_(rescale - 1, weight.reshape(rows, -1))
    return delta


DIAG_OFT = Kind(
    "diag-oft",
    SUFFIXES,
    frozenset({"oft_blocks"}),
    _delta_shape,
    _delta,
    _rank,
    scale=unscaled,
    when=_is_diagonal,
    optional=frozenset({"rescale"}),
    needs_base=True,
)
