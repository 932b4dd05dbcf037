"""Write a file whole or not at all: to a temporary sibling, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lorakit_cli.core.leftovers import PART, Remark, discard, unused
from lorakit_cli.core.output_claim import output_claim
from lorakit_cli.core.write_error import write_error
from lorakit_cli.errors import OutputError, OutputExistsError


@contextmanager
def new_file(
    path: Path, *, overwrite: bool = False, parents: bool = False, remark: Remark | None = None
) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when complete, and not at all after an error.

    `parents` makes missing folders above it; `remark` hears what interrupted runs left. Raises OutputExistsError where
    it exists already (unless `overwrite`), OutputError where it cannot be written or another run is writing it.
    """
    require_absent(path, overwrite=overwrite)
    with output_claim(path, parents=parents, remark=remark):
        # An interrupted run's has perhaps been put back.
        require_absent(path, overwrite=overwrite)
        # On the same file system, so that the rename is one step.
        temporary = unused(path, PART)
        try:
            with temporary.open("xb") as file:
                yield file
            if overwrite:
                temporary.replace(path)
            else:
                _rename_if_absent(temporary, path)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            discard(temporary, remark)


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


def send_to_disk(file: BinaryIO, begin: int, end: int) -> None:
    """Let the system begin to store a part of a file that is complete, while more is written and checked."""
    # It may then forget what it has stored, which Linux does not as long as it is on its way.
    if hasattr(os, "posix_fadvise"):
        # A file system that cannot do it stores the file later, as always.
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)


def _rename_if_absent(temporary: Path, path: Path) -> None:
    """Rename without replacing what another run may have written meanwhile, where the file system can link."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise OutputExistsError(f"{path} has been written by another run meanwhile") from error
    except OSError:
        temporary.replace(path)
