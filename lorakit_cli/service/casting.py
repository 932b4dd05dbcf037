"""Store a converted adapter in another dtype, each value rounded once, and say how much that changes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorakit_cli.core.kind import ALPHA
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.new_tensor import Computed, NewTensor, flat
from lorakit_cli.core.source import Source
from lorakit_cli.core.tensor_info import FLOATS
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service.dtypes import TORCH_DTYPES

_DTYPES = {"fp16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16), "fp32": ("F32", torch.float32)}


def cast(layers: Sequence[NewLayer], source: Source, dtype: str) -> tuple[tuple[NewLayer, ...], float]:
    """Give the layers in a dtype, and the largest change relative to the largest value of its tensor.

    Alpha and what is no floating number stay as they are. Raises UnsupportedError for a value that the dtype cannot
    hold.
    """
    name, wanted = _DTYPES[dtype]
    worst = 0.0
    done: list[NewLayer] = []
    for layer in layers:
        tensors: list[NewTensor] = []
        for tensor in layer.tensors:
            if tensor.name.endswith(f".{ALPHA}") or tensor.dtype not in FLOATS or tensor.dtype == name:
                tensors.append(tensor)
                continue
            worst = max(worst, _change(_values(tensor, source), wanted, tensor.name, dtype))
            tensors.append(_in(tensor, source, name, wanted))
        done.append(layer._replace(tensors=tuple(tensors)))
    return tuple(done), worst


def _change(values: Tensor, wanted: torch.dtype, name: str, dtype: str) -> float:
    wide = values.to(torch.float64)
    rounded = values.to(wanted).to(torch.float64)
    if not torch.isfinite(rounded).all():
        raise UnsupportedError(f"{name} has values that {dtype} cannot hold; choose bf16 or fp32")
    largest = wide.abs().max()
    return float((rounded - wide).abs().max() / largest) if largest else 0.0


def _in(tensor: NewTensor, source: Source, name: str, wanted: torch.dtype) -> NewTensor:
    def compute() -> bytes:
        return _values(tensor, source).to(wanted).contiguous().view(torch.uint8).numpy().tobytes()

    count = 1
    for size in tensor.shape:
        count *= size
    return tensor._replace(dtype=name, pieces=(Computed(count * wanted.itemsize, compute),))


def _values(tensor: NewTensor, source: Source) -> Tensor:
    """Read the values of a tensor, flat."""
    data = bytearray()
    for piece in flat(tensor.pieces):
        data += piece if isinstance(piece, bytes) else source.view[piece[0] : piece[1]]
    dtype = TORCH_DTYPES[tensor.dtype]
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
