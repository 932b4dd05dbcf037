"""Whether a disk has room for what is to be written."""

import shutil
from pathlib import Path

from lorakit_cli.errors import OutputError


def require_space(folder: Path, needed: int) -> None:
    """Raise OutputError where a folder, which need not exist yet, has fewer bytes free than needed."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        # Writing tells.
        return
    # Some network file systems do not know their size.
    if usage.total and usage.free < needed:
        raise OutputError(
            f"not enough space in {folder}: {_gigabytes(needed)} are needed and {_gigabytes(usage.free)} free; "
            "free some, or write to another disk"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
