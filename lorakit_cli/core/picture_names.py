"""Where pictures go: the file asked for, one per seed in a folder, or a readable name that replaces nothing."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.output_file import require_absent, require_writable
from lorakit_cli.errors import OptionError, OutputError

SUFFIX = ".png"
_LONGEST = 48


@dataclass(frozen=True, slots=True)
class PictureNames:
    """One path per picture, in the order of the seeds."""

    paths: tuple[Path, ...]
    overwrite: bool

    @classmethod
    def choose(cls, out: str | None, prompt: str, seeds: Sequence[int], *, overwrite: bool = False) -> "PictureNames":
        """Choose the paths and see that they can be written. Raises OptionError or OutputError."""
        if out is None or _means_folder(out):
            folder = Path(out or ".").expanduser()
            if out is not None and not folder.exists():
                require_writable(_nearest_existing(folder))
            else:
                require_writable(folder)
            stem = slug(prompt)
            return cls(tuple(_unused(folder, f"{stem}_seed{seed}") for seed in seeds), overwrite)
        path = Path(out).expanduser()
        if path.suffix.lower() != SUFFIX:
            raise OptionError(f"--out {out}: pictures are written as {SUFFIX}; a folder is written with a / at its end")
        paths = (path,) if len(seeds) == 1 else tuple(path.with_stem(f"{path.stem}_seed{seed}") for seed in seeds)
        require_writable(path.parent)
        for chosen in paths:
            require_absent(chosen, overwrite=overwrite)
        return cls(paths, overwrite)


def slug(prompt: str) -> str:
    """Make a short file name of a prompt, in letters and digits of any script."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    if len(words) > _LONGEST:
        words = words[: _LONGEST + 1].rpartition("-")[0] or words[:_LONGEST]
    return words or "picture"


def _means_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).expanduser().is_dir()


def _nearest_existing(folder: Path) -> Path:
    existing = next((parent for parent in folder.absolute().parents if parent.exists()), None)
    if existing is None or not existing.is_dir():
        raise OutputError(f"cannot create the folder {folder}")
    return existing


def _unused(folder: Path, stem: str) -> Path:
    path, number = folder / f"{stem}{SUFFIX}", 2
    while path.exists():
        path, number = folder / f"{stem}_{number}{SUFFIX}", number + 1
    return path
