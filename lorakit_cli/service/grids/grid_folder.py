"""The folder of a grid: told from other folders by its index, and taken up again where a run left off."""

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.write_error import write_error
from lorakit_cli.errors import OutputError, OutputExistsError

INDEX, SHEET, PAGE, CELLS = "index.json", "sheet.png", "index.html", "cells"
SCHEMA = "lorakit/grid-index/1"


@dataclass(frozen=True, slots=True)
class GridFolder:
    """A folder that holds a grid or is still to hold one.

    `pictures` says with which key each file under `cells` was drawn, `seconds` how long that took.
    """

    path: Path
    has_index: bool
    pictures: Mapping[str, str]
    seconds: Mapping[str, float]
    overwrite: bool

    @classmethod
    def of(cls, path: Path, *, overwrite: bool) -> "GridFolder":
        """Look at a folder. Raises OutputExistsError where it holds other things, OutputError where it is no folder."""
        if os.path.lexists(path) and not path.is_dir():
            raise OutputError(f"{path} is not a folder; a grid is written into one")
        try:
            empty = not path.is_dir() or not any(path.iterdir())
        except OSError as error:
            raise write_error(path, error) from error
        if empty:
            return cls(path, False, {}, {}, overwrite)
        index = _read(path / INDEX)
        if index is None:
            raise OutputExistsError(f"{path} holds other things than a grid; name a new folder")
        return cls(path, True, _entries(index, "pictures", str), _entries(index, "seconds", float), overwrite)

    def kept(self, wanted: Mapping[str, str]) -> dict[str, float | None]:
        """Give the files that are there as they are wanted, file -> key, with the seconds that they took."""
        if self.overwrite:
            return {}
        return {
            file: self.seconds.get(file)
            for file, key in wanted.items()
            if self.pictures.get(file) == key and _is_whole(self.path / CELLS / file)
        }

    def clear(self, wanted: Collection[str], kept: Collection[str]) -> None:
        """Remove what a new run replaces: pictures that are drawn anew, and what was made of them all.

        With `overwrite` all pictures of the grid that was. Raises OutputError.
        """
        old = [file for file in self.pictures if file not in kept and (self.overwrite or file in wanted)]
        names = [f"{CELLS}/{file}" for file in {*old, *(file for file in wanted if file not in kept)}]
        for name in [*names, SHEET, PAGE]:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise write_error(self.path / name, error) from error

    def write_index(self, index: Mapping[str, Any]) -> None:
        """Write the index. Raises OutputError."""
        text = json.dumps(index, ensure_ascii=False, indent=1, allow_nan=False)
        with new_file(self.path / INDEX, overwrite=True) as file:
            file.write(text.encode("utf-8", "surrogatepass"))


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError, RecursionError):
        index = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(index, dict) and index.get("schema") == SCHEMA:
            return index
    return None


def _entries(index: Mapping[str, Any], name: str, kind: type[Any]) -> dict[str, Any]:
    """Give a map of the index; names that lead out of the folder are nobody's picture."""
    found = index.get(name)
    if not isinstance(found, dict):
        return {}
    return {file: value for file, value in found.items() if isinstance(value, kind) and Path(file).name == file}


def _is_whole(path: Path) -> bool:
    """Tell whether a file is a PNG to its end; pictures appear whole, but a copy may have been cut."""
    try:
        with path.open("rb") as file:
            file.seek(-12, os.SEEK_END)
            return file.read(12)[4:8] == b"IEND"
    except OSError:
        return False
