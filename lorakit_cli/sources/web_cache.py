"""Keep files from the web: each in a folder of its own, under its own name, with where it came from."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorakit_cli.core.waiting_lock import waiting_lock
from lorakit_cli.core.write_error import write_error
from lorakit_cli.errors import LorakitError
from lorakit_cli.sources.cache_folder import cache_folder
from lorakit_cli.sources.web_part import Part

FACTS = ".lorakit.json"
_FOLDER = "web"
_LONGEST_FACTS = 262_144
_SCHEMA = "lorakit/download/1"
_PART, _LOCK = ".part", ".lock"
_DIGITS = 32


class WebCache:
    """The folder of one file, known by a text that stands for where it comes from."""

    def __init__(self, key: str) -> None:
        # The text may hold secrets, and any characters.
        self.folder = (
            cache_folder() / _FOLDER / hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
        )

    def file(self) -> Path | None:
        """Give the file, None where it is not here or not whole."""
        return _file_in(self.folder)

    @contextmanager
    def claimed(self, waits: Callable[[], object] | None = None) -> Iterator[Part]:
        """Let nobody else fetch it meanwhile, and give the part to fetch it into. Raises OutputError."""
        lock = self.folder / _LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with waiting_lock(lock, waits) as alone:
                # Where nothing can be locked, everybody fetches for himself, and leaves nothing to others.
                name = _PART if alone else f"{_PART}.{os.getpid()}"
                yield Part(self.folder / name, lasting=alone)
        except OSError as error:
            raise write_error(lock, error) from error

    def keep(self, part: Part, name: str, facts: Mapping[str, Any], side: Mapping[str, bytes]) -> Path:
        """Give a whole part its name, with files to lie beside it and what is known of it. Raises OutputError."""
        path = self.folder / name
        entries = {"schema": _SCHEMA, "file": name, "size": part.size, **facts}
        try:
            for beside, content in side.items():
                self._write(beside, content)
            part.path.replace(path)
            self._write(FACTS, json.dumps(entries, indent=2).encode() + b"\n")
            part.drop()
        except OSError as error:
            raise write_error(path, error) from error
        return path

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.folder / f".new.{os.getpid()}"
        temporary.write_bytes(content)
        temporary.replace(self.folder / name)


def kept_with_hash(sha256: str) -> Path | None:
    """Give a file of that sha256 that is kept, wherever it came from, None where there is none."""
    try:
        folders = sorted((cache_folder() / _FOLDER).iterdir())
    except (OSError, LorakitError):
        return None
    for folder in folders:
        path = _file_in(folder)
        if path and _facts(folder).get("sha256") == sha256:
            return path
    return None


def _file_in(folder: Path) -> Path | None:
    facts = _facts(folder)
    name = facts.get("file")
    if not isinstance(name, str) or not name or Path(name).name != name:
        return None
    path = folder / name
    try:
        return path if path.stat().st_size == facts.get("size") else None
    except OSError:
        return None


def _facts(folder: Path) -> dict[str, Any]:
    try:
        with (folder / FACTS).open("rb") as file:
            facts = json.loads(file.read(_LONGEST_FACTS))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
