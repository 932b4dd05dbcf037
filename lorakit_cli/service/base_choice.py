"""Which base a request is for where it names none: the one that its adapters state, in the library or themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.stated import CARD, SideFiles
from lorakit_cli.core.stated_base import StatedBase, stated_base
from lorakit_cli.errors import BaseModelError
from lorakit_cli.service.bases import open_base
from lorakit_cli.sources.library import EMBEDDED_ORIGIN, Library
from lorakit_cli.sources.local import FoundAdapter
from lorakit_cli.sources.sidecar import read_card, read_side_files


class OpenedBase(NamedTuple):
    """A base, and a note that says why it is this one, where nobody named it."""

    base: BaseIndex
    note: str | None = None


def open_base_for(
    asked: str | None, library: Library, found: Sequence[FoundAdapter], files: Sequence[LoraFile], **options: Any
) -> OpenedBase:
    """Index the base asked for, else the library's, else the one that all adapters state that state any.

    Else the embedded one. `files` are the adapters' in their order; `options` are those of open_base. Raises
    BaseModelError, also where the adapters are for different bases.
    """
    if asked or library.base:
        return OpenedBase(open_base(asked, library, **options))
    adapters = [_with_stated_base(adapter, file) for adapter, file in zip(found, files, strict=True)]
    places = [f"{adapter.base_from} of {adapter.name}" for adapter in adapters if adapter.base]
    try:
        index = open_base(None, library, adapters, **options)
    except BaseModelError as error:
        if len({adapter.base for adapter in adapters if adapter.base}) != 1:
            raise
        raise BaseModelError(f"{error}; the base is from {' and '.join(places)}, --base names another") from error
    return OpenedBase(index, f"base: {index.label}, from {' and '.join(places)}" if places else None)


def _with_stated_base(adapter: FoundAdapter, file: LoraFile) -> FoundAdapter:
    """Give an adapter with the base that it is for, if that is stated. Raises BaseModelError where several are."""
    if adapter.origin == EMBEDDED_ORIGIN or adapter.base:
        return adapter
    stated = stated_base(file.metadata, read_side_files(adapter.path)) or _of_repository(adapter)
    if stated is None:
        return adapter
    if len(stated.repositories) > 1:
        raise BaseModelError(
            f"adapter {adapter.name} is for several bases, {', '.join(stated.repositories)} (from {stated.where}); "
            "choose with --base"
        )
    return adapter._replace(base=stated.repositories[0], base_from=stated.where)


def _of_repository(adapter: FoundAdapter) -> StatedBase | None:
    """Read the card at the top of an adapter's repository, where the adapter lies in a folder of it."""
    if adapter.remote is None:
        return None
    from lorakit_cli.core.hub_file import HubFile

    reference = HubFile.parse(adapter.remote)
    depth = reference.path.count("/") if reference else 0
    top: Path = adapter.path.parents[depth]
    return stated_base({}, SideFiles({CARD: read_card(top / CARD)}))
