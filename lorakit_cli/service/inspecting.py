"""Say what an adapter file is, whether it fits a base, and what is wrong with it. From headers alone, unless asked."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lorakit_cli.architectures import possible
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.families import adapter_family, base_family
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.matching import Match, match_layers
from lorakit_cli.core.merge_history import MergeHistory, read_merge_history
from lorakit_cli.core.recognition import Recognition, recognise
from lorakit_cli.core.stated import SideFiles, capped
from lorakit_cli.core.stated_architecture import StatedArchitecture, stated_architectures
from lorakit_cli.core.training import Training, read_training
from lorakit_cli.core.triggers import Triggers, read_triggers
from lorakit_cli.core.two_denoisers import only_the_first
from lorakit_cli.core.verdict import judge
from lorakit_cli.errors import LoraFileError
from lorakit_cli.service.closer_looks import (
    HEADER_ONLY,
    Looks,
    changed_since,
    file_hashes,
    measure_strength,
    scan_values,
)
from lorakit_cli.service.inspect_problems import UNKNOWN_MODEL, fatal_problems, remarks
from lorakit_cli.service.inspect_report import (
    Amount,
    BaseMatch,
    FilesReport,
    InspectReport,
    KeyPlace,
    UnreadableFile,
)
from lorakit_cli.service.reading import look_at
from lorakit_cli.service.unmatched_part import UnmatchedPart
from lorakit_cli.sources.local import find_files
from lorakit_cli.sources.sidecar import read_side_files

_Value = TypeVar("_Value", bound=Hashable)
# As many as tell what a text says, of texts that may be megabytes.
_MOST_PROBLEM = 600


class Inspected(NamedTuple):
    """A report with the file, the model it was recognised as, and its layers' places in the first base or in that."""

    report: InspectReport
    file: LoraFile
    recognition: Recognition
    matches: tuple[Match, ...]


def inspect_sources(
    sources: Sequence[str], bases: Sequence[str] = (), looks: Looks = HEADER_ONLY, *, allow_pickle: bool = False
) -> InspectReport | FilesReport:
    """Inspect what the words of a command line mean: one file, or several where they are more or a folder.

    Raises LorakitError for a name or base that is not there, and for a single file that cannot be read.
    """
    paths = list(dict.fromkeys(path for source in sources for path in find_files(source)))
    looks.require_possible(len(paths))
    indexes = _open_bases(bases) if bases else []
    if len(paths) == 1:
        return inspect(paths[0], look_at(paths[0], allow_pickle=allow_pickle), indexes, looks).report
    return FilesReport(tuple(_inspect_one(path, indexes, looks, allow_pickle) for path in paths))


def _open_bases(bases: Sequence[str]) -> list[BaseIndex]:
    # What reads bases and the library is left alone where none is needed.
    from lorakit_cli.service.bases import open_base
    from lorakit_cli.sources.library import open_library

    library = open_library()
    return [open_base(base, library) for base in bases]


def _inspect_one(
    path: Path, bases: Sequence[BaseIndex], looks: Looks, allow_pickle: bool
) -> InspectReport | UnreadableFile:
    try:
        return inspect(path, look_at(path, allow_pickle=allow_pickle), bases, looks).report
    except LoraFileError as error:
        # One broken file must not hide the others.
        return UnreadableFile(str(path), str(error).removeprefix(f"{path}").removeprefix(":").lstrip())


def inspect(path: Path, file: LoraFile, bases: Sequence[BaseIndex] = (), looks: Looks = HEADER_ONLY) -> Inspected:
    """Describe an adapter file that was read from `path`, and hold it against bases.

    Raises CorruptFileError, or OutputError where the picture cannot be written.
    """
    recognition = recognise(file, possible)
    held = [_hold(file, base) for base in bases]
    matches = held[0][0] if held else ()
    if not matches and recognition.candidates:
        matches = recognition.candidates[0].matches
    stated = _read_statements(path, file)
    scanned = scan_values(file, looks)
    strength = measure_strength(file, bases[0] if held and held[0][0] else None, matches, looks)
    hashes = file_hashes(file, stated.training, looks)
    known = bool(recognition.candidates or adapter_family(file) or any(found for found, _ in held))
    fatal = [*fatal_problems(file), *(found.text for found in (scanned.non_finite if scanned else ()))]
    problems = [
        *fatal,
        *([] if known else [UNKNOWN_MODEL]),
        *(scanned.problems[len(scanned.non_finite) :] if scanned else ()),
        *remarks(file, recognition, stated.architectures),
        *_about(bases, held),
        *changed_since(hashes),
        *(strength.problems if strength else ()),
        *(f"not read: {problem}" for problem in stated.problems),
    ]
    misfits = [f"it does not fit {match.base}: {match.verdict}" for _, match in held if not match.fits]
    obstacles = [*fatal, *misfits, *([] if known else [UNKNOWN_MODEL])]
    report = InspectReport(
        path=str(path),
        usable=not obstacles,
        verdict=capped(obstacles[0], _MOST_PROBLEM) if obstacles else "usable",
        **_what_it_is(file, recognition, matches),
        stated_architectures=stated.architectures,
        triggers=stated.triggers.best,
        triggers_detail=stated.triggers,
        training=stated.training,
        merge_history=stated.history,
        beside=tuple(stated.side.contents),
        hashes=hashes,
        problems=tuple(dict.fromkeys(capped(problem, _MOST_PROBLEM) for problem in problems)),
        match=tuple(match for _, match in held),
        keys=tuple(_keys(file)) if looks.keys else None,
        scan=scanned,
        strength=strength,
    )
    return Inspected(report, file, recognition, matches)


class _Statements(NamedTuple):
    """What a file and those beside it state."""

    side: SideFiles
    triggers: Triggers
    training: Training
    history: MergeHistory
    architectures: tuple[StatedArchitecture, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What was stated but could not be read."""
        return (*self.triggers.problems, *self.training.problems, *self.history.problems)


def _read_statements(path: Path, file: LoraFile) -> _Statements:
    side = read_side_files(path)
    return _Statements(
        side,
        read_triggers(file.metadata, side),
        read_training(file.metadata, side),
        read_merge_history(file.metadata),
        stated_architectures(file.metadata, side),
    )


def _what_it_is(file: LoraFile, recognition: Recognition, matches: Sequence[Match]) -> dict[str, Any]:
    """Give the fields of the report that follow from keys and shapes."""
    layers = [layer for layer in file.layers if not layer.optional]
    ranked = [layer for layer in file.layers if layer.rank]
    return {
        "architecture": recognition.name or adapter_family(file),
        "confidence": recognition.confidence,
        "reasons": recognition.reasons,
        "candidates": tuple(
            name for candidate in recognition.candidates for name in candidate.variants or (candidate.size,)
        ),
        "dialect": file.formats[0].name if file.formats else "unknown",
        "layouts": _counts(layer.format.name for layer in file.layers),
        "algorithms": _counts(layer.kind.name for layer in layers),
        "components": _components(layers, matches),
        "layers": len(layers),
        "ranks": _amounts(layer.rank for layer in ranked),
        "alphas": _amounts(layer.alpha for layer in ranked),
        "scales": _amounts(layer.scale for layer in ranked),
        "dtypes": _counts(info.dtype for info in file.tensors.values()),
        "size": file.size,
        "unknown_keys": file.unknown_keys,
        "embeddings": tuple(file.embeddings),
    }


def _hold(file: LoraFile, base: BaseIndex) -> tuple[tuple[Match, ...], BaseMatch]:
    found, missed = match_layers(base, "", file)
    verdict = judge(base, file, found, missed)
    match = BaseMatch(
        base=base.label,
        architecture=base_family(base),
        fits=verdict.fits,
        verdict=capped(verdict.text, _MOST_PROBLEM),
        matched=sum(not match.layer.optional for match in found),
        total=sum(not layer.optional for layer in file.layers),
        needs_base=sum(match.layer.kind.needs_base for match in found),
        components=_counts(match.parts[0].target.component for match in found),
        unmatched=tuple(UnmatchedPart("", part.stem, part.reason, part.nearest) for part in missed),
    )
    return found, match


def _about(bases: Sequence[BaseIndex], held: Sequence[tuple[tuple[Match, ...], BaseMatch]]) -> Iterator[str]:
    """Say what is to be said of how it goes with the bases."""
    remarks = (only_the_first(base, found) for base, (found, _) in zip(bases, held, strict=True))
    yield from (remark for remark in remarks if remark)


def _components(layers: Iterable[LoraLayer], matches: Iterable[Match]) -> Mapping[str, int]:
    found = {id(match.layer): match.parts[0].target.component for match in matches}
    return _counts(found.get(id(layer), layer.component) for layer in layers)


def _keys(file: LoraFile) -> Iterator[KeyPlace]:
    places = {key: (layer.stem, role) for layer in file.layers for role, key in layer.keys.items()}
    places |= {f"{layer.stem}.alpha": (layer.stem, "alpha") for layer in file.layers}
    inversions = {key: f"textual inversion {name}" for name, keys in file.embeddings.items() for key in keys}
    for key, info in file.tensors.items():
        layer, role = places.get(key, (None, inversions.get(key)))
        yield KeyPlace(key, info.dtype, info.shape, layer, role)


def _counts(values: Iterable[_Value]) -> dict[_Value, int]:
    return dict(Counter(values).most_common())


def _amounts(values: Iterable[float | None]) -> tuple[Amount, ...]:
    """Count values, the missing one first, then ascending."""
    ordered = sorted(_counts(values).items(), key=lambda item: (item[0] is not None, item[0] or 0.0))
    return tuple(Amount(value, layers) for value, layers in ordered)
