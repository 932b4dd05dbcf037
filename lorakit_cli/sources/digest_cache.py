"""Remember digests of large files from run to run, as long as the files stay what they were."""

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

_MOST = 1000
_LARGEST = 4_000_000
# The clock of a file system may be too coarse to tell two writings within this time.
_SETTLED_AFTER = 2_000_000_000

_writing = threading.Lock()
# For a run of many pictures, the file need be read only once.
_told: dict[tuple[str, str, str], str] = {}
_Entries = dict[str, dict[str, str]]


def remembered(path: Path, kind: str, compute: Callable[[Path], str]) -> str:
    """Give a digest of a file: the one of an earlier run where size, times and place of the file are still the same."""
    place, state = str(path.resolve()), _state(path)
    here = place, state, kind
    if here in _told:
        return _told[here]
    known = _read().get(place, {})
    kept = known.get("state") == state and kind in known
    digest = known[kind] if kept else compute(path)
    # What has changed meanwhile, or only just before, may be something else under the same time.
    if _state(path) == state and time.time_ns() - path.stat().st_ctime_ns > _SETTLED_AFTER:
        _told[here] = digest
        if not kept:
            _keep(place, state, kind, digest)
    return digest


def places_of(kind: str, digest: str) -> Iterator[Path]:
    """Yield the files that had this digest when they were looked at last, and that are there."""
    for place, known in _read().items():
        if known.get(kind) == digest and Path(place).is_file():
            yield Path(place)


def _state(path: Path) -> str:
    now = path.stat()
    # The time of the last change of the inode cannot be set at will.
    return f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns} {now.st_ino}"


def _file() -> Path:
    return user_cache_path("lorakit") / "digests.json"


def _read() -> _Entries:
    """Read what was kept, nothing where that is no longer readable."""
    try:
        path = _file()
        if path.stat().st_size > _LARGEST:
            return {}
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {
        place: known
        for place, known in entries.items()
        if isinstance(known, dict) and all(isinstance(value, str) for value in known.values())
    }


def _keep(place: str, state: str, kind: str, digest: str) -> None:
    """Write one more digest down; where that fails it is computed again the next time."""
    # Files are digested side by side; of two processes the later one's digests are kept.
    with _writing, suppress(OSError):
        entries = _read()
        known = entries.pop(place, {})
        entries[place] = (known if known.get("state") == state else {"state": state}) | {kind: digest}
        kept = dict(list(entries.items())[-_MOST:])
        folder = _file().parent
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "w") as file:
            json.dump(kept, file)
        Path(temporary).replace(_file())
