"""Let two names change places in one step."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# From linux/fcntl.h and linux/fs.h, and from macOS's sys/stdio.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2
# What kernels and file systems say that cannot; with EPERM, the rules of some containers.
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM})


def exchange(first: Path, second: Path) -> bool:
    """Swap two files or folders so that neither name is ever missing, or give False where the system cannot.

    Raises OSError.
    """
    call = _system_exchange()
    if call is None:
        return False
    number = call(os.fsencode(first), os.fsencode(second))
    if number in _CANNOT:
        return False
    if number:
        raise OSError(number, os.strerror(number), str(first), None, str(second))
    return True


def _system_exchange() -> Callable[[bytes, bytes], int] | None:
    """Find the system's call; it gives an error's number or 0."""
    try:
        # Few runs replace a folder.
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
    except (ImportError, OSError, TypeError):
        return None

    def number(result: int) -> int:
        return ctypes.get_errno() if result else 0

    linux: Any = getattr(library, "renameat2", None)
    if linux is not None:
        return lambda first, second: number(linux(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE))
    apple: Any = getattr(library, "renamex_np", None)
    if apple is not None:
        return lambda first, second: number(apple(first, second, _RENAME_SWAP))
    return None
