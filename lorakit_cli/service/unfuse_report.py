"""What came of undoing a fused pipeline."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorBound:
    """How far from the base's any value can be at most, after adapters were subtracted.

    A value was rounded when it was fused and is rounded now, each time by half a unit in its last place; `at_fusing`
    and `now` are the largest of these halves, `absolute` the most that the two come to in one tensor. `relative` is
    the most in terms of the largest value of a tensor, which is `tensor`.
    """

    absolute: float
    relative: float
    tensor: str
    at_fusing: float
    now: float


@dataclass(frozen=True, slots=True)
class UnfuseReport:
    """A base without its adapters; `exact`: it is the recorded base to the last bit, else `error_bound` says how near.

    `base` is where the base was found, or where the recipe says it was.
    """

    source: str
    out: str
    base: str
    exact: bool
    adapters: tuple[str, ...]
    files: int
    size: int
    error_bound: ErrorBound | None
    seconds: float
    warnings: tuple[str, ...]
