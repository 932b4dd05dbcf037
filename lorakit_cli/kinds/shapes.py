"""What algorithms demand of the shapes of their factors, in words for the person who has the file."""

import math

from lorakit_cli.core.kind import Shape, Shapes


def require_values(shapes: Shapes) -> None:
    """Refuse a factor without values: rank 0, or another dimension of size 0. Raises ValueError."""
    for role, shape in shapes.items():
        if 0 in shape:
            raise ValueError(f"its {role} is {list(shape)}, which holds no values")


def flat(shape: Shape) -> tuple[int, int]:
    """Give the shape of the matrix a factor stands for: all but its first dimension taken together."""
    return shape[0], math.prod(shape[1:])


def require_matrix(role: str, shape: Shape) -> None:
    """Refuse a factor that is no matrix, written with trailing ones or without. Raises ValueError."""
    if len(shape) < 2 or math.prod(shape[2:]) != 1:
        raise ValueError(f"its {role} is {list(shape)}, which is no matrix")


def require_same_rank(**ranks: tuple[int, Shape]) -> int:
    """Give the rank that every factor has, or raise ValueError with all shapes; from role=(rank, shape)."""
    found = {rank for rank, _ in ranks.values()}
    if len(found) > 1:
        listed = ", ".join(f"{role} is {list(shape)}" for role, (_, shape) in ranks.items())
        raise ValueError(f"its ranks differ: {listed}")
    return found.pop()
