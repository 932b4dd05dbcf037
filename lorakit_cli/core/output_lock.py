"""Let one run at a time write an output: a lock beside it, which ends with its process however that ends."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lorakit_cli.core.file_lock import is_at, lock_file
from lorakit_cli.core.hidden_sibling import hidden_sibling
from lorakit_cli.core.lock_holder import Holder
from lorakit_cli.core.pid_file import take_pid_file
from lorakit_cli.core.write_error import write_error
from lorakit_cli.errors import OutputError

# A link put in its place is not followed.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_CANNOT = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Hold the lock of an output. Raises OutputError where another run holds it or none can be made."""
    place, pid_file = hidden_sibling(path, "lock"), hidden_sibling(path, "pid")
    try:
        fd = _locked(path, place)
        if fd is None:
            _take(path, pid_file)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield
    finally:
        if fd is None:
            with suppress(OSError):
                pid_file.unlink()
        else:
            _release(fd, place)


def _locked(path: Path, place: Path) -> int | None:
    """Open and lock the file, or give nothing where this file system has no locks."""
    while True:
        fd = os.open(place, _FLAGS, 0o666)
        kept = False
        try:
            lock_file(fd)
            # Otherwise another run has removed it after it was opened here, and a third one may hold a new one.
            kept = is_at(fd, place)
        except BlockingIOError:
            raise _held(path, _holder(place)) from None
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            with suppress(OSError):
                place.unlink()
            return None
        finally:
            if not kept:
                os.close(fd)
        if kept:
            # On a full disk it stays without a name, and what is written next tells.
            with suppress(OSError):
                Holder.this().write(fd)
            return fd


def _release(fd: int, place: Path) -> None:
    """Remove the file while it is still locked, so that nobody can have locked what is removed."""
    removed = True
    try:
        if is_at(fd, place):
            place.unlink()
    except PermissionError:
        removed = False
    except OSError:
        pass
    finally:
        os.close(fd)
    if not removed:
        # Windows removes nothing that is open, whoever has it open.
        with suppress(OSError):
            place.unlink()


def _take(path: Path, pid_file: Path) -> None:
    holder = take_pid_file(pid_file)
    if holder:
        raise _held(path, holder)


def _holder(place: Path) -> Holder | None:
    try:
        return Holder.read(place)
    except OSError:
        # It has ended meanwhile, or is another user's who lets nobody read.
        return None


def _held(path: Path, holder: Holder | None) -> OutputError:
    named = f" ({holder})" if holder else ""
    return OutputError(f"another run{named} is writing {path}; wait for it or stop it")
