"""A layer of two factors under its new name, at scale 1, which also readers that ignore alphas give it."""

import struct
from collections.abc import Sequence

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.kind import ALPHA
from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.core.new_layer import NewLayer, Place
from lorakit_cli.core.new_tensor import Computed, NewTensor, Piece

_LORA = "lora"
_UNET = "unet"


def read_alike(layers: Sequence[NewLayer], base: BaseIndex, *, differ: bool = False) -> tuple[NewLayer, ...]:
    """Give layers such that every program gives them scale 1, whatever their ranks.

    diffusers loses alphas that differ from layer to layer in a UNet and in text encoders beside it. Without any alpha
    all programs take the rank for it. `differ`: ranks are taken to differ even if they do not.
    """
    ranks = {layer.rank for layer in layers if layer.rank}
    if _UNET not in base.components or len(ranks) < 2 - differ or any(layer.scale != 1 for layer in layers):
        return tuple(layers)
    return tuple(
        layer._replace(tensors=tuple(tensor for tensor in layer.tensors if not tensor.name.endswith(f".{ALPHA}")))
        for layer in layers
    )


def factored_layer(
    place: Place, rank: int, dtype: str, up: Piece | Computed, down: Piece | Computed, sources: Sequence[LoraLayer]
) -> NewLayer:
    """Write the factors of a module, given as bytes of a dtype; an alpha, where the layout has one, is the rank."""
    rows, *columns = place.shape
    tensors = [
        NewTensor(place.tensor_name("down"), dtype, (rank, *columns), (down,)),
        NewTensor(place.tensor_name("up"), dtype, (rows, rank, *(1 for _ in columns[1:])), (up,)),
    ]
    if place.target.alpha:
        tensors.append(NewTensor(f"{place.stem}.{ALPHA}", "F32", (), (struct.pack("<f", rank),)))
    return NewLayer(place.stem, place.component, place.name, _LORA, rank, 1.0, tuple(tensors), tuple(sources))
