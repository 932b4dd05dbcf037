"""How much of a layer is kept when it is brought to a lower rank."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from lorakit_cli.core.late import late
from lorakit_cli.errors import OptionError

_SIZE = late(r"(\d+(?:\.\d*)?|\.\d+)\s*([kKMG]?)(i?)[bB]?", re.ASCII)
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3}
_OPTIONS = ("rank", "energy", "error", "ratio", "size")


class RankRule(NamedTuple):
    """What is asked for, at most one of these.

    `rank`: so many singular values of each layer. `energy`: as few as hold this share of its squared Frobenius norm.
    `error`: as few as leave this relative Frobenius error, layer by layer. `ratio`: those above the largest divided by
    it. `size`: as many in all layers together as a file of so many bytes has room for.
    """

    rank: int | None = None
    energy: float | None = None
    error: float | None = None
    ratio: float | None = None
    size: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The names of what is asked for."""
        return tuple(name for name in _OPTIONS if getattr(self, name) is not None)

    @property
    def rounds(self) -> int:
        """How often all layers are looked at: under a size once more, before any rank is decided on."""
        return 1 if self.size is None else 2

    def count(self, values: Sequence[float]) -> int:
        """Say how many of a layer's singular values to keep, from the largest; none only where there are none."""
        if not values:
            return 0
        if self.rank is not None:
            return min(self.rank, len(values))
        if self.ratio is not None:
            return sum(value * self.ratio > values[0] for value in values)
        lost = 1 - self.energy if self.energy is not None else (self.error or 0.0) ** 2
        left = lost * sum(value * value for value in values)
        kept = len(values)
        # From the smallest, so that what is left out is summed before large numbers swallow it.
        while kept > 1 and values[kept - 1] ** 2 <= left:
            left -= values[kept - 1] ** 2
            kept -= 1
        return kept


def rank_rule(
    rank: int | None, energy: float | None, error: float | None, ratio: float | None, size: str | None
) -> RankRule:
    """Check options and make a rule of them. Raises OptionError."""
    if rank is not None and rank < 1:
        raise OptionError(f"--rank {rank} must be at least 1")
    if energy is not None and not 0 < energy <= 1:
        raise OptionError(f"--energy {energy} is a share that is kept, above 0 and at most 1, such as 0.95")
    if error is not None and not 0 <= error < 1:
        raise OptionError(f"--error {error} is a relative error, at least 0 and below 1, such as 0.01")
    if ratio is not None and not 1 < ratio < float("inf"):
        raise OptionError(f"--ratio {ratio} must be above 1; 4 keeps singular values above a quarter of the largest")
    rule = RankRule(rank, energy, error, ratio, None if size is None else parse_size(size))
    if len(rule.given) > 1:
        raise OptionError(f"{' and '.join(f'--{name}' for name in rule.given)} exclude each other; give one of them")
    return rule


def parse_size(text: str) -> int:
    """Read a size such as 20MB, 20MiB, 1.5G or 800000, in bytes. Raises OptionError."""
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].replace("K", "k")]) if found else 0
    if not size:
        raise OptionError(f"--size {text!r} is no size of a file; write for example 20MB or 20MiB")
    return size
