"""What was found when an output was held against base and adapters once more."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deviation:
    """A tensor that is not what it should be: how many of the values looked at differ, by how much, and why.

    `ulps` is the largest distance in units in the last place; None where values cannot be compared.
    """

    tensor: str
    differing: int
    values: int
    ulps: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Survival:
    """The part of an adapter's change that is left after rounding: 1 if all of it is, 0 if the dtype absorbed it."""

    name: str
    part: float


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Whether an output is right.

    `tensors` counts those that were looked at, `replayed` the changed ones whose sums were made again, `values` the
    values that were compared with that. `exact`: the sums are to be equal to the last bit; where they were made on
    another kind of device, one value in a thousand may be off by one unit in the last place. `problems` are about
    files as a whole.
    """

    level: str
    sound: bool
    exact: bool
    tensors: int
    unchanged: int
    replayed: int
    values: int
    deviations: tuple[Deviation, ...]
    problems: tuple[str, ...]
    survival: tuple[Survival, ...]
    seconds: float
