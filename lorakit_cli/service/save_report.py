"""What `save` did, as a report."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """An adapter in the folder; `layers` counts what matched, by component.

    `reason` says why it is not in diffusers' layout, None where it is.
    """

    name: str
    file: str
    sha256: str
    weight: float
    layout: str
    layers: dict[str, int]
    reason: str | None


@dataclass(frozen=True, slots=True)
class SaveReport:
    """A saved folder; `base` is what it is of, `size` counts the bytes of weights and adapters in so many files."""

    out: str
    base: str
    architecture: str
    adapters: tuple[SavedAdapter, ...]
    scale: float
    adapters_only: bool
    files: int
    size: int
    seconds: float
    warnings: tuple[str, ...]
