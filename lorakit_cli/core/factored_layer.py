"""A layer of two factors under its new name, at scale 1, which also readers that ignore alphas give it."""

import struct
from collections.abc import Sequence

from lorakit_cli.core.kind import ALPHA
from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.core.new_layer import NewLayer, Place
from lorakit_cli.core.new_tensor import Computed, NewTensor, Piece

_LORA = "lora"


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
