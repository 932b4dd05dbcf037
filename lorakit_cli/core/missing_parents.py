"""Folders that are made for an output, and are gone again where it does not come to be."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lorakit_cli.core.write_error import write_error


@contextmanager
def missing_parents(path: Path) -> Iterator[None]:
    """Make the folders above an output that are not there; remove them after an error. Raises OutputError."""
    missing = [folder for folder in path.parents if not folder.exists()]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            try:
                folder.mkdir()
            except FileExistsError as error:
                # By another run meanwhile, unless it is no folder.
                if not folder.is_dir():
                    raise write_error(path, error) from error
            except OSError as error:
                raise write_error(path, error) from error
            else:
                made.append(folder)
        yield
    except BaseException:
        for folder in reversed(made):
            # Not where something else has come into it.
            with suppress(OSError):
                folder.rmdir()
        raise
