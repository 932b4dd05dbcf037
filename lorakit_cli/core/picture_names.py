"""Where pictures go: the file asked for, one per seed in a folder, or a readable name that replaces nothing."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.output_file import require_absent, require_writable
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError, OutputError

SUFFIX = ".png"
SUFFIXES = (SUFFIX, ".webp", ".jpg", ".jpeg")
_LONGEST = 48


@dataclass(frozen=True, slots=True)
class PictureNames:
    """One path per picture, in the order of the prompts and of the seeds."""

    paths: tuple[Path, ...]
    overwrite: bool

    @classmethod
    def choose(cls, out: str | None, prompt: str, seeds: Sequence[int], *, overwrite: bool = False) -> "PictureNames":
        """Choose the paths of one prompt's pictures. Raises OptionError or OutputError."""
        return cls.choose_all(out, [prompt], seeds, overwrite=overwrite)

    @classmethod
    def choose_all(
        cls,
        out: str | None,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        overwrite: bool = False,
        quality: int | None = None,
    ) -> "PictureNames":
        """Choose the paths, prompt by prompt and in each seed by seed, and see that nothing is replaced unasked.

        Raises OptionError or OutputError.
        """
        if out is None or _means_folder(out):
            folder = user_path(out or ".")
            stems = [f"{slug(prompt)}_seed{seed}" for prompt in prompts for seed in seeds]
            paths = tuple(_unused(folder, stems, overwrite=overwrite))
        else:
            path = user_path(out)
            if path.suffix.lower() not in SUFFIXES:
                raise OptionError(
                    f"--out {out}: pictures are written as {', '.join(SUFFIXES)}; a folder is written with a / at its "
                    "end"
                )
            paths = tuple(path.with_stem(path.stem + end) for end in _ends(len(prompts), seeds))
            if not path.parent.is_dir():
                there = "is not a folder" if path.parent.exists() else "does not exist; create it first"
                raise OutputError(f"--out {out}: {path.parent} {there}")
        if quality is not None and paths[0].suffix.lower() == SUFFIX:
            raise OptionError(f"--quality {quality}: {SUFFIX} loses nothing; --out FILE.webp or FILE.jpg has a quality")
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


def _ends(prompts: int, seeds: Sequence[int]) -> list[str]:
    """Give what tells several pictures of one name apart: the number of the prompt, and the seed."""
    width = len(str(prompts))
    numbers = [f"_{number:0{width}}" for number in range(1, prompts + 1)] if prompts > 1 else [""]
    return [number + (f"_seed{seed}" if len(seeds) > 1 else "") for number in numbers for seed in seeds]


def _unused(folder: Path, stems: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Give each a name that none before it has, and that no file has which would be replaced unasked."""
    # Not every file system tells upper from lower case.
    taken: set[str] = set()
    latest: dict[str, int] = {}
    for stem in stems:
        number = latest.get(stem, 1)
        path = folder / (f"{stem}{SUFFIX}" if number == 1 else f"{stem}_{number}{SUFFIX}")
        while path.name.lower() in taken or (not overwrite and path.exists()):
            number += 1
            path = folder / f"{stem}_{number}{SUFFIX}"
        latest[stem] = number
        taken.add(path.name.lower())
        yield path
