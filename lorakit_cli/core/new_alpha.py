"""The alpha of a layer in a new file: the stored one as it is, else the number that gives the same scale."""

import math
import struct

from lorakit_cli.core.kind import ALPHA, alpha_over_rank, unscaled
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.new_tensor import NewTensor
from lorakit_cli.errors import UnsupportedError

# A unit in the last place of fp64: some quotients are no alpha / rank, as those of rank-stabilised adapters.
_CLOSE = 2.0**-52


def new_alpha(file: LoraFile, layer: LoraLayer, stem: str, rank: int) -> tuple[NewTensor, ...]:
    """Write a layer's alpha, for a new rank maybe, where its algorithm has one.

    Raises UnsupportedError where no alpha gives its scale.
    """
    kind = layer.kind
    stored = file.tensors.get(f"{layer.stem}.{ALPHA}")
    # That of the layer it stands beside is written there; differences have none.
    if kind.shares_scale or (kind.scale is unscaled and not kind.needs_base):
        return ()
    if stored and layer.alpha is not None and rank == layer.rank:
        if kind.scale(layer.alpha, rank, layer.shapes) == layer.scale:
            return (NewTensor(f"{stem}.{ALPHA}", stored.dtype, stored.shape, ((stored.begin, stored.end),)),)
    elif kind.scale is not alpha_over_rank and kind.scale(None, rank, layer.shapes) == layer.scale:
        return ()
    alpha = alpha_for(layer.scale, rank) if rank else 0.0
    if not same_scale(kind.scale(alpha, rank, layer.shapes), layer.scale):
        raise UnsupportedError(f"{layer.stem} is scaled by {layer.scale}, which the layout has no place for")
    (single,) = struct.unpack("<f", struct.pack("<f", alpha))
    dtype, form = ("F32", "<f") if single == alpha else ("F64", "<d")
    return (NewTensor(f"{stem}.{ALPHA}", dtype, (), (struct.pack(form, alpha),)),)


def alpha_for(scale: float, rank: int) -> float:
    """Give the alpha that a reader divides by the rank to get this scale, to the last bit where one does."""
    alpha = scale * rank
    near = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf))
    return next((value for value in near if value / rank == scale), alpha)


def same_scale(one: float, other: float) -> bool:
    """Tell whether two scales are one, but for the last bit of fp64."""
    return math.isclose(one, other, rel_tol=_CLOSE)
