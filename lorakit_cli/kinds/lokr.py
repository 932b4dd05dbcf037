"""LoKr: the Kronecker product of a small and a larger matrix, each whole or itself of low rank.

Yeh et al., 2023, arXiv:2309.14859; https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/modules/lokr.py.
Each of the two is stored whole or as a product `_a @ _b`; the second, of a convolution, also with a Tucker core. PEFT
writes the same names and shapes.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes, alpha_over_rank
from lorakit_cli.kinds.norms import lokr_norm
from lorakit_cli.kinds.shapes import require_matrix, require_same_rank, require_values
from lorakit_cli.kinds.tucker import core_rank, rebuild

if TYPE_CHECKING:
    from torch import Tensor

_ROLES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
_FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
_SECOND = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)
_WHOLE_SETS = frozenset(first | second for first in _FIRST for second in _SECOND)


def _is_whole(shapes: Shapes) -> bool:
    return shapes.keys() & set(_ROLES) in _WHOLE_SETS


def _first_shape(shapes: Shapes) -> Shape:
    if "lokr_w1" in shapes:
        return shapes["lokr_w1"]
    return (shapes["lokr_w1_a"][0], *shapes["lokr_w1_b"][1:])


def _second_shape(shapes: Shapes) -> Shape:
    if "lokr_w2" in shapes:
        return shapes["lokr_w2"]
    left, right = shapes["lokr_w2_a"], shapes["lokr_w2_b"]
    if "lokr_t2" in shapes:
        return (left[1], right[1], *shapes["lokr_t2"][2:])
    return (left[0], *right[1:])


def _rank(shapes: Shapes) -> int:
    """Give the rank of what is decomposed, 0 where both parts are whole. Raises ValueError."""
    ranks: dict[str, tuple[int, Shape]] = {}
    for role in _ROLES:
        if role not in shapes:
            continue
        shape = shapes[role]
        if len(shape) < 2:
            raise ValueError(f"its {role} is {list(shape)}, which is no matrix")
        if role == "lokr_t2":
            ranks[role] = core_rank(role, shape), shape
        elif role.endswith("_a"):
            require_matrix(role, shape)
            transposed = role == "lokr_w2_a" and "lokr_t2" in shapes
            ranks[role] = shape[0 if transposed else 1], shape
        elif role.endswith("_b"):
            ranks[role] = shape[0], shape
    require_values({role: shapes[role] for role in _ROLES if role in shapes})
    require_matrix("first part", _first_shape(shapes))
    if "lokr_t2" in shapes:
        require_matrix("lokr_w2_b", shapes["lokr_w2_b"])
    return require_same_rank(**ranks) if ranks else 0


def _delta_shape(shapes: Shapes) -> Shape:
    first, second = _first_shape(shapes), _second_shape(shapes)
    return (first[0] * second[0], first[1] * second[1], *second[2:])


def _scale(alpha: float | None, rank: int, shapes: Shapes) -> float:
    """Give alpha / rank, and 1 where both parts are whole: LyCORIS then writes an alpha without meaning."""
    return alpha_over_rank(alpha, rank, shapes) if rank else 1.0


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale * kron(w1, w2)` as `[out, in * kernel]`: every value of w1 times all of w2.

    Row `p * rows(w2) + q` and column `r * columns(w2) + s` hold `w1[p, r] * w2[q, s]`; a kernel is part of the columns
    of w2, so that the flattened product is the convolution's weight, flattened.
    """
    first, second = _first(factors) * scale, _second(factors)
    product = first[:, None, :, None] * second[None, :, None, :]
    return product.reshape(first.shape[0] * second.shape[0], -1)


def _first(factors: Factors) -> "Tensor":
    if "lokr_w1" in factors:
        return factors["lokr_w1"].flatten(1)
    return factors["lokr_w1_a"].flatten(1) @ factors["lokr_w1_b"].flatten(1)


def _second(factors: Factors) -> "Tensor":
    if "lokr_w2" in factors:
        return factors["lokr_w2"].flatten(1)
    left, right = factors["lokr_w2_a"].flatten(1), factors["lokr_w2_b"].flatten(1)
    return rebuild(factors["lokr_t2"], left.T, right) if "lokr_t2" in factors else left @ right


LOKR = Kind(
    "lokr",
    {role: role for role in _ROLES},
    frozenset(),
    _delta_shape,
    _delta,
    _rank,
    scale=_scale,
    when=_is_whole,
    optional=frozenset(_ROLES),
    norm=lokr_norm,
)
