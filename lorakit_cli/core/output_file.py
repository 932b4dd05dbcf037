"""Write a file whole or not at all: to a temporary sibling, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lorakit_cli.errors import OutputError, OutputExistsError


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when complete, and not at all after an error.

    Raises OutputExistsError where it exists already (unless `overwrite`), OutputError where it cannot be written.
    """
    require_absent(path, overwrite=overwrite)
    # A hidden sibling on the same file system, so that the rename is one step; the number keeps runs apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("xb") as file:
            yield file
        if overwrite:
            temporary.replace(path)
        else:
            _rename_if_absent(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def require_absent(path: Path, *, overwrite: bool = False) -> None:
    """Raise OutputExistsError where a file would be replaced unasked, OutputError where it is a folder."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder")
    if os.path.lexists(path) and not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another name or add --overwrite")


def require_writable(folder: Path) -> None:
    """Raise OutputError where a folder is missing or takes no new files, before work is done for it."""
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder")
    probe = folder / f".lorakit.{os.getpid()}.part"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error


def _rename_if_absent(temporary: Path, path: Path) -> None:
    """Rename without replacing what another run may have written meanwhile, where the file system can link."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise OutputExistsError(f"{path} has been written by another run meanwhile") from error
    except OSError:
        temporary.replace(path)
