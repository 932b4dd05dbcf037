"""What the system says when an output cannot be written, in words that lead on."""

import errno
import os
from pathlib import Path

from lorakit_cli.errors import OutputError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_error(path: Path, error: OSError) -> OutputError:
    """Tell what went wrong while an output was written, and at which other file if it was one."""
    if error.errno in _FULL:
        return OutputError(f"the disk is full: cannot write {path}; free some space, or write to another disk")
    reason = error.strerror or str(error)
    elsewhere = error.filename is not None and not _is_of(path, os.fsdecode(str(error.filename)))
    return OutputError(f"cannot write {path}: {reason}" + (f": {error.filename}" if elsewhere else ""))


def _is_of(path: Path, other: str) -> bool:
    """Tell an output and its temporaries, whose names say nothing to people."""
    return other == str(path) or other.startswith(str(path.with_name(f".{path.name}.")))
