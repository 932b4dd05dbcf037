"""The recipe, lorakit.json: what an output was made of, so that it can be made again, proved, or undone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any

from lorakit_cli.core.file_digest import FileDigest
from lorakit_cli.core.numbers import finite
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.errors import RecipeError

RECIPE_FILE = "lorakit.json"
# Under this name a single file keeps it in its header.
RECIPE_KEY = "lorakit"
_SCHEMA = "lorakit/recipe/1"
_SETTINGS = "lorakit/base/1"


@dataclass(frozen=True, slots=True)
class RecipeAdapter:
    """An adapter that took part: where it was asked for, its file's name, sha256 and size, how strongly it acts.

    `scales` is a digest of the scales of its layers, which a file beside it may give.
    """

    name: str
    source: str
    file: str
    sha256: str
    weight: float
    block_scales: Mapping[str, Any] | str | None = None
    triggers: tuple[str, ...] = ()
    size: int | None = None
    scales: str | None = None


@dataclass(frozen=True, slots=True)
class RecipeBase:
    """The base: where it was asked for, its repository and commit, and the digests of its files of weights.

    `recipe` is that of the base itself, where it is an output too.
    """

    source: str
    class_name: str
    remote: str | None = None
    variant: str | None = None
    files: Mapping[str, FileDigest] = field(default_factory=dict)
    recipe: "Recipe | None" = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an output was made. `verb` is `fuse` or `save`; `components` limits what was changed, None: nothing does.

    `arithmetic` says on what the sums were made: on the same, they come out the same to the last bit.
    """

    verb: str
    base: RecipeBase
    adapters: tuple[RecipeAdapter, ...]
    scale: float = 1.0
    components: tuple[str, ...] | None = None
    dtype: str | None = None
    engine: str = "stream"
    arithmetic: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    generate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def all_adapters(self) -> tuple[RecipeAdapter, ...]:
        """The adapters that are in its weights, those of its base among them."""
        earlier = self.base.recipe.all_adapters if self.base.recipe else ()
        return (*earlier, *self.adapters) if self.verb == "fuse" else earlier

    def as_json(self) -> dict[str, Any]:
        """Give it as it is written."""
        entries = {"schema": _SCHEMA} | asdict(self)
        entries["base"] = asdict(self.base) | {
            "files": {name: digest._asdict() for name, digest in self.base.files.items()},
            "recipe": self.base.recipe.as_json() if self.base.recipe else None,
        }
        return entries

    def text(self) -> str:
        """Write it as the text of lorakit.json."""
        return json.dumps(self.as_json(), indent=2) + "\n"


def settings_text(generate: Mapping[str, Any]) -> str:
    """Write a lorakit.json of a base that was made by nobody, with what it says about making pictures."""
    return json.dumps({"schema": _SETTINGS, "generate": dict(generate)}, indent=2) + "\n"


def read_recipe(path: Path) -> Recipe | None:
    """Read the recipe of a folder, None where it has none. Raises RecipeError for one that cannot be read."""
    file = path / RECIPE_FILE
    if not file.is_file():
        return None
    try:
        return parse_recipe(file.read_text(encoding="utf-8"), file)
    except OSError as error:
        raise RecipeError(f"{file} cannot be read: {error.strerror}") from error


def recipe_of(path: PurePath) -> Recipe | None:
    """Read the recipe of a base, a folder or a single file on this machine, None where it has none.

    Raises RecipeError, or CorruptFileError for the header of a file.
    """
    if not isinstance(path, Path):
        return None
    if path.is_dir():
        return read_recipe(path)
    text = read_header(path).metadata.get(RECIPE_KEY)
    return None if text is None else parse_recipe(text, f"the recipe in {path}")


def parse_recipe(text: str, where: object) -> Recipe | None:
    """Read a recipe, None for settings alone, which an embedded base has under the same name. Raises RecipeError."""
    try:
        entries = json.loads(text)
        if entries.get("schema") in (None, _SETTINGS):
            return None
        if entries["schema"] != _SCHEMA:
            raise RecipeError(f"{where} is of the kind {entries['schema']!r:.60}, which this lorakit does not know")
        return _recipe(entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{where} is no recipe that can be read: {error!r:.200}") from error


def _recipe(entries: Mapping[str, Any]) -> Recipe:
    base = entries["base"]
    files = {str(name): FileDigest(int(one["size"]), str(one["xxh3"])) for name, one in base["files"].items()}
    components = entries.get("components")
    return Recipe(
        verb=_text(entries["verb"]),
        base=RecipeBase(
            _text(base["source"]),
            _text(base["class_name"]),
            _text_or_none(base.get("remote")),
            _text_or_none(base.get("variant")),
            files,
            _recipe(base["recipe"]) if base.get("recipe") else None,
        ),
        adapters=tuple(_adapter(adapter) for adapter in entries["adapters"]),
        scale=finite(entries["scale"]),
        components=None if components is None else tuple(map(_text, components)),
        dtype=_text_or_none(entries.get("dtype")),
        engine=_text(entries["engine"]),
        arithmetic=_texts(entries.get("arithmetic")),
        versions=_texts(entries.get("versions")),
        date=str(entries.get("date", "")),
        generate=dict(entries.get("generate") or {}),
    )


def _adapter(entry: Mapping[str, Any]) -> RecipeAdapter:
    return RecipeAdapter(
        _text(entry["name"]),
        _text(entry["source"]),
        _text(entry["file"]),
        _text(entry["sha256"]),
        finite(entry["weight"]),
        entry.get("block_scales"),
        tuple(map(_text, entry.get("triggers") or ())),
        None if entry.get("size") is None else int(entry["size"]),
        entry.get("scales"),
    )


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _texts(values: Mapping[str, object] | None) -> dict[str, str]:
    return {name: _text(value) for name, value in (values or {}).items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no text")
    return value
