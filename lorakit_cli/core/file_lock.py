"""A lock on an open file that ends with its process, by whichever way the system has."""

import errno
import importlib
import os
from pathlib import Path

# Windows keeps others from reading what is locked, and the start of the file is to be read.
_FAR = 1 << 30


def lock_file(fd: int) -> None:
    """Lock an open file. Raises BlockingIOError where another has it, any other OSError where none can be made."""
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:
        _lock_range(fd)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_range(fd: int) -> None:
    try:
        msvcrt = importlib.import_module("msvcrt")
    except ImportError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    os.lseek(fd, _FAR, os.SEEK_SET)
    try:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EDEADLK):
            raise BlockingIOError(error.errno, error.strerror) from error
        raise


def is_at(fd: int, place: Path) -> bool:
    """Tell whether an open file is still the one of that name. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(fd), place.lstat())
    except FileNotFoundError:
        return False
