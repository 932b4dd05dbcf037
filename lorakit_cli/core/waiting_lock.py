"""Let one process at a time do a piece of work, and the others wait until it is done."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorakit_cli.core.file_lock import lock_file

# A link put in its place is not followed.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_CANNOT = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_PAUSE = 0.1


@contextmanager
def waiting_lock(place: Path, waits: Callable[[], object] | None = None) -> Iterator[bool]:
    """Hold a lock, once it is free; give whether it is one, which some file systems cannot make.

    `waits` is called again and again while another process has it. The file stays. Raises OSError.
    """
    fd = os.open(place, _FLAGS, 0o666)
    try:
        yield _locked(fd, waits)
    finally:
        os.close(fd)


def _locked(fd: int, waits: Callable[[], object] | None) -> bool:
    while True:
        try:
            lock_file(fd)
        except BlockingIOError:
            if waits:
                waits()
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return False
        else:
            return True
