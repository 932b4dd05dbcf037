"""What `convert` wrote, as a report."""

from typing import NamedTuple


class Approximated(NamedTuple):
    """A layer that became a LoRA: of what algorithm it was, its rank, and the relative Frobenius error of its delta."""

    layer: str
    algorithm: str
    rank: int
    error: float


class ConvertReport(NamedTuple):
    """What was written.

    `exact`: every delta is the same to the last bit; otherwise `error` is the largest change of a value by a dtype,
    relative to the largest value of its tensor. `left_out` are keys of the input that are no part of its change.
    """

    source: str
    out: str
    architecture: str
    dialect: str
    layout: str
    layers: int
    written: int
    split: int
    joined: int
    tensors: int
    size: int
    dtype: str | None
    exact: bool
    error: float | None
    approximated: tuple[Approximated, ...]
    left_out: tuple[str, ...]
