"""What interrupted runs left beside an output: parts of no worth, and old outputs that were moved aside."""

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from os import getpid
from os.path import lexists
from pathlib import Path

from lorakit_cli.core.hidden_sibling import hidden_sibling
from lorakit_cli.core.output_lock import output_lock
from lorakit_cli.core.write_error import write_error

# A part is worthless, whatever is in it; an old output is whole.
PART = "part"
OLD = "old"

Remark = Callable[[str], None]


def leftovers(path: Path) -> list[Path]:
    """List what runs left beside an output; while its lock is held, all of it is of runs that have ended."""
    name = re.compile(re.escape(f".{path.name}.") + rf"\d+\.({PART}|{OLD})", re.ASCII)
    try:
        return sorted(found for found in path.parent.iterdir() if name.fullmatch(found.name))
    except OSError:
        return []


def recover(path: Path, remark: Remark | None = None) -> None:
    """Put back an output that an interrupted run had moved aside, and remove the parts that it left.

    Raises OutputError where another run is writing it now.
    """
    if leftovers(path):
        with output_lock(path):
            tidy(path, remark)


def tidy(path: Path, remark: Remark | None = None) -> None:
    """Do what `recover` does, with the lock held. Raises OutputError."""
    found = leftovers(path)
    whole = [old for old in found if old.suffix == f".{OLD}"]
    if whole and not lexists(path):
        latest = max(whole, key=lambda old: old.lstat().st_mtime_ns)
        try:
            latest.rename(path)
        except OSError as error:
            raise write_error(path, error) from error
        if remark:
            remark(f"put back {path}, which an interrupted run had moved aside")
    _remove([part for part in found if part.suffix == f".{PART}"], remark)


def remove_old(path: Path, remark: Remark | None = None) -> None:
    """Remove old outputs, with the lock held and a new one in their place."""
    for old in leftovers(path):
        if old.suffix == f".{OLD}":
            # Not by halves under a name from which it would be put back.
            part = unused(path, PART)
            with suppress(OSError):
                old.rename(part)
                _remove([part], remark)


def unused(path: Path, kind: str) -> Path:
    """Name a part or an old output that is not there yet."""
    return next(place for number in count(getpid()) if not lexists(place := hidden_sibling(path, f"{number}.{kind}")))


def discard(path: Path, remark: Remark | None = None) -> bool:
    """Remove a part, a file or a folder, and tell whether it is gone; what stays is left to the next run."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    gone = not lexists(path)
    if remark and not gone:
        remark(f"cannot remove {path}, which is of no use any more")
    return gone


def _remove(parts: list[Path], remark: Remark | None) -> None:
    for part in parts:
        if discard(part, remark) and remark:
            remark(f"removed what an interrupted run left: {part}")
