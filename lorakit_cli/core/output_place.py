"""Whether an output may and can be written where it is wanted, told before any work is done for it."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from lorakit_cli.core.hidden_sibling import hidden_sibling
from lorakit_cli.core.hub_cache import hub_cache_around
from lorakit_cli.core.leftovers import PART, discard, unused
from lorakit_cli.core.write_error import write_error
from lorakit_cli.errors import OptionError, OutputError, OutputExistsError

_Identity = tuple[int, int]
# What is in pipelines and folders of adapters.
_MARKS = ("model_index.json", "lorakit.json", "adapter_config.json")


def require_place(out: Path, sources: Sequence[Path], *, folder: bool, overwrite: bool) -> None:
    """See that an output, a folder or a file, can be written without harm to what is read.

    `sources` are files and folders. Folders above the output may be missing. Raises OutputExistsError where it exists
    already (unless `overwrite`), OutputError.
    """
    hidden_sibling(out, PART)
    try:
        _require_no_link(out)
        _require_apart(out, sources)
        _require_outside_cache(out)
        _require_kind(out, folder=folder, overwrite=overwrite)
        _require_writable(out)
    except OSError as error:
        raise write_error(out, error) from error
    except RuntimeError as error:
        # Links that lead in a circle, until Python 3.13.
        raise OutputError(f"cannot write {out}: {error}") from error


def require_png(path: Path) -> None:
    """Raise OptionError for a picture that would not be named as what it is."""
    if path.suffix.lower() != ".png":
        raise OptionError(f"{path}: pictures are written as .png; name it {path.with_suffix('.png')}")


def _require_no_link(out: Path) -> None:
    if out.is_symlink():
        raise OutputError(
            f"{out} is a link to {out.readlink()}, and is neither followed nor replaced; "
            "name the place itself, or another one"
        )


def _require_apart(out: Path, sources: Sequence[Path]) -> None:
    """Refuse what is read, what lies in it and what it lies in; whatever names and links they are reached by."""
    own = _identity(out)
    around = {identity for folder in out.resolve().parents if (identity := _identity(folder))}
    for source in sources:
        # A source that is a link would be lost with the folder that the link is in.
        above = {*source.resolve().parents, *_located(source).parents}
        if own and own == _identity(source):
            raise OutputError(f"{out} is {source}, which is read; choose another place")
        if _identity(source) in around:
            raise OutputError(f"{out} lies in {source}, which is read; choose a place outside it")
        if own and own in map(_identity, above):
            raise OutputError(f"{out} holds {source}, which is read; choose another place")


def _located(path: Path) -> Path:
    """Resolve where a path lies, but not where it leads to."""
    return path.parent.resolve() / path.name


def _identity(path: Path) -> _Identity | None:
    """Tell a file or folder from every other, however its name is written."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _require_outside_cache(out: Path) -> None:
    cache = hub_cache_around(out)
    if cache:
        raise OutputError(f"{out} lies in the Hub's cache, {cache}, whose files are shared; choose a place outside it")


def _require_kind(out: Path, *, folder: bool, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if out.is_dir() != folder:
        what, wanted = ("a folder", "a file") if out.is_dir() else ("not a folder", "a folder")
        raise OutputError(f"{out} is {what}, and {wanted} is to be written; choose another name")
    if not overwrite:
        raise OutputExistsError(f"{out} exists already; choose another name or add --overwrite")
    if folder and not _is_an_output(out):
        raise OutputError(
            f"{out} holds other things than a pipeline or adapters, and is not replaced; name a new folder"
        )
    if folder and Path.cwd().is_relative_to(out.resolve()):
        raise OutputError(f"{out} holds the folder you are in, and is not replaced; name a new one")
    if not folder and not out.is_file():
        raise OutputError(f"{out} is no ordinary file; choose another name")
    if os.path.ismount(out):
        raise OutputError(f"{out} is where a disk is mounted, and cannot be replaced; name a folder inside it")


def _is_an_output(folder: Path) -> bool:
    """Tell whether a folder is such as this program or its like writes, or empty: nobody's only copy of anything."""
    if any((folder / name).exists() for name in _MARKS):
        return True
    # For peft there is one folder for each component, and nothing beside them.
    return all((inside / "adapter_config.json").is_file() for inside in folder.iterdir())


def _require_writable(out: Path) -> None:
    """Make and remove a folder beside the output, or as near to it as there are folders."""
    existing = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not existing.is_dir():
        raise OutputError(f"cannot write {out}: {existing} is not a folder")
    probe = unused(existing / out.name, PART)
    try:
        probe.mkdir()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = f"{existing} takes no new files ({error.strerror}); choose another place"
            raise OutputError(f"cannot write {out}: {reason}") from error
        raise
    discard(probe)
