"""DoRA: another algorithm gives the direction of the weight, a stored magnitude the length of its rows or columns.

Liu et al., 2024, arXiv:2402.09353. `W' = m * V / norm(V)` with `V = W + delta`, the norm over all dimensions but the
one m runs along. https://github.com/huggingface/peft/blob/main/src/peft/tuners/lora/dora.py,
https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/functional/general.py, `weight_decompose`, and
https://github.com/Nerogar/OneTrainer/blob/master/modules/module/LoRAModule.py, `DoRAModule`.

No epsilon is added to the norm: PEFT adds none, OneTrainer on request, and LyCORIS's machine epsilon is below what is
rounded. A row or column of V without length has no direction and stays zero.
"""

import math
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes
from lorakit_cli.kinds.loha import LOHA, LOHA_TUCKER
from lorakit_cli.kinds.lokr import LOKR
from lorakit_cli.kinds.lora import LORA
from lorakit_cli.kinds.tucker import LORA_TUCKER

if TYPE_CHECKING:
    from torch import Tensor

# LyCORIS, kohya and OneTrainer: the shape says which axis.
_MAGNITUDE = "magnitude"
# PEFT and ai-toolkit: always one value per row, whatever the shape.
_ROW_MAGNITUDE = "row_magnitude"

_SUFFIXES = {
    "dora_scale": _MAGNITUDE,
    "lora_magnitude_vector": _ROW_MAGNITUDE,
    "lora_magnitude_vector.weight": _ROW_MAGNITUDE,
    "magnitude": _ROW_MAGNITUDE,
}


def is_by_row(role: str, magnitude: Shape, rows: int, columns: int) -> bool:
    """Say whether a magnitude has one value per row of the weight, not one per column.

    `[rows]`, `[rows, 1, ...]` and PEFT's convolution `[1, rows, 1, 1]` are by row, `[1, columns, 1, ...]` by column.
    Ambiguous is only `[1, n, 1, 1]` for n rows and n columns: PEFT's own name for it says by row; under the name of
    LyCORIS and OneTrainer it is by column, as both write it.
    Raises ValueError.
    """
    values = math.prod(magnitude)
    if role == _ROW_MAGNITUDE or len(magnitude) == 1 or magnitude[0] != 1:
        by_row = values == rows and (role == _ROW_MAGNITUDE or magnitude[0] == rows)
    elif values == magnitude[1] == columns:
        return False
    else:
        by_row = values == rows
    if not by_row:
        raise ValueError(f"its magnitude is {list(magnitude)}, but the weight has {rows} rows and {columns} columns")
    return True


def _magnitude_role(shapes: Shapes) -> str | None:
    roles = shapes.keys() & {_MAGNITUDE, _ROW_MAGNITUDE}
    return roles.pop() if len(roles) == 1 else None


def with_magnitude(direction: Kind, name: str) -> Kind:
    """Give the kind whose direction is that of another kind, its length of a stored magnitude."""

    def when(shapes: Shapes) -> bool:
        return _magnitude_role(shapes) is not None and direction.when(shapes)

    def rank(shapes: Shapes) -> int:
        found = direction.rank(shapes)
        role = _magnitude_role(shapes)
        assert role is not None
        magnitude = shapes[role]
        if not magnitude or 0 in magnitude:
            raise ValueError(f"its magnitude is {list(magnitude)}, which holds no values")
        rows, columns, *kernel = direction.delta_shape(shapes)
        values = math.prod(magnitude)
        # A flattened kernel may be part of the columns: what divides them may be their number.
        is_by_row(role, magnitude, rows, columns if kernel or columns % values else values)
        return found

    def delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
        assert base is not None
        changed = direction.delta(factors, scale, base, settings).reshape(base.shape).add_(base)
        role = _MAGNITUDE if _MAGNITUDE in factors else _ROW_MAGNITUDE
        return _with_length(changed, role, factors[role]).sub_(base)

    return direction._replace(
        name=name,
        suffixes={**direction.suffixes, **_SUFFIXES},
        when=when,
        rank=rank,
        delta=delta,
        optional=direction.optional | {_MAGNITUDE, _ROW_MAGNITUDE},
        needs_base=True,
        # A magnitude along the columns takes all rows.
        by_row=frozenset(),
        product=None,
        thin=None,
    )


def _with_length(changed: "Tensor", role: str, magnitude: "Tensor") -> "Tensor":
    """Bring every row or column of `changed` to the length in `magnitude`, in place."""
    import torch

    rows, columns = changed.shape[:2]
    if is_by_row(role, tuple(magnitude.shape), rows, columns):
        length = torch.linalg.vector_norm(changed.flatten(1), dim=1).reshape(-1, *[1] * (changed.ndim - 1))
    else:
        across = [dimension for dimension in range(changed.ndim) if dimension != 1]
        # A norm down the columns adds one value after the other and loses digits; a sum does not.
        length = changed.square().sum(dim=across, keepdim=True).sqrt_()
    factor = magnitude.reshape(length.shape) / length
    return changed.mul_(factor.masked_fill_(length == 0, 0))


DORA = with_magnitude(LORA, "dora")
DORA_TUCKER = with_magnitude(LORA_TUCKER, "dora-tucker")
DORA_LOHA = with_magnitude(LOHA, "dora-loha")
DORA_LOHA_TUCKER = with_magnitude(LOHA_TUCKER, "dora-loha-tucker")
DORA_LOKR = with_magnitude(LOKR, "dora-lokr")
