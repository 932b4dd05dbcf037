"""Write a folder whole or not at all: as a temporary sibling, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorakit_cli.errors import OutputError, OutputExistsError


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to write into that appears under its name only when complete, and not at all after an error.

    Raises OutputExistsError where it exists already (unless `overwrite`), OutputError where it cannot be written.
    """
    require_no_folder(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # Also where Ctrl-C came between the two.
        if old.is_dir() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def require_no_folder(path: Path, *, overwrite: bool = False) -> None:
    """Raise OutputExistsError where a folder would be replaced unasked, OutputError where it is something else."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another name or add --overwrite")
    if path.is_symlink() or not path.is_dir():
        raise OutputError(f"{path} is not a folder")
