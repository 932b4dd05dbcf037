"""List every adapter that a name reaches, and what each would touch in a base."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.families import adapter_family
from lorakit_cli.core.plan import PlannedAdapter, build_plan
from lorakit_cli.core.triggers import read_triggers
from lorakit_cli.errors import LorakitError, MatchError
from lorakit_cli.service.bases import open_base
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.sources.library import Library, LibraryEntry, open_library
from lorakit_cli.sources.local import FoundAdapter, find_adapter, find_adapters
from lorakit_cli.sources.saved_folder import saved_folder
from lorakit_cli.sources.sidecar import read_side_files


@dataclass(frozen=True, slots=True)
class ListedAdapter:
    """One adapter; where its file cannot be read, `problem` says why and the rest is empty.

    `touches` counts matched layers by component, None unless a base was given; `size` is in bytes.
    """

    name: str
    source: str
    origin: str
    architecture: str | None
    algorithms: tuple[str, ...]
    ranks: tuple[int, ...]
    weight: float
    triggers: tuple[str, ...]
    size: int | None
    layers: int
    touches: dict[str, int] | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class ListReport:
    """Every adapter asked for, by name."""

    base: str | None
    adapters: tuple[ListedAdapter, ...]


def list_adapters(
    base: str | None = None, specs: Sequence[AdapterSpec] = (), *, allow_pickle: bool = False
) -> ListReport:
    """List the adapters named, else all of the library, those saved with the base among them.

    Raises LorakitError for a name, base or library that fails.
    """
    library = open_library()
    saved = saved_folder(base, library)
    if saved:
        library = library.with_entries(saved.entries())
    if specs:
        found = find_adapters(specs, library, allow_pickle=allow_pickle)
        theirs = open_base(base, library, found)
        return ListReport(theirs.label, tuple(_listed(adapter, theirs, allow_pickle) for adapter in found))
    index = open_base(base, library) if base else None
    listed = [_entry(entry, library, index, allow_pickle) for _, entry in sorted(library.entries.items())]
    return ListReport(index.label if index else None, tuple(listed))


def _entry(entry: LibraryEntry, library: Library, base: BaseIndex | None, allow_pickle: bool) -> ListedAdapter:
    try:
        return _listed(find_adapter(AdapterSpec(entry.name), library, fetch=False), base, allow_pickle)
    except LorakitError as error:
        # One broken file must not hide the others.
        weight = 1.0 if entry.weight is None else entry.weight
        return ListedAdapter(
            entry.name, entry.source, entry.origin, None, (), (), weight, entry.triggers, None, 0, None, str(error)
        )


def _listed(adapter: FoundAdapter, base: BaseIndex | None, allow_pickle: bool) -> ListedAdapter:
    file = open_adapter(adapter.path, allow_pickle=allow_pickle)
    touches: dict[str, int] | None = None
    problem = None
    if base:
        try:
            touches = build_plan(base, [PlannedAdapter(adapter.name, file, adapter.weight)]).matched(adapter.name)
        except MatchError as error:
            touches, problem = {}, str(error)
    return ListedAdapter(
        adapter.name,
        str(adapter.path),
        adapter.origin,
        adapter_family(file),
        file.kinds,
        file.ranks,
        adapter.weight,
        adapter.triggers or read_triggers(file.metadata, read_side_files(file.path)).best,
        file.size,
        len(file.layers),
        touches,
        problem,
    )
