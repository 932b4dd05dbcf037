"""Tucker factors: a small core between two matrices, for convolutions.

Yeh et al., 2023, arXiv:2309.14859 (appendix B);
https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/functional/general.py, `rebuild_tucker`.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes, Thin
from lorakit_cli.kinds.lora import SUFFIXES
from lorakit_cli.kinds.norms import lora_norm
from lorakit_cli.kinds.shapes import require_matrix, require_same_rank, require_values

if TYPE_CHECKING:
    from torch import Tensor


def rebuild(core: "Tensor", left: "Tensor", right: "Tensor") -> "Tensor":
    """Give `sum over m, n of left[o, m] * core[m, n, ...] * right[n, i]`, as `[out, in * kernel]`.

    `core` is `[m, n, *kernel]`, `left` `[out, m]`, `right` `[n, in]`.
    """
    import torch

    inner = torch.einsum("mnk,ni->mik", core.flatten(2), right)
    return left @ inner.flatten(1)


def core_rank(role: str, core: Shape) -> int:
    """Give the rank of a core `[rank, rank, *kernel]`. Raises ValueError."""
    if not 3 <= len(core) <= 5 or core[0] != core[1]:
        raise ValueError(f"its {role} is {list(core)}, but must be [rank, rank, *kernel]")
    return core[0]


def _rank(shapes: Shapes) -> int:
    down, mid, up = shapes["down"], shapes["mid"], shapes["up"]
    require_matrix("down", down)
    require_matrix("up", up)
    rank = require_same_rank(down=(down[0], down), mid=(core_rank("mid", mid), mid), up=(up[1], up))
    require_values({"down": down, "mid": mid, "up": up})
    return rank


def _delta_shape(shapes: Shapes) -> Shape:
    return (shapes["up"][0], shapes["down"][1], *shapes["mid"][2:])


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale * up x mid x down`, the one convolution that the three of them are."""
    return rebuild(factors["mid"], factors["up"].flatten(1) * scale, factors["down"].flatten(1))


def _inner(shapes: Shapes) -> int:
    return shapes["up"][1]


def _thin(factors: Factors, scale: float) -> tuple["Tensor", "Tensor"]:
    """Give `scale * up` and the convolution that mid and down are together."""
    import torch

    inner = torch.einsum("mnk,ni->mik", factors["mid"].flatten(2), factors["down"].flatten(1))
    return factors["up"].flatten(1) * scale, inner.flatten(1)


LORA_TUCKER = Kind(
    "lora-tucker",
    SUFFIXES | {"lora_mid.weight": "mid"},
    frozenset({"down", "mid", "up"}),
    _delta_shape,
    _delta,
    _rank,
    norm=lora_norm,
    thin=Thin(_inner, _thin),
)
