"""Read lorakit.toml, the library's file: `base`, `use`, `adapters_dir` and `[adapters.NAME]`."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_config_path

from lorakit_cli.core.adapter_spec import NAME, AdapterSpec
from lorakit_cli.core.numbers import finite
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import AdapterSpecError, BlockScalesError, LibraryError, did_you_mean

if TYPE_CHECKING:
    from lorakit_cli.core.block_scales import BlockScales

FILE_NAME = "lorakit.toml"
VARIABLE = "LORAKIT_CONFIG"

_TOP_KEYS = ("base", "use", "adapters_dir", "adapters")
_ENTRY_KEYS = ("source", "weight", "triggers", "base", "block_scales")


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One `[adapters.NAME]` table; `source` is as written, relative to `folder`."""

    source: str
    weight: float | None
    triggers: tuple[str, ...]
    base: str | None
    block_scales: "BlockScales | None"
    folder: Path


@dataclass(frozen=True, slots=True)
class Config:
    """One lorakit.toml; paths in it are relative to its folder."""

    path: Path
    base: str | None = None
    use: tuple[AdapterSpec, ...] | None = None
    adapters_dirs: tuple[Path, ...] = ()
    adapters: Mapping[str, ConfigEntry] = field(default_factory=dict)


def config_paths() -> list[Path]:
    """List the files that exist, strongest first: this folder or the nearest above, the user's, LORAKIT_CONFIG's."""
    try:
        here = Path.cwd()
    except OSError as error:
        raise LibraryError(f"the current folder cannot be read: {error.strerror}") from error
    nearest = next((path for folder in (here, *here.parents) if (path := folder / FILE_NAME).is_file()), None)
    user = user_config_path("lorakit", appauthor=False) / FILE_NAME
    named = os.environ.get(VARIABLE)
    if named and not user_path(named).is_file():
        raise LibraryError(f"{VARIABLE} names {named}, which is not a file")
    found = [nearest, user if user.is_file() else None, user_path(named) if named else None]
    return list(dict.fromkeys(path.resolve() for path in found if path))


def read_config(path: Path) -> Config:
    """Read and check one lorakit.toml. Raises LibraryError that names the line and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LibraryError(f"{path} cannot be read: {error}") from error
    try:
        entries = tomllib.loads(text)
    except RecursionError as error:
        raise LibraryError(f"{path} is nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise LibraryError(_syntax_error(path, text, str(error))) from error
    reader = _Reader(path, text)
    reader.check_keys(entries, _TOP_KEYS, ())
    directories = reader.texts(entries, "adapters_dir", (), one_is_enough=True) or ()
    folder = path.parent
    return Config(
        path,
        reader.text(entries, "base", ()),
        reader.specs(entries),
        tuple(folder / user_path(name) for name in directories),
        {name: reader.entry(name, table) for name, table in reader.tables(entries).items()},
    )


def _syntax_error(path: Path, text: str, message: str) -> str:
    """Say in which line TOML broke, and what stands there; tomllib names the line but for the last one."""
    lines = text.splitlines() or [""]
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", message)
    number = int(place[1]) if place and place[1] else len(lines)
    reason = message[: place.start()] if place else message
    return f"{path}, line {number}: {reason}: {lines[min(number, len(lines)) - 1].strip()[:60]}"


@dataclass(frozen=True, slots=True)
class _Reader:
    """Take typed values out of a parsed file; an error says where in the file."""

    path: Path
    content: str

    def error(self, keys: tuple[str, ...], problem: str) -> LibraryError:
        return LibraryError(f"{self.path}, line {self._line(keys)}: {'.'.join(keys)}: {problem}")

    def _line(self, keys: tuple[str, ...]) -> int:
        """Find the line of a key: in its table's section, where it has one, else where its name first stands."""
        lines = self.content.splitlines()
        quoted = [rf"[\"']?{re.escape(key)}[\"']?" for key in keys]
        header, own_header = (
            re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(names) + r"\s*\]") for names in (quoted[:-1], quoted)
        )
        start = next((k for k, line in enumerate(lines) if len(keys) > 1 and header.match(line)), None)
        # Without a section of its own the table stands in one line, behind its name.
        name = quoted[-1] if start is not None or len(keys) < 3 else quoted[-2]
        assignment = re.compile(rf"\s*(\S+\.)?{name}\s*=")
        for number, line in enumerate(lines[start or 0 :], (start or 0) + 1):
            if assignment.match(line) or own_header.match(line):
                return number
        return (start or 0) + 1

    def check_keys(self, table: Mapping[str, Any], known: tuple[str, ...], keys: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                raise self.error(
                    (*keys, key), f"unknown key{did_you_mean(key, known) or '.'} Known: {', '.join(known)}"
                )

    def text(self, table: Mapping[str, Any], key: str, keys: tuple[str, ...]) -> str | None:
        value = table.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise self.error((*keys, key), f"must be text, not {value!r}")
        return value

    def texts(
        self, table: Mapping[str, Any], key: str, keys: tuple[str, ...], *, one_is_enough: bool = False
    ) -> tuple[str, ...] | None:
        value = table.get(key)
        if one_is_enough and isinstance(value, str):
            value = [value]
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error((*keys, key), f"must be a list of texts, not {value!r}")
        return tuple(value)

    def number(self, table: Mapping[str, Any], key: str, keys: tuple[str, ...]) -> float | None:
        value = table.get(key)
        if value is None:
            return None
        try:
            return finite(value)
        except ValueError as error:
            raise self.error((*keys, key), str(error)) from error

    def specs(self, entries: Mapping[str, Any]) -> tuple[AdapterSpec, ...] | None:
        texts = self.texts(entries, "use", ())
        try:
            return None if texts is None else tuple(AdapterSpec.parse(text) for text in texts)
        except AdapterSpecError as error:
            raise self.error(("use",), str(error)) from error

    def tables(self, entries: Mapping[str, Any]) -> Mapping[str, Any]:
        tables = entries.get("adapters", {})
        if not isinstance(tables, dict):
            raise self.error(("adapters",), f"must be tables [adapters.NAME], not {tables!r}")
        return tables

    def entry(self, name: str, table: object) -> ConfigEntry:
        keys = ("adapters", name)
        if not NAME.fullmatch(name):
            raise self.error(keys, "an adapter's name has letters, digits, _ and - only")
        if not isinstance(table, dict):
            raise self.error(keys, f"must be a table with a source, not {table!r}")
        self.check_keys(table, _ENTRY_KEYS, keys)
        source = self.text(table, "source", keys)
        if source is None:
            raise self.error(keys, "has no source")
        triggers = self.triggers(table, keys)
        weight, base = self.number(table, "weight", keys), self.text(table, "base", keys)
        return ConfigEntry(source, weight, triggers, base, self.scales(name, table, keys), self.path.parent)

    def triggers(self, table: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
        """Give trigger words as they stand, or as `@FILE` has them, one a line."""
        words = self.texts(table, "triggers", keys, one_is_enough=True) or ()
        if len(words) != 1 or not words[0].startswith("@"):
            return words
        path = self.path.parent / user_path(words[0][1:])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise self.error((*keys, "triggers"), f"the trigger file {path} cannot be read: {reason}") from error
        return tuple(line for line in map(str.strip, lines) if line and not line.startswith("#"))

    def scales(self, name: str, table: Mapping[str, Any], keys: tuple[str, ...]) -> "BlockScales | None":
        entries = table.get("block_scales")
        if entries is None:
            return None
        # Few libraries have any.
        from lorakit_cli.core.block_scales import read_block_scales

        try:
            return read_block_scales(name, entries)
        except BlockScalesError as error:
            raise self.error((*keys, "block_scales"), str(error)) from error
