"""List every adapter that a name reaches, and what each would touch in a base."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.families import adapter_family
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.plan import PlannedAdapter, build_plan
from lorakit_cli.core.triggers import read_triggers
from lorakit_cli.errors import LorakitError, MatchError, NotDownloadedError
from lorakit_cli.service.base_choice import open_base_for
from lorakit_cli.service.bases import open_base
from lorakit_cli.service.few_step_names import file_few_steps
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.sources.library import Library, LibraryEntry, open_library
from lorakit_cli.sources.local import FoundAdapter, find_adapter, find_adapters
from lorakit_cli.sources.saved_folder import saved_folder
from lorakit_cli.sources.sidecar import read_side_files


@dataclass(frozen=True, slots=True)
class ListedAdapter:
    """One adapter; where its file cannot be read, `problem` says why and the rest is empty.

    `touches` counts matched layers by component, None unless a base was given; `size` is in bytes. `cached` tells of
    one that is elsewhere whether it was downloaded, None of one that is on this machine only. `few_step` is the kind of
    an adapter for few steps, such as LCM.
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
    cached: bool | None = None
    few_step: str | None = None


@dataclass(frozen=True, slots=True)
class ListReport:
    """Every adapter asked for, by name; `components` names those that touch each component of the base, if any."""

    base: str | None
    adapters: tuple[ListedAdapter, ...]
    notes: tuple[str, ...] = ()

    @property
    def components(self) -> dict[str, tuple[str, ...]]:
        """The names of the adapters that touch each component, as diffusers' get_list_adapters gives them."""
        names: dict[str, list[str]] = {}
        for adapter in self.adapters:
            for component in adapter.touches or ():
                names.setdefault(component, []).append(adapter.name)
        return {component: tuple(own) for component, own in sorted(names.items())}


def list_adapters(
    base: str | None = None, specs: Sequence[AdapterSpec] = (), *, allow_pickle: bool = False
) -> ListReport:
    """List the adapters named, else all of the library, those saved with the base among them.

    What is named is downloaded where it is elsewhere; of the library nothing is, nor asked for. Raises LorakitError for
    a name, base or library that fails.
    """
    library = open_library()
    saved = saved_folder(base, library)
    if saved:
        library = library.with_entries(saved.entries())
    if specs:
        found = find_adapters(specs, library, allow_pickle=allow_pickle)
        files = [open_adapter(adapter.path, allow_pickle=allow_pickle) for adapter in found]
        theirs, note = open_base_for(base, library, found, files)
        listed = [_listed(adapter, file, theirs) for adapter, file in zip(found, files, strict=True)]
        return ListReport(theirs.label, tuple(listed), (note,) if note else ())
    index = open_base(base, library) if base else None
    listed = [_entry(entry, library, index, allow_pickle) for _, entry in sorted(library.entries.items())]
    return ListReport(index.label if index else None, tuple(listed))


def _entry(entry: LibraryEntry, library: Library, base: BaseIndex | None, allow_pickle: bool) -> ListedAdapter:
    problem: str | None = None
    try:
        found = find_adapter(AdapterSpec(entry.name), library, allow_pickle=allow_pickle, download=False)
        return _listed(found, open_adapter(found.path, allow_pickle=allow_pickle), base)
    except NotDownloadedError:
        cached: bool | None = False
    except LorakitError as error:
        # One broken file must not hide the others.
        cached, problem = None, str(error)
    weight = 1.0 if entry.weight is None else entry.weight
    return ListedAdapter(
        entry.name, entry.source, entry.origin, None, (), (), weight, entry.triggers, None, 0, None, problem, cached
    )


def _listed(adapter: FoundAdapter, file: LoraFile, base: BaseIndex | None) -> ListedAdapter:
    touches: dict[str, int] | None = None
    problem = None
    if base:
        try:
            touches = build_plan(base, [PlannedAdapter(adapter.name, file, adapter.weight)]).matched(adapter.name)
        except MatchError as error:
            touches, problem = {}, str(error)
    few_step = file_few_steps(file, adapter.remote)
    return ListedAdapter(
        adapter.name,
        adapter.remote or str(adapter.path),
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
        True if adapter.remote else None,
        few_step.kind if few_step else None,
    )
