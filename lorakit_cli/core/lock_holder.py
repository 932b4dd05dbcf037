"""The process that holds a lock, as the lock's file names it."""

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.living_process import lives

_TEXT = re.compile(rb"(\d{1,19}) (.*)\n", re.DOTALL)
_LONGEST = 400
_TRIES = 25


class Holder(NamedTuple):
    """A process, and the machine on which it runs."""

    process: int
    machine: str

    @classmethod
    def this(cls) -> "Holder":
        """Name this process."""
        return cls(os.getpid(), this_machine())

    @classmethod
    def read(cls, place: Path) -> "Holder | None":
        """Read who holds a lock; nothing where its file stays empty. Raises OSError."""
        holder = None
        for _ in range(_TRIES):
            with place.open("rb") as file:
                found = _TEXT.fullmatch(file.read(_LONGEST))
            holder = cls(int(found[1]), found[2].decode(errors="replace")) if found else None
            if holder and not holder.gone:
                break
            # Whoever has just taken it has not yet put in its own number, or that of the last one still stands.
            time.sleep(0.01)
        return holder

    def write(self, fd: int) -> None:
        """Write it into a lock's file. Raises OSError."""
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, f"{self.process} {self.machine}\n".encode())

    @property
    def gone(self) -> bool:
        """Whether the process has ended; of those on other machines that is not known."""
        return self.machine == this_machine() and not lives(self.process)

    def __str__(self) -> str:
        return f"process {self.process}" + (f" on {self.machine}" if self.machine != this_machine() else "")


def this_machine() -> str:
    """Give the name of this machine."""
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
