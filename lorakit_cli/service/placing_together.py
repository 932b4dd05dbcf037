"""Find the one model that several adapters are for, and the modules of all their layers in it."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.match import Match
from lorakit_cli.errors import WrongBaseError
from lorakit_cli.service.placing import place

_MOST_SHAPES = 4


class Together(NamedTuple):
    """A base, by its name, and for each adapter the modules that its layers belong to."""

    base: BaseIndex
    name: str
    matches: tuple[tuple[Match, ...], ...]


def place_together(files: Sequence[LoraFile], base: str | None, *, allow_pickle: bool = False) -> tuple[Together, ...]:
    """Place every layer of every adapter: in the base, or in each of the published models that all may be for.

    Raises UnmatchedLayersError for what has no place, WrongBaseError for adapters of different models.
    """
    placed = [{placing.name: placing for placing in place(file, base, allow_pickle=allow_pickle)} for file in files]
    common = [name for name in placed[0] if all(name in others for others in placed)]
    if not common:
        first = placed[0]
        other = next(n for n, others in enumerate(placed) if first.keys().isdisjoint(others))
        raise WrongBaseError(
            f"adapters for different models cannot be merged: {_told(files[0], list(first))}, and "
            f"{_told(files[other], list(placed[other]))}"
        )
    return tuple(
        Together(placed[0][name].base, name, tuple(others[name].matches for others in placed)) for name in common
    )


def _told(file: LoraFile, names: Sequence[str]) -> str:
    shapes = Counter(layer.delta_shape for layer in file.layers).most_common(_MOST_SHAPES)
    listed = ", ".join(" x ".join(map(str, shape)) for shape, _ in shapes)
    return f"{file.path} is for {' or '.join(names)} (layers of {listed})"
