"""How large an adapter's delta is, from its factors: the Frobenius norm, in fp64, mostly without the delta itself.

`||up @ down||^2 = trace((up^T up)(down down^T))`: two rank x rank Gram matrices stand for an out x in product. What the
sum loses to cancellation is below 1e-7 of `||up|| ||down||`, far less than a delta of any use amounts to.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors

if TYPE_CHECKING:
    from torch import Tensor

# Values that are widened to fp64 at a time: 2 MB, which stay in a processor's cache.
_AT_ONCE = 1 << 18


def lora_norm(factors: Factors, scale: float) -> "Tensor":
    """Give `|scale| ||up @ down||` of a LoRA, linear or convolution, or with `mid` of its Tucker form.

    `up` is `[out, rank]`, `down` `[rank, in, *kernel]`, `mid` `[rank, rank, *kernel]`; trailing ones do no harm.
    """
    up, down = factors["up"].flatten(1), factors["down"].flatten(1)
    return abs(scale) * product_norm(up, down, factors.get("mid"))


def loha_norm(factors: Factors, scale: float) -> "Tensor":
    """Give `|scale| ||(w1_a @ w1_b) * (w2_a @ w2_b)||` of a LoHa, plain or Tucker (`hada_t1`, `hada_t2`).

    The elementwise product of two matrices of rank r and s is one of rank r s, whose factors are the Khatri-Rao
    products of theirs (Hyeon-Woo et al., 2021, arXiv:2108.06098); where r s is large, rows of the product are cheaper.
    """
    (a, b), (c, d) = _hada(factors, "1"), _hada(factors, "2")
    rank = a.shape[1] * c.shape[1]
    if rank * rank * (a.shape[0] + b.shape[1]) <= a.shape[0] * b.shape[1] * (a.shape[1] + c.shape[1]):
        up = (a.unsqueeze(2) * c.unsqueeze(1)).flatten(1)
        down = (b.unsqueeze(1) * d.unsqueeze(0)).flatten(0, 1)
        return abs(scale) * product_norm(up, down)
    rows = max(_AT_ONCE // b.shape[1], 1)
    starts = range(0, a.shape[0], rows)
    pieces = ((a[start : start + rows] @ b) * (c[start : start + rows] @ d) for start in starts)
    return abs(scale) * _sum(frobenius(piece).square() for piece in pieces).sqrt()


def lokr_norm(factors: Factors, scale: float) -> "Tensor":
    """Give `|scale| ||kron(w1, w2)|| = |scale| ||w1|| ||w2||` of a LoKr, each side whole, a product or Tucker."""
    return abs(scale) * _lokr_side(factors, "lokr_w1") * _lokr_side(factors, "lokr_w2")


def only_norm(factors: Factors, scale: float) -> "Tensor":
    """Give `|scale| ||tensor||` where the one tensor of a layer is its delta: full, norm, bias."""
    (tensor,) = factors.values()
    return abs(scale) * frobenius(tensor)


def product_norm(up: "Tensor", down: "Tensor", mid: "Tensor | None" = None) -> "Tensor":
    """Give `||up @ down||` of `[out, r]` and `[s, in]`, with `mid` `[r, s, *kernel]` multiplied in between (Tucker)."""
    up, down = up.double(), down.double()
    ups, downs = up.T @ up, down @ down.T
    if mid is None:
        squared = (ups * downs).sum()
    else:
        core = mid.double().flatten(2)
        squared = ((downs @ (ups @ core.flatten(1)).reshape(core.shape)) * core).sum()
    # Of a product that is zero, rounding may leave less than nothing.
    return squared.clamp_min(0).sqrt()


def frobenius(tensor: "Tensor") -> "Tensor":
    """Give the norm of a tensor of any dtype, in fp64 but never with all of it widened."""
    flat = tensor.reshape(-1)
    pieces = (flat[start : start + _AT_ONCE].double() for start in range(0, max(len(flat), 1), _AT_ONCE))
    return _sum(piece.dot(piece) for piece in pieces).sqrt()


def _hada(factors: Factors, side: str) -> "tuple[Tensor, Tensor]":
    """Give one side of a LoHa as `[out, rank] @ [rank, in * kernel]`; in Tucker form `a` lies transposed."""
    a, b = factors[f"hada_w{side}_a"].double().flatten(1), factors[f"hada_w{side}_b"].double().flatten(1)
    core = factors.get(f"hada_t{side}")
    return (a, b) if core is None else (a.T, (b.T @ core.double().flatten(2)).flatten(1))


def _lokr_side(factors: Factors, side: str) -> "Tensor":
    if side in factors:
        return frobenius(factors[side])
    a, b = factors[f"{side}_a"].flatten(1), factors[f"{side}_b"].flatten(1)
    core = factors.get(side.replace("w", "t"))
    return product_norm(a, b) if core is None else product_norm(a.T, b, core)


def _sum(pieces: Iterable["Tensor"]) -> "Tensor":
    first, *rest = pieces
    for piece in rest:
        first = first + piece
    return first
