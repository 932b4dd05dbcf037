"""Copy files and stretches of them inside the kernel where it can, by any number of threads at once."""

import errno
import importlib
import os
from pathlib import Path

from lorakit_cli.core.positional import read_into, write_at

# Above this a call to the system costs nothing beside its work; below, Ctrl-C is heard soon.
_KERNEL_PIECE = 128 << 20
_PIECE = 4 << 20
# From linux/fs.h; Python names it since 3.13.
_FICLONE = 0x40049409
# What kernels and file systems say that cannot do this here. A real fault shows again in the plain copy.
_CANNOT = frozenset(
    getattr(errno, name)
    for name in ("EXDEV", "EINVAL", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "ENOTTY", "ENOTSOCK", "EPERM", "ETXTBSY")
    if hasattr(errno, name)
)


def copy_file(source: Path, target: Path) -> None:
    """Copy the contents of a file to a new one, sharing its blocks on disk where the file system can.

    The new file has normal permissions, whatever the other's are. Raises OSError.
    """
    with source.open("rb", buffering=0) as given, target.open("xb", buffering=0) as made:
        source_fd, target_fd = given.fileno(), made.fileno()
        size = os.fstat(source_fd).st_size
        if _clone(source_fd, target_fd):
            return
        done = _copy_in_kernel(source_fd, target_fd, 0, 0, size)
        done += _send(source_fd, target_fd, done, size - done)
        _copy_plainly(source_fd, target_fd, done, done, size - done)


def clone_file(source: Path, target: Path) -> bool:
    """Make a new file share all blocks of another, and tell whether that is possible; if not, it is there, empty.

    Raises OSError.
    """
    with source.open("rb", buffering=0) as given, target.open("xb", buffering=0) as made:
        return _clone(given.fileno(), made.fileno())


def copy_range(source_fd: int, target_fd: int, offset_in: int, offset_out: int, count: int) -> None:
    """Copy a stretch of one open file into another, wherever their own positions are. Raises OSError."""
    done = _copy_in_kernel(source_fd, target_fd, offset_in, offset_out, count)
    _copy_plainly(source_fd, target_fd, offset_in + done, offset_out + done, count - done)


def _clone(source_fd: int, target_fd: int) -> bool:
    """Make a file share all blocks of another, and tell whether that was possible."""
    try:
        fcntl = importlib.import_module("fcntl")
        fcntl.ioctl(target_fd, getattr(fcntl, "FICLONE", _FICLONE), source_fd)
    except ImportError:
        return False
    except OSError as error:
        return _refused(error)
    return True


def _copy_in_kernel(source_fd: int, target_fd: int, offset_in: int, offset_out: int, count: int) -> int:
    """Copy as much as `copy_file_range` does here, and tell how much that was."""
    done = 0
    if not hasattr(os, "copy_file_range"):
        return done
    while done < count:
        piece = min(count - done, _KERNEL_PIECE)
        try:
            copied = os.copy_file_range(source_fd, target_fd, piece, offset_in + done, offset_out + done)
        except OSError as error:
            _refused(error)
            break
        # The end of the file, or a file system of which some kernels only say so.
        if not copied:
            break
        done += copied
    return done


def _send(source_fd: int, target_fd: int, offset: int, count: int) -> int:
    """Copy as much as `sendfile` does here, and tell how much that was. Moves the target's position."""
    done = 0
    if not hasattr(os, "sendfile") or not count:
        return done
    os.lseek(target_fd, offset, os.SEEK_SET)
    while done < count:
        try:
            sent = os.sendfile(target_fd, source_fd, offset + done, min(count - done, _KERNEL_PIECE))
        except OSError as error:
            _refused(error)
            break
        if not sent:
            break
        done += sent
    return done


def _refused(error: OSError) -> bool:
    """Give False for an error that means "not here, not so"; raise any other."""
    if error.errno not in _CANNOT:
        raise error
    return False


def _copy_plainly(source_fd: int, target_fd: int, offset_in: int, offset_out: int, count: int) -> None:
    buffer = memoryview(bytearray(min(count, _PIECE)))
    done = 0
    while done < count:
        got = read_into(source_fd, buffer[: count - done], offset_in + done)
        if not got:
            raise OSError(
                errno.EIO, f"the file that is read ends {count - done} bytes early; was it changed meanwhile?"
            )
        write_at(target_fd, buffer[:got], offset_out + done)
        done += got
