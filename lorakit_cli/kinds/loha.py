"""LoHa: two low-rank products, multiplied element by element; for convolutions also with Tucker cores.

Hyeon-Woo et al., 2022 (FedPara), arXiv:2108.06098; Yeh et al., 2023, arXiv:2309.14859;
https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/functional/loha.py. PEFT writes the same names and shapes,
OneTrainer convolution factors as `[out, rank, 1, 1]` and `[rank, in, *kernel]`.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes, Thin
from lorakit_cli.kinds.norms import loha_norm
from lorakit_cli.kinds.shapes import flat, require_matrix, require_same_rank, require_values
from lorakit_cli.kinds.tucker import core_rank, rebuild

if TYPE_CHECKING:
    from torch import Tensor

_FACTORS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_CORES = ("hada_t1", "hada_t2")


def _rank(shapes: Shapes) -> int:
    for role in ("hada_w1_a", "hada_w2_a"):
        require_matrix(role, shapes[role])
    first, second = (_product_shape(shapes, number) for number in "12")
    rank = require_same_rank(
        hada_w1_a=(shapes["hada_w1_a"][1], shapes["hada_w1_a"]),
        hada_w1_b=(shapes["hada_w1_b"][0], shapes["hada_w1_b"]),
        hada_w2_a=(shapes["hada_w2_a"][1], shapes["hada_w2_a"]),
        hada_w2_b=(shapes["hada_w2_b"][0], shapes["hada_w2_b"]),
    )
    if flat(first) != flat(second):
        raise ValueError(f"its products differ in shape: {list(first)} and {list(second)}")
    require_values({role: shapes[role] for role in _FACTORS})
    return rank


def _product_shape(shapes: Shapes, number: str) -> Shape:
    left, right = shapes[f"hada_w{number}_a"], shapes[f"hada_w{number}_b"]
    if len(right) < 2:
        raise ValueError(f"its hada_w{number}_b is {list(right)}, which is no matrix")
    return (left[0], *right[1:])


def _delta_shape(shapes: Shapes) -> Shape:
    return _product_shape(shapes, "1")


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale * (w1_a @ w1_b) * (w2_a @ w2_b)` as `[out, in * kernel]`."""
    w1_a, w1_b, w2_a, w2_b = (factors[role].flatten(1) for role in _FACTORS)
    return ((w1_a * scale) @ w1_b).mul_(w2_a @ w2_b)


def _tucker_rank(shapes: Shapes) -> int:
    for role in _FACTORS:
        require_matrix(role, shapes[role])
    rank = require_same_rank(
        **{role: (shapes[role][0], shapes[role]) for role in _FACTORS},
        **{role: (core_rank(role, shapes[role]), shapes[role]) for role in _CORES},
    )
    first, second = (_tucker_shape(shapes, number) for number in "12")
    if first != second:
        raise ValueError(f"its products differ in shape: {list(first)} and {list(second)}")
    require_values({role: shapes[role] for role in (*_FACTORS, *_CORES)})
    return rank


def _tucker_shape(shapes: Shapes, number: str) -> Shape:
    left, right, core = (shapes[role] for role in (f"hada_w{number}_a", f"hada_w{number}_b", f"hada_t{number}"))
    return (left[1], right[1], *core[2:])


def _tucker_delta_shape(shapes: Shapes) -> Shape:
    return _tucker_shape(shapes, "1")


def _tucker_delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale` times the product of both Tucker rebuilds; their `w_a` is `[rank, out]`, `w_b` `[rank, in]`."""
    w1_a, w1_b, w2_a, w2_b = (factors[role].flatten(1) for role in _FACTORS)
    first = rebuild(factors["hada_t1"], w1_a.T * scale, w1_b)
    return first.mul_(rebuild(factors["hada_t2"], w2_a.T, w2_b))


def _inner(shapes: Shapes) -> int:
    return shapes["hada_w1_a"][1] * shapes["hada_w2_a"][1]


def _thin(factors: Factors, scale: float) -> tuple["Tensor", "Tensor"]:
    """Give the Khatri-Rao products of both left and both right factors: of rank r each, a product of rank r * r.

    Hyeon-Woo et al., 2021, arXiv:2108.06098, proposition 1.
    """
    w1_a, w1_b, w2_a, w2_b = (factors[role].flatten(1) for role in _FACTORS)
    left = ((w1_a * scale).unsqueeze(2) * w2_a.unsqueeze(1)).flatten(1)
    return left, (w1_b.unsqueeze(1) * w2_b.unsqueeze(0)).flatten(0, 1)


LOHA = Kind(
    "loha",
    {role: role for role in _FACTORS},
    frozenset(_FACTORS),
    _delta_shape,
    _delta,
    _rank,
    norm=loha_norm,
    by_row=frozenset({"hada_w1_a", "hada_w2_a"}),
    thin=Thin(_inner, _thin),
)

LOHA_TUCKER = Kind(
    "loha-tucker",
    {role: role for role in (*_FACTORS, *_CORES)},
    frozenset((*_FACTORS, *_CORES)),
    _tucker_delta_shape,
    _tucker_delta,
    _tucker_rank,
    norm=loha_norm,
)
