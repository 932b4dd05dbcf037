"""A file whose bytes become those of new ones, read at any place and by several threads."""

import mmap
from functools import cached_property
from pathlib import Path
from typing import Self

from lorakit_cli.core.positional import read_into
from lorakit_cli.errors import CorruptFileError

# Below this a call to the system costs more than touching mapped memory.
_LARGE = 1 << 14


class Source:
    """The bytes of a file, which is open as long as the context lasts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @cached_property
    def view(self) -> memoryview:
        """All of it, mapped. It is let go with the last view of it, and an error on its way holds some."""
        return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))

    def fill(self, buffer: memoryview, begin: int) -> None:
        """Read into all of a buffer what begins at a place. Raises CorruptFileError where the file is too short.

        Reading lets other threads work, which touching mapped memory for the first time does not.
        """
        if len(buffer) < _LARGE:
            buffer[:] = self.view[begin : begin + len(buffer)]
            return
        if read_into(self._file.fileno(), buffer, begin) < len(buffer):
            raise CorruptFileError(f"{self.path} has been cut off since its header was read")
