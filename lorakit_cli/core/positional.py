"""Read from and write to places of an open file, whatever other threads do with it."""

import os
from threading import Lock

# Where a place can only be gone to, no other thread may go elsewhere before it is used.
_SEEKING = Lock()


def read_into(file: int, buffer: memoryview, place: int) -> int:
    """Fill a buffer from a place in a file; give the number of bytes that there were. Raises OSError."""
    done = 0
    while done < len(buffer):
        count = _read(file, buffer[done:], place + done)
        if not count:
            break
        done += count
    return done


def write_at(file: int, data: memoryview, place: int) -> None:
    """Write all of the data to a place in a file. Raises OSError."""
    done = 0
    while done < len(data):
        done += _write(file, data[done:], place + done)


def _read(file: int, buffer: memoryview, place: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file, [buffer], place)
    with _SEEKING:
        os.lseek(file, place, os.SEEK_SET)
        data = os.read(file, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _write(file: int, data: memoryview, place: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, place)
    with _SEEKING:
        os.lseek(file, place, os.SEEK_SET)
        return os.write(file, data)
