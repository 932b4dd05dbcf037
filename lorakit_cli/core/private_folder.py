"""A folder for files that only this process needs, removed when it ends."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_made: dict[int, Path] = {}


def private_folder() -> Path:
    """Give this process's own folder, made on the first call and open to its user alone. Raises OSError."""
    process = os.getpid()
    if process not in _made:
        _made[process] = Path(tempfile.mkdtemp(prefix="lorakit-"))
        atexit.register(remove_private_folder)
    return _made[process]


def remove_private_folder() -> None:
    """Remove the folder with all that is in it; for an end of the process that `atexit` does not see."""
    # Not the parent's, in a process that has been forked off.
    folder = _made.pop(os.getpid(), None)
    if folder is not None:
        # Windows does not let go of a file that is still mapped; the system's own cleaning takes it.
        shutil.rmtree(folder, ignore_errors=True)
