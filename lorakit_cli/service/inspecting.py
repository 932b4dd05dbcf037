"""Say what an adapter file is, whether it fits a base, and what is wrong with it. From headers alone, unless asked."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lorakit_cli.architectures import possible
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.families import adapter_family
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.merge_history import MergeHistory, read_merge_history
from lorakit_cli.core.recognition import Recognition, recognise
from lorakit_cli.core.record import Record
from lorakit_cli.core.stated import SideFiles, capped
from lorakit_cli.core.stated_architecture import StatedArchitecture, stated_architectures
from lorakit_cli.core.training import Training, read_training
from lorakit_cli.core.triggers import Triggers, read_triggers
from lorakit_cli.errors import LoraFileError
from lorakit_cli.service.closer_looks import (
    HEADER_ONLY,
    Looks,
    changed_since,
    file_hashes,
    measure_strength,
    scan_values,
)
from lorakit_cli.service.few_step_names import file_few_steps
from lorakit_cli.service.inspect_problems import UNKNOWN_MODEL, fatal_problems, remarks
from lorakit_cli.service.inspect_report import (
    MOST_PROBLEM,
    Amount,
    FilesReport,
    InspectReport,
    KeyPlace,
    UnreadableFile,
)
from lorakit_cli.service.reading import look_at
from lorakit_cli.sources.local import find_files
from lorakit_cli.sources.sidecar import read_side_files

if TYPE_CHECKING:
    from lorakit_cli.core.match import Match
    from lorakit_cli.service.holding import Held

_Value = TypeVar("_Value", bound=Hashable)


def inspect_sources(
    sources: Sequence[str], bases: Sequence[str] = (), looks: Looks = HEADER_ONLY, *, allow_pickle: bool = False
) -> InspectReport | FilesReport:
    """Inspect what the words of a command line mean: one file, or several where they are more or a folder.

    Raises LorakitError for a name or base that is not there, and for a single file that cannot be read.
    """
    paths = list(dict.fromkeys(path for source in sources for path in find_files(source, allow_pickle=allow_pickle)))
    looks.require_possible(len(paths))
    indexes = _open_bases(bases) if bases else []
    if len(paths) == 1:
        return inspect(paths[0], look_at(paths[0], allow_pickle=allow_pickle), indexes, looks)
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
        return inspect(path, look_at(path, allow_pickle=allow_pickle), bases, looks)
    except LoraFileError as error:
        # One broken file must not hide the others.
        return UnreadableFile(str(path), str(error).removeprefix(f"{path}").removeprefix(":").lstrip())


def inspect(path: Path, file: LoraFile, bases: Sequence[BaseIndex] = (), looks: Looks = HEADER_ONLY) -> InspectReport:
    """Describe an adapter file that was read from `path`, and hold it against bases.

    Raises CorruptFileError, or OutputError where the picture cannot be written.
    """
    recognition = recognise(file, possible)
    held = _hold(file, bases) if bases else []
    matches = _matches(held, recognition) if looks.measures else ()
    stated = _read_statements(path, file)
    few_step = file_few_steps(file, side=stated.side)
    scanned = scan_values(file, looks)
    strength = measure_strength(file, bases[0] if held and held[0].matches else None, matches, looks)
    hashes = file_hashes(file, stated.training, looks)
    known = bool(recognition.candidates or adapter_family(file) or any(each.matches for each in held))
    fatal = [*fatal_problems(file), *(found.text for found in (scanned.non_finite if scanned else ()))]
    problems = [
        *fatal,
        *([] if known else [UNKNOWN_MODEL]),
        *(scanned.problems[len(scanned.non_finite) :] if scanned else ()),
        *remarks(file, recognition, stated.architectures),
        *(each.remark for each in held if each.remark),
        *changed_since(hashes),
        *(strength.problems if strength else ()),
        *(f"not read: {problem}" for problem in stated.problems),
    ]
    match = tuple(each.report for each in held)
    misfits = [f"it does not fit {each.base}: {each.verdict}" for each in match if not each.fits]
    obstacles = [*fatal, *misfits, *([] if known else [UNKNOWN_MODEL])]
    return InspectReport(
        path=str(path),
        usable=not obstacles,
        verdict=capped(obstacles[0], MOST_PROBLEM) if obstacles else "usable",
        **_what_it_is(file, recognition, _places(held, recognition)),
        stated_architectures=stated.architectures,
        few_step=few_step.kind if few_step else None,
        triggers=stated.triggers.best,
        triggers_detail=stated.triggers,
        training=stated.training,
        merge_history=stated.history,
        beside=tuple(stated.side.contents),
        hashes=hashes,
        problems=tuple(dict.fromkeys(capped(problem, MOST_PROBLEM) for problem in problems)),
        match=match,
        keys=tuple(_keys(file)) if looks.keys else None,
        scan=scanned,
        strength=strength,
    )


def _matches(held: "Sequence[Held]", recognition: Recognition) -> "tuple[Match, ...]":
    """Give the layers in their places in the first base, or else in the model that the file was recognised as."""
    fitting = held[0].matches if held else ()
    return fitting or (recognition.candidates[0].matches if recognition.candidates else ())


def _places(held: "Sequence[Held]", recognition: Recognition) -> Mapping[int, str]:
    """Give the component of each layer there, by the layer's id."""
    fitting = {id(match.layer): match.component for match in held[0].matches} if held else {}
    return fitting or (recognition.candidates[0].components if recognition.candidates else {})


class _Statements(Record):
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


def _what_it_is(file: LoraFile, recognition: Recognition, places: Mapping[int, str]) -> dict[str, Any]:
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
        "layouts": _counts(map(attrgetter("format.name"), file.layers)),
        "algorithms": _counts(map(attrgetter("kind.name"), layers)),
        "components": _counts(places.get(id(layer), layer.component) for layer in layers),
        "layers": len(layers),
        "ranks": _amounts(map(attrgetter("rank"), ranked)),
        "alphas": _amounts(map(attrgetter("alpha"), ranked)),
        "scales": _amounts(map(attrgetter("scale"), ranked)),
        "dtypes": _counts(map(attrgetter("dtype"), file.tensors.values())),
        "size": file.size,
        "unknown_keys": file.unknown_keys,
        "embeddings": tuple(file.embeddings),
    }


def _hold(file: LoraFile, bases: Sequence[BaseIndex]) -> "list[Held]":
    # What judges is left alone where there is nothing to hold the file against.
    from lorakit_cli.service.holding import hold

    return [hold(file, base) for base in bases]


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
