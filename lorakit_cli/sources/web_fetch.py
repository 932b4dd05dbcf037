"""Fetch a file into the cache and see that it is what it should be before it gets its name there."""

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorakit_cli.core.adapter_spec import FILE_SUFFIXES
from lorakit_cli.core.downloads import download_bar
from lorakit_cli.core.record import Record
from lorakit_cli.core.tensor_file import begins_as_header, impostor, read_header
from lorakit_cli.errors import CorruptFileError, DownloadError, PickleError
from lorakit_cli.sources.web_cache import WebCache
from lorakit_cli.sources.web_name import safe_name, suffix_of
from lorakit_cli.sources.web_part import Part
from lorakit_cli.sources.web_transfer import Wanted, bring

SAFETENSORS = ".safetensors"
_START = 64
_OFFLINE = ("HF_HUB_OFFLINE", "LORAKIT_OFFLINE")
_TRUE = {"1", "ON", "YES", "TRUE"}
_LONGEST_BAR = 40


class Expected(Record):
    """What is to be fetched, what is known of it beforehand, and what is to be noted of it.

    `side` gives files to lie beside it by the end of their name.
    """

    wanted: Wanted
    source: str
    name: str
    sha256: str | None = None
    facts: Mapping[str, Any] = {}
    side: Mapping[str, bytes] = {}
    allow_pickle: bool = True
    named: bool = False


def require_online(source: str) -> None:
    """Raise DownloadError where the environment forbids the network."""
    variable = next((name for name in _OFFLINE if os.environ.get(name, "").upper() in _TRUE), None)
    if variable:
        raise DownloadError(
            f"{source} is not in the cache, and {variable} forbids the network; unset it once, or give the path of a "
            "file"
        )


def require_no_pickle(source: str, name: str, *, allow_pickle: bool) -> None:
    """Raise PickleError before a file is fetched whose name says that it may not be opened."""
    suffix = suffix_of(name).lower()
    if suffix not in ("", SAFETENSORS) and not allow_pickle:
        raise PickleError(
            f"{source} is {name[:100]!r}, a pickle file, which can run code when opened; pass --allow-pickle to read "
            "its tensors only (weights_only), or look for it as safetensors"
        )


def fetch(cache: WebCache, part: Part, expected: Expected) -> Path:
    """Fetch a file into a claimed part of the cache, and keep it.

    Raises DownloadError, CorruptFileError for what is no adapter file, PickleError, OutputError.
    """

    def name_of(given: str | None) -> str:
        return expected.name if expected.named or not given else safe_name(given)

    def check(given: str | None) -> None:
        require_no_pickle(expected.source, name_of(given), allow_pickle=expected.allow_pickle)

    with download_bar(f"downloading {expected.name[:_LONGEST_BAR]}") as progress:
        notes = bring(expected.wanted._replace(check=check), part, progress)
    try:
        name = _with_suffix(name_of(notes.name), part.path)
        sha256 = _checked(name, part.path, expected)
    except CorruptFileError as error:
        part.drop()
        reason = str(error).removeprefix(str(part.path)).partition("; download or copy it again")[0]
        raise CorruptFileError(f"what came from {expected.source}{reason}; it is not kept") from error
    except DownloadError:
        part.drop()
        raise
    facts = {
        "source": expected.source,
        "sha256": sha256,
        "etag": notes.etag,
        "last_modified": notes.modified,
        "name": notes.name,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        **expected.facts,
    }
    stem = name[: len(name) - len(suffix_of(name))]
    return cache.keep(part, name, facts, {stem + ending: content for ending, content in expected.side.items()})


def _checked(name: str, path: Path, expected: Expected) -> str:
    """Give the sha256 of what came. Raises CorruptFileError for what is not whole, DownloadError for another file."""
    if name.lower().endswith(SAFETENSORS):
        read_header(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if expected.sha256 not in (None, sha256):
        raise DownloadError(
            f"{expected.source} is not what was announced: its sha256 is {sha256[:12]} instead of "
            f"{str(expected.sha256)[:12]}, and it is not kept; try again, and if that does not help tell who offers it"
        )
    return sha256


def _with_suffix(name: str, path: Path) -> str:
    """Give a name that says nothing the suffix of what the file is. Raises CorruptFileError for what is no adapter."""
    with path.open("rb") as file:
        start = file.read(_START)
    suffix, instead = suffix_of(name), impostor(start) if start else "empty"
    pickled = start.startswith((b"PK\x03\x04", b"\x80")) and not begins_as_header(start)
    if instead and not pickled:
        raise CorruptFileError(f"{path} is {instead}")
    if suffix:
        return name
    return safe_name(name + (FILE_SUFFIXES[2] if pickled else SAFETENSORS))
