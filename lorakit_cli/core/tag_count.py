"""A tag of training captions, counted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TagCount:
    """A tag of the captions and the number of captions that have it."""

    text: str
    count: int
