"""A part of an adapter that changes nothing, as reports show it."""

from typing import NamedTuple


class UnmatchedPart(NamedTuple):
    """A layer or key that changes nothing."""

    adapter: str
    key: str
    reason: str
    nearest: str | None
