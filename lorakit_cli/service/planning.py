"""From adapter specs and a base to a Plan, without loading a weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex, read_base_index
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.lora_file import LoraFile, read_lora_file
from lorakit_cli.core.plan import Plan, PlannedAdapter, build_plan
from lorakit_cli.errors import BlockScalesError, CorruptFileError, LoraFileError, did_you_mean
from lorakit_cli.formats import FORMATS
from lorakit_cli.kinds import KINDS
from lorakit_cli.sources.library import Library, open_library
from lorakit_cli.sources.local import FoundAdapter, find_adapters, find_base


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan with the adapters as they were found."""

    plan: Plan
    found: tuple[FoundAdapter, ...]


def open_adapter(path: Path) -> LoraFile:
    """Read an adapter file's header with every layout and algorithm lorakit knows. Raises LoraFileError."""
    if path.suffix.lower() != ".safetensors":
        raise LoraFileError(f"{path}: only .safetensors adapters are read")
    try:
        return read_lora_file(path, FORMATS, KINDS)
    except OSError as error:
        raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from error


def open_base(asked: str | None, library: Library, found: Sequence[FoundAdapter] = ()) -> BaseIndex:
    """Index the base asked for, or the one that follows from library and adapters. Raises BaseModelError."""
    return read_base_index(find_base(asked, library, found))


def make_plan(
    base: str | None,
    specs: Sequence[AdapterSpec],
    *,
    scale: float = 1.0,
    block_scales: Mapping[str, BlockScales] | None = None,
    strict: bool = False,
    library: Library | None = None,
) -> Planned:
    """Plan what the adapters do to the base. Raises LorakitError for all that is wrong with the request."""
    library = library or open_library()
    found = tuple(find_adapters(specs, library))
    scales = dict(block_scales or {})
    names = [adapter.name for adapter in found]
    for name in scales:
        if name not in names:
            near = did_you_mean(name, names) or "."
            known = f"The adapters are {', '.join(names)}" if names else "No adapter is active"
            raise BlockScalesError(f"block scales name the adapter {name!r}{near} {known}")
    index = open_base(base, library, found)
    adapters = [
        PlannedAdapter(adapter.name, open_adapter(adapter.path), adapter.weight, scales.get(adapter.name))
        for adapter in found
    ]
    plan = build_plan(index, adapters, scale)
    if strict:
        plan.require_all_matched()
    return Planned(plan, found)
