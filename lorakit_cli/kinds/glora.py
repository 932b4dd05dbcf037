"""GLoRA: a low-rank change, and another that depends on the weight it changes.

Chavan et al., 2023, arXiv:2306.07967. LyCORIS writes (a1: `[in, rank]`, a2: `[rank, in]`, b1: `[out, rank]`,
b2: `[rank, in, *kernel]`), https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/modules/glora.py. Its first
version, which A1111 reads, had all four the other way round:
https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/extensions-builtin/Lora/network_glora.py.
"""

import math
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes
from lorakit_cli.kinds.shapes import require_matrix, require_same_rank, require_values

if TYPE_CHECKING:
    from torch import Tensor

_ROLES = ("a1", "a2", "b1", "b2")
_SUFFIXES = {f"{role}.weight": role for role in _ROLES}
# The same parts by what they do: W changes by W @ in_down @ in_up + up @ down.
_NEW = {"in_down": "a1", "in_up": "a2", "up": "b1", "down": "b2"}
_OLD = {"in_down": "a2", "in_up": "a1", "up": "b2", "down": "b1"}


def _fits(shapes: Shapes, layout: dict[str, str]) -> bool:
    in_down, in_up, up, down = (shapes[role] for role in layout.values())
    if min(map(len, (in_down, in_up, up, down))) < 2 or any(math.prod(part[2:]) != 1 for part in (in_down, in_up, up)):
        return False
    return in_down[1] == in_up[0] == up[1] == down[0] and in_down[0] == in_up[1] == down[1]


def _is_old(shapes: Shapes) -> bool:
    """Say whether the shapes are of the old layout.

    A square layer of n columns and rank r has the shapes, in the other layout, of one of r columns and rank n. A rank
    above the number of columns makes no sense, so the smaller one is the rank.
    """
    if not _fits(shapes, _OLD):
        return False
    return not _fits(shapes, _NEW) or shapes["a1"][1] > shapes["a1"][0]


def _rank_in(shapes: Shapes, layout: dict[str, str]) -> int:
    for role in _ROLES:
        if len(shapes[role]) < 2:
            raise ValueError(f"its {role} is {list(shapes[role])}, which is no matrix")
    parts = {part: shapes[role] for part, role in layout.items()}
    if _fits(shapes, _OLD) and _fits(shapes, _NEW) and shapes["a1"][0] == shapes["a1"][1]:
        raise ValueError(
            f"its factors are all {list(shapes['a1'])}, which is ambiguous: LyCORIS's layout and its older one both "
            "fit, and mean different changes"
        )
    for part in ("in_down", "in_up", "up"):
        require_matrix(layout[part], parts[part])
    rank = require_same_rank(
        **{layout[part]: (parts[part][1], parts[part]) for part in ("in_down", "up")},
        **{layout[part]: (parts[part][0], parts[part]) for part in ("in_up", "down")},
    )
    columns = parts["in_down"][0], parts["in_up"][1], parts["down"][1]
    if len(set(columns)) > 1:
        listed = ", ".join(f"{role} is {list(shapes[role])}" for role in (layout["in_down"], layout["down"]))
        raise ValueError(f"its factors are for different numbers of columns: {listed}")
    require_values({role: shapes[role] for role in _ROLES})
    return rank


def _shape_in(shapes: Shapes, layout: dict[str, str]) -> Shape:
    return (shapes[layout["up"]][0], *shapes[layout["down"]][1:])


def _delta_in(factors: Factors, scale: float, base: "Tensor | None", layout: dict[str, str]) -> "Tensor":
    """Give `scale * (W @ in_down @ in_up + up @ down)`; of a convolution, W's input channels meet the factors."""
    assert base is not None
    in_down, in_up, up, down = (factors[role].flatten(1) for role in layout.values())
    delta = (up * scale) @ down
    if delta.shape != base.flatten(1).shape or base.shape[1] != in_down.shape[0]:
        raise ValueError(f"its factors are for {list(delta.shape)}, the weight is {list(base.shape)}")
    delta = delta.reshape(base.shape)
    by_channel = base.to(delta.dtype).movedim(1, -1)
    return delta.add_(((by_channel @ in_down) @ (in_up * scale)).movedim(-1, 1))


def _old_rank(shapes: Shapes) -> int:
    return _rank_in(shapes, _OLD)


def _old_delta_shape(shapes: Shapes) -> Shape:
    return _shape_in(shapes, _OLD)


def _old_delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    return _delta_in(factors, scale, base, _OLD)


def _rank(shapes: Shapes) -> int:
    return _rank_in(shapes, _NEW)


def _delta_shape(shapes: Shapes) -> Shape:
    return _shape_in(shapes, _NEW)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    return _delta_in(factors, scale, base, _NEW)


GLORA_OLD = Kind(
    "glora-old",
    _SUFFIXES,
    frozenset(_ROLES),
    _old_delta_shape,
    _old_delta,
    _old_rank,
    when=_is_old,
    needs_base=True,
)

GLORA = Kind("glora", _SUFFIXES, frozenset(_ROLES), _delta_shape, _delta, _rank, needs_base=True)
