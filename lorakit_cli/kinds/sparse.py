"""Sparse differences: the few values that an extracted adapter's low rank leaves out, with their places.

https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/utils/__init__.py (`use_bias`) writes them beside a LoRA;
they are added to its product and scaled with it. The name says bias, but they belong to the weight.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import ANY, Factors, Kind, Settings, Shape, Shapes, unscaled

if TYPE_CHECKING:
    from torch import Tensor


def _rank(shapes: Shapes) -> int:
    indices, values, size = (shapes[role] for role in ("sparse_indices", "sparse_values", "sparse_size"))
    if len(indices) != 2 or values != indices[1:] or size != indices[:1]:
        raise ValueError(
            f"its indices are {list(indices)}, its values {list(values)} and its size {list(size)}, but must be "
            "[dimensions, n], [n] and [dimensions]"
        )
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    return (ANY,) * shapes["sparse_indices"][0]


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give zeros of the stored size with `scale * values` at their places. Raises ValueError for a place outside."""
    import torch

    size = [int(length) for length in factors["sparse_size"].tolist()]
    indices, values = factors["sparse_indices"].long(), factors["sparse_values"] * scale
    try:
        return torch.sparse_coo_tensor(indices, values, size, check_invariants=True).to_dense()
    except RuntimeError as error:
        raise ValueError(f"its sparse values lie outside a tensor of size {size}") from error


SPARSE = Kind(
    "sparse",
    {"bias_indices": "sparse_indices", "bias_values": "sparse_values", "bias_size": "sparse_size"},
    frozenset({"sparse_indices", "sparse_values", "sparse_size"}),
    _delta_shape,
    _delta,
    _rank,
    unscaled,
    shares_scale=True,
    whole_numbers=frozenset({"sparse_indices", "sparse_size"}),
)
