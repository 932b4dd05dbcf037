"""Find the module of every layer of an adapter: in the base given, else in the published model that it is for."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.families import wrong_base
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.match import Match
from lorakit_cli.core.matching import Unmatched, match_layers
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import UnmatchedLayersError, WrongBaseError


class Placing(NamedTuple):
    """A base, the modules of it that an adapter's layers belong to, and its name."""

    base: BaseIndex
    matches: tuple[Match, ...]
    name: str

    def of(self, file: LoraFile) -> "Placing":
        """Place the layers of another file for the same modules."""
        return Placing(self.base, match_layers(self.base, "", file, hints=False)[0], self.name)


def place(file: LoraFile, base: str | None, *, allow_pickle: bool = False) -> tuple[Placing, ...]:
    """Place every layer: in the base, or in each of the published models that may be meant.

    `allow_pickle` reads a base whose weights are only pickled.
    Raises UnmatchedLayersError, or BaseModelError for a base that cannot be read.
    """
    if base:
        from lorakit_cli.service.bases import open_weights
        from lorakit_cli.sources.library import open_library

        index = open_weights(base, open_library(), allow_pickle=allow_pickle)
        matches, missed = match_layers(index, "", file)
        mistake = wrong_base(file, index)
        if mistake:
            raise WrongBaseError(f"{file.path} does not fit {index.label}: {mistake}; try another --base")
        _require_all(file, missed, index.label)
        return (Placing(index, matches, index.class_name),)
    from lorakit_cli.architectures import possible
    from lorakit_cli.core.recognition import recognise

    recognition = recognise(file, possible)
    for candidate in recognition.candidates:
        _require_all(file, candidate.missed, candidate.size)
    if not recognition.candidates:
        raise undecided(file, recognition.reasons)
    return tuple(Placing(each.base, each.matches, each.size) for each in recognition.candidates)


def undecided(file: LoraFile, reasons: Iterable[str]) -> UnmatchedLayersError:
    """Give the error for an adapter whose model the keys do not tell."""
    return UnmatchedLayersError(f"{file.path}: {'; '.join(reasons)}; --base BASE says which model's modules these are")


def _require_all(file: LoraFile, missed: Sequence[Unmatched], where: str) -> None:
    left = [part for part in missed if not part.loose]
    if left:
        near = f" (nearest: {left[0].nearest})" if left[0].nearest else ""
        raise UnmatchedLayersError(
            f"{len(left)} layers of {file.path} are no modules of {where}, first {shown(left[0].stem)}: "
            f"{left[0].reason}{near}; try another --base"
        )
