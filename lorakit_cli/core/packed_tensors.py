"""Weights of a quantized component by the names that they have when it is loaded, where one number stands for one."""

from collections.abc import Mapping
from typing import TypeVar

from lorakit_cli.core.tensor_info import TensorInfo

# What a component's configuration says about its packing under.
QUANTIZED = "quantization_config"
T = TypeVar("T", bound=tuple[TensorInfo, object])
# What quanto and torchao store a weight's whole numbers under; their scales lie beside them.
_ENDS = {".weight._data": ".weight", "._weight_qdata": ".weight"}
# One byte for each value, so that the shape is the weight's.
_WHOLE = frozenset({"I8", "F8_E4M3", "F8_E5M2"})


def under_live_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """Call packed weights that keep the shape of the weight by its name; all else keeps its own."""
    return {_name(name, tensor[0]): tensor for name, tensor in tensors.items()}


def _name(name: str, info: TensorInfo) -> str:
    end = next((end for end in _ENDS if name.endswith(end)), None)
    if end is None or info.dtype not in _WHOLE:
        return name
    return name.removesuffix(end) + _ENDS[end]
