"""The library: every adapter that a name reaches, from lorakit.toml, adapter folders and the embedded model."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit_cli.core.adapter_spec import FILE_SUFFIXES, AdapterSpec, is_plain, is_remote, name_from
from lorakit_cli.core.user_path import user_path
from lorakit_cli.demo import ADAPTERS
from lorakit_cli.demo import NAME as EMBEDDED
from lorakit_cli.errors import LibraryError, UnknownAdapterError, did_you_mean
from lorakit_cli.sources.config import Config, config_paths, read_config

if TYPE_CHECKING:
    from lorakit_cli.core.block_scales import BlockScales


FOLDERS_VARIABLE = "LORAKIT_ADAPTERS"
EMBEDDED_ORIGIN = "embedded"
"""The origin of the embedded model's own adapters."""


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """An adapter that a name reaches. `origin` says where the name comes from."""

    name: str
    source: str
    origin: str
    weight: float | None = None
    triggers: tuple[str, ...] = ()
    base: str | None = None
    block_scales: "BlockScales | None" = None


@dataclass(frozen=True, slots=True)
class Library:
    """All that is known by name; the nearest lorakit.toml wins over the user's, and both over folders.

    `base_from` is the folder of the lorakit.toml that names the base.
    """

    entries: Mapping[str, LibraryEntry]
    base: str | None = None
    use: tuple[AdapterSpec, ...] | None = None
    base_from: Path | None = None

    @property
    def embedded(self) -> tuple[str, ...]:
        """The names of the embedded model's own adapters."""
        return tuple(ADAPTERS)

    def with_entries(self, entries: Mapping[str, LibraryEntry]) -> "Library":
        """Give a library that knows these too: after all that the user named, before what is embedded."""
        named = {name: entry for name, entry in self.entries.items() if entry.origin != EMBEDDED_ORIGIN}
        return replace(self, entries={**self.entries, **entries, **named})

    def find(self, name: str) -> LibraryEntry:
        """Look a name up; an entry whose source is another entry's name takes its file and what it leaves out.

        Raises UnknownAdapterError with the nearest names, LibraryError for entries that name each other.
        """
        entry = self._entry(name)
        seen = {name}
        while is_plain(entry.source):
            if entry.source in seen:
                raise LibraryError(f"{entry.origin}: the source of adapter {entry.name} leads back to itself")
            seen.add(entry.source)
            other = self._entry(entry.source)
            entry = replace(
                entry,
                source=other.source,
                weight=other.weight if entry.weight is None else entry.weight,
                triggers=entry.triggers or other.triggers,
                base=entry.base or other.base,
                block_scales=entry.block_scales or other.block_scales,
            )
        return entry

    def _entry(self, name: str) -> LibraryEntry:
        try:
            return self.entries[name]
        except KeyError:
            near = did_you_mean(name, self.entries) or "."
            raise UnknownAdapterError(
                f"no adapter is called {name!r}{near} `lorakit list-adapters` shows all; a file is given by its path"
            ) from None


def open_library() -> Library:
    """Read every lorakit.toml that applies and every adapter folder they or LORAKIT_ADAPTERS name.

    Raises LibraryError.
    """
    configs = [read_config(path) for path in config_paths()]
    entries: dict[str, LibraryEntry] = {}
    for config in configs:
        for name, entry in _named(config).items():
            entries.setdefault(name, entry)
    for config in configs:
        for name, entry in _in_folders(config).items():
            entries.setdefault(name, entry)
    for name, entry in _in_named_folders().items():
        entries.setdefault(name, entry)
    for name, (path, triggers) in ADAPTERS.items():
        entries.setdefault(name, LibraryEntry(name, str(path), EMBEDDED_ORIGIN, None, triggers))
    bases = [(_relative(config, config.base), config.path.parent) for config in configs if config.base]
    base, base_from = bases[0] if bases else (None, None)
    use = next((_use(config) for config in configs if config.use is not None), None)
    return Library(entries, base, use, base_from)


def _use(config: Config) -> tuple[AdapterSpec, ...]:
    specs = config.use or ()
    return tuple(
        spec if is_plain(spec.source) else replace(spec, source=_adapter(config, spec.source)) for spec in specs
    )


def _named(config: Config) -> dict[str, LibraryEntry]:
    return {
        name: LibraryEntry(
            name,
            _adapter(config, entry.source),
            str(config.path),
            entry.weight,
            entry.triggers,
            _relative(config, entry.base) if entry.base else None,
            entry.block_scales,
        )
        for name, entry in config.adapters.items()
    }


def _in_folders(config: Config) -> dict[str, LibraryEntry]:
    """List the safetensors files of the adapter folders. Raises LibraryError for a folder that is missing."""
    return _files_of(config.adapters_dirs, f"{config.path}: adapters_dir")


def _in_named_folders() -> dict[str, LibraryEntry]:
    """List the safetensors files of the folders that LORAKIT_ADAPTERS names, the first folder first."""
    named = filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep))
    return _files_of([user_path(folder).absolute() for folder in named], FOLDERS_VARIABLE, f" ({FOLDERS_VARIABLE})")


def _files_of(folders: Iterable[Path], where: str, remark: str = "") -> dict[str, LibraryEntry]:
    """List the safetensors files of folders. Raises LibraryError for one that is missing."""
    entries: dict[str, LibraryEntry] = {}
    for folder in folders:
        if not folder.is_dir():
            raise LibraryError(f"{where}: {folder} is not a folder")
        for path in sorted(folder.glob("*.safetensors")):
            stem = name_from(path.name)
            # Two files may come to one name (a.b and a_b); neither may hide the other.
            name, number = stem, 2
            while name in entries:
                name, number = f"{stem}-{number}", number + 1
            entries[name] = LibraryEntry(name, str(path), f"{folder}{remark}")
    return entries


def from_folder(folder: Path, source: str) -> str:
    """Give a path in the lorakit.toml of a folder as seen from anywhere; names and references stay as they are."""
    if source == EMBEDDED or is_remote(source):
        return source
    local = folder / user_path(source)
    is_path = source.startswith((".", "~", "/")) or source.lower().endswith(FILE_SUFFIXES)
    return str(local) if is_path or local.exists() else source


def _relative(config: Config, source: str) -> str:
    return from_folder(config.path.parent, source)


def _adapter(config: Config, source: str) -> str:
    """Give an adapter's source as seen from anywhere; a file below no folder that is here is one on the Hub."""
    first, *rest = source.split("/")
    on_hub = len(rest) > 1 and first not in ("", ".", "..", "~") and not (config.path.parent / first).exists()
    return source if on_hub else _relative(config, source)
