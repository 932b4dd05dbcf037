"""Where pictures go: the file asked for, one per seed in a folder, or a readable name that replaces nothing."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.output_file import require_absent, require_writable
from lorakit_cli.core.user_path import user_path
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
        """Choose the paths and see that nothing is replaced unasked. Raises OptionError or OutputError."""
        if out is None or _means_folder(out):
            folder = user_path(out or ".")
            stems = [f"{slug(prompt)}_seed{seed}" for seed in seeds]
            paths = tuple(folder / f"{stem}{SUFFIX}" if overwrite else _unused(folder, stem) for stem in stems)
        else:
            path = user_path(out)
            if path.suffix.lower() != SUFFIX:
                raise OptionError(
                    f"--out {out}: pictures are written as {SUFFIX}; a folder is written with a / at its end"
                )
            one = len(seeds) == 1
            paths = (path,) if one else tuple(path.with_stem(f"{path.stem}_seed{seed}") for seed in seeds)
            if not path.parent.is_dir():
                there = "is not a folder" if path.parent.exists() else "does not exist; create it first"
                raise OutputError(f"--out {out}: {path.parent} {there}")
        for chosen in paths:
            require_absent(chosen, overwrite=overwrite)
        return cls(paths, overwrite)

    def require_writable(self) -> None:
        """Raise OutputError where the pictures could not be written, before work is done for them."""
        for folder in {path.parent for path in self.paths}:
            require_writable(folder if folder.exists() else _nearest_existing(folder))


def slug(prompt: str) -> str:
    """Make a short file name of a prompt, in letters and digits of any script."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    if len(words) > _LONGEST:
        words = words[: _LONGEST + 1].rpartition("-")[0] or words[:_LONGEST]
    return words or "picture"


def _means_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or user_path(out).is_dir()


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
