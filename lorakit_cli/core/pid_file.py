"""A lock for file systems that know none: a file that only one can create, and that names its process."""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from lorakit_cli.core.file_lock import is_at
from lorakit_cli.core.lock_holder import Holder

_TRIES = 5
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def take_pid_file(place: Path) -> Holder | None:
    """Create the file, or tell who has it. Raises OSError."""
    for _ in range(_TRIES):
        try:
            fd = os.open(place, _FLAGS, 0o666)
        except FileExistsError:
            # Otherwise it has just been removed by its own process.
            with suppress(FileNotFoundError):
                holder = Holder.read(place)
                if holder and not holder.gone:
                    return holder
                _remove_stale(place)
            continue
        try:
            Holder.this().write(fd)
            # Who sleeps between creating and writing is taken for dead.
            if is_at(fd, place):
                return None
        finally:
            os.close(fd)
    raise OSError(errno.EEXIST, f"a run that has ended left {place}*; remove that if no other is running")


def _remove_stale(place: Path) -> None:
    """Remove what a dead process left; one at a time, so that nobody removes what another has just created."""
    guard = place.with_name(f"{place.name}.guard")
    try:
        os.close(os.open(guard, _FLAGS, 0o666))
    except FileExistsError:
        time.sleep(0.01)
        return
    try:
        holder = Holder.read(place)
        if holder is None or holder.gone:
            place.unlink()
    finally:
        guard.unlink()
