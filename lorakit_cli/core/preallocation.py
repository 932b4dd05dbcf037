"""Take the space of a file before it is written, so that a full disk shows at once."""

import errno
import os
from typing import Any

_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


def preallocate(fd: int, size: int) -> None:
    """Make a file this long with its space taken, or only this long where the file system cannot. Raises OSError."""
    try:
        _take(fd, size)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        os.ftruncate(fd, size)


def _take(fd: int, size: int) -> None:
    call = _fallocate()
    if call is None:
        if not hasattr(os, "posix_fallocate"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        os.posix_fallocate(fd, 0, size)
        return
    import ctypes

    if call(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _fallocate() -> Any:
    """Find Linux's own call: where the file system cannot, glibc's `posix_fallocate` writes to every block instead."""
    try:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
    except (ImportError, OSError, TypeError):
        return None
    # Where both are there, the plain one may take offsets of 32 bits.
    return getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
