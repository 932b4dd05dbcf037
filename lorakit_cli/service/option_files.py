"""The local files that options name, such as a picture to begin with: told by their contents, and found again."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from lorakit_cli.core.option_values import option_values
from lorakit_cli.core.picture_recipe import RecordedFile
from lorakit_cli.core.shown import shown
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import PathError, RecipeError
from lorakit_cli.service.adapter_digests import digest_of, places_of_adapter

_DIGITS = 12


def option_files(*options: Any) -> dict[str, RecordedFile]:
    """Give the values that are files or folders of this machine, by the names of the options."""
    found: dict[str, RecordedFile] = {}
    for name, value in (entry for each in options for entry in option_values(each).items()):
        path = _local(value)
        if path is not None:
            found[name] = RecordedFile(path.name, digest_of(path) if path.is_file() else None)
    return found


def find_option_file(name: str, recorded: RecordedFile, beside: Path) -> str:
    """Find a file again, by its name beside the picture and here, or wherever it was last. Raises RecipeError."""
    for path in _places(recorded, beside):
        if recorded.sha256 is None or digest_of(path) == recorded.sha256:
            return str(path)
    option = f"--{name.replace('_', '-')}"
    what = f", sha256 {recorded.sha256[:_DIGITS]}" if recorded.sha256 else ""
    raise RecipeError(
        f"{shown(recorded.file)}{what}, which {option} was, is not here: looked for it in {beside} and in this folder; "
        f"{option} PATH says where it is"
    )


def overlaid(options: Mapping[str, Any], files: Mapping[str, RecordedFile], known: Any, beside: Path) -> dict[str, Any]:
    """Put found files where options of one kind had them; options that are given are left alone."""
    fields = type(known).__dataclass_fields__
    wanted = {name: file for name, file in files.items() if name in fields and name not in option_values(known)}
    return {**options, **{name: find_option_file(name, file, beside) for name, file in wanted.items()}}


def _places(recorded: RecordedFile, beside: Path) -> Iterator[Path]:
    name = PureWindowsPath(recorded.file).name
    for folder in dict.fromkeys((beside, Path())):
        path = folder / name
        if name and (path.is_file() if recorded.sha256 else path.is_dir()):
            yield path
    if recorded.sha256:
        yield from places_of_adapter(recorded.sha256)


def _local(value: object) -> Path | None:
    """Give the path that a value is, None for anything else: a plain word is no path, whatever is called so here."""
    if not isinstance(value, str | Path) or not (set("/\\.~") & set(str(value))):
        return None
    try:
        path = user_path(str(value))
        return path if path.exists() else None
    except PathError:
        return None
