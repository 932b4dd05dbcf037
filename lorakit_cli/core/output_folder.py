"""Write a folder whole or not at all: as a temporary sibling that takes its place in one step."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorakit_cli.core.exchange import exchange
from lorakit_cli.core.leftovers import OLD, PART, Remark, discard, unused
from lorakit_cli.core.output_claim import output_claim
from lorakit_cli.core.write_error import write_error
from lorakit_cli.errors import OutputError, OutputExistsError


@contextmanager
def new_folder(
    path: Path, *, overwrite: bool = False, parents: bool = False, remark: Remark | None = None
) -> Iterator[Path]:
    """Give a folder to write into that appears under its name only when complete, and not at all after an error.

    `parents` makes missing folders above it; `remark` hears what interrupted runs left. Raises OutputExistsError where
    it exists already (unless `overwrite`), OutputError where it cannot be written or another run is writing it.
    """
    require_no_folder(path, overwrite=overwrite)
    with output_claim(path, parents=parents, remark=remark):
        # An interrupted run's has perhaps been put back.
        require_no_folder(path, overwrite=overwrite)
        temporary = unused(path, PART)
        try:
            temporary.mkdir()
            yield temporary
            _put(temporary, path, overwrite=overwrite)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            discard(temporary, remark)


def require_no_folder(path: Path, *, overwrite: bool = False) -> None:
    """Raise OutputExistsError where a folder would be replaced unasked, OutputError where it is something else."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another name or add --overwrite")
    if path.is_symlink() or not path.is_dir():
        raise OutputError(f"{path} is not a folder")


def _put(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Put a folder in its place; what was there is the temporary one afterwards."""
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    if not overwrite:
        raise OutputExistsError(f"{path} has been written by another run meanwhile")
    if exchange(temporary, path):
        return
    # A run that is killed between the two leaves the old one whole, and the next puts it back.
    old = unused(path, OLD)
    try:
        path.rename(old)
        temporary.rename(path)
    finally:
        # Also where Ctrl-C came between the two.
        if not os.path.lexists(path) and os.path.lexists(old):
            old.rename(path)
    # It may be removed by halves from here on, and is never to be put back.
    old.rename(temporary)
