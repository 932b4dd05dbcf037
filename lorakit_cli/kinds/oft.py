"""OFT as PEFT and OneTrainer write it: blocks of input columns are rotated among themselves.

Qiu et al., 2023, arXiv:2306.07280, and Qiu et al., 2025 (the Cayley-Neumann series), arXiv:2506.19847;
https://github.com/huggingface/peft/blob/main/src/peft/tuners/oft/layer.py and
https://github.com/Nerogar/OneTrainer/blob/master/modules/module/LoRAModule.py, `OFTModule`. A rotation is stored as
the upper triangle of its skew matrix.

The file does not say how it was trained, PEFT's configuration does. Where NEUMANN_TERMS is not among the settings, the
file is taken for OneTrainer's, which has always used five terms. Both rotate the input of a linear layer by R, which is
`W @ R.T`; for a convolution OneTrainer rotates the weight itself, `W @ R`. PEFT's forward pass through a kernel above
1x1 adds up overlapping patches: no change of the weight does that, so it is refused.
"""

import math
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import ANY, Factors, Kind, Settings, Shape, Shapes, unscaled
from lorakit_cli.kinds.rotations import cayley_turn, limited, neumann_turn, skew
from lorakit_cli.kinds.shapes import require_values

if TYPE_CHECKING:
    from torch import Tensor

# The number of terms of PEFT's series; 0 for its exact transform (which rotates the other way).
NEUMANN_TERMS = "neumann_terms"
# 1 if the last term counts as every other: PEFT before 0.18.
NEUMANN_FULL_TAIL = "neumann_full_tail"
# PEFT's and the first OneTrainer's COFT: the bound of the skew matrices.
COFT_EPS = "coft_eps"

_ONE_TRAINER_TERMS = 5


def _block_size(shapes: Shapes) -> int:
    packed = shapes["oft_R"]
    require_values({"oft_R": packed})
    size = (1 + math.isqrt(1 + 8 * packed[1])) // 2 if len(packed) == 2 else 0
    if not size or size * (size - 1) // 2 != packed[1]:
        raise ValueError(f"its oft_R is {list(packed)}, but must be [blocks, n * (n - 1) / 2]")
    return size


def _rank(shapes: Shapes) -> int:
    _block_size(shapes)
    return 0


def _delta_shape(shapes: Shapes) -> Shape:
    blocks, size = shapes["oft_R"][0], _block_size(shapes)
    # One block may be shared by all columns.
    return (ANY, ANY if blocks == 1 else blocks * size)


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `W @ blockdiag(R).T - W` (for OneTrainer's convolutions `W @ blockdiag(R) - W`) as `[out, in * kernel]`."""
    assert base is not None
    packed = factors["oft_R"]
    size = _block_size({"oft_R": tuple(packed.shape)})
    weight = base.to(packed.dtype).flatten(1)
    rows, columns = weight.shape
    if columns % size or packed.shape[0] not in (1, columns // size):
        raise ValueError(f"its {packed.shape[0]} blocks of {size} columns do not fit a weight {list(base.shape)}")
    if "oft_scaled" in factors:
        packed = packed / (2 * math.sqrt(size - 1))
    turn = _turn(_unpacked(packed, size), settings)
    if base.ndim == 2 or NEUMANN_TERMS in settings:
        if math.prod(base.shape[2:]) != 1:
            raise ValueError("PEFT's OFT of a convolution with a kernel is no change of its weight")
        turn = turn.mT
    blocks = weight.reshape(rows, -1, size).transpose(0, 1)
    return (blocks @ turn).transpose(0, 1).reshape(rows, columns)


def _unpacked(packed: "Tensor", size: int) -> "Tensor":
    """Give the skew matrices `[blocks, n, n]` whose upper triangles, row by row, are `[blocks, n * (n - 1) / 2]`."""
    import torch

    row, column = torch.triu_indices(size, size, 1, device=packed.device)
    upper = packed.new_zeros(packed.shape[0], size, size)
    upper[:, row, column] = packed
    return skew(upper)


def _turn(skews: "Tensor", settings: Settings) -> "Tensor":
    """Give `R - I` of every block."""
    bound = settings.get(COFT_EPS, 0.0) / math.sqrt(skews.shape[0])
    if bound > 0:
        skews = limited(skews, skews.norm(dim=(1, 2), keepdim=True), bound)
    terms = int(settings.get(NEUMANN_TERMS, _ONE_TRAINER_TERMS))
    if terms:
        return neumann_turn(skews, terms, full_tail=bool(settings.get(NEUMANN_FULL_TAIL, 0.0)))
    return cayley_turn(-skews)


OFT = Kind(
    "oft",
    {"oft_R.weight": "oft_R", "oft_R.scaled_oft": "oft_scaled"},
    frozenset({"oft_R"}),
    _delta_shape,
    _delta,
    _rank,
    scale=unscaled,
    optional=frozenset({"oft_scaled"}),
    whole_numbers=frozenset({"oft_scaled"}),
    needs_base=True,
)
