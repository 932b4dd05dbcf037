"""How one picture was made: what is written into it, and read again to make it once more."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.option_values import option_values, options_from
from lorakit_cli.core.recipe import Recipe, parse_recipe
from lorakit_cli.core.seeds import LARGEST
from lorakit_cli.core.stated import parse_json
from lorakit_cli.errors import RecipeError

VERB = "generate"
_SCHEMA = "lorakit/picture/1"


@dataclass(frozen=True, slots=True)
class PictureRecipe:
    """Base and adapters as a recipe has them, and the rest that decides a picture.

    `literal`: the prompt went to the text encoders as it stands, without weights. `files` are the local files among
    settings and loading, by the name of the option. Where the recipe's `arithmetic` and `versions` are the same, the
    picture comes out the same to the last bit.
    """

    recipe: Recipe
    prompt: str
    negative: str | None
    seed: int
    settings: Settings
    loading: Loading
    literal: bool
    files: Mapping[str, "RecordedFile"]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Give it as it is written; its `facts`, which follow from the rest, are for those who read it."""
        recipe = self.recipe.as_json()
        # The same picture is the same file on any day.
        del recipe["date"]
        return {
            **self.facts,
            "schema": _SCHEMA,
            "prompt": self.prompt,
            "negative_prompt": self.negative,
            "literal_prompt": self.literal,
            "seed": self.seed,
            "settings": self._written(self.settings),
            "loading": self._written(self.loading),
            "files": {name: {"file": file.file, "sha256": file.sha256} for name, file in self.files.items()},
            "recipe": recipe,
        }

    def _written(self, options: object) -> dict[str, Any]:
        """Leave out the places of files, which are those of one machine."""
        return {name: value for name, value in option_values(options).items() if name not in self.files}


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file that an option named: what it is called and its sha256, None for a folder."""

    file: str
    sha256: str | None


def parse_picture_recipe(text: str, where: object) -> PictureRecipe:
    """Read what a picture says about itself. Raises RecipeError."""
    try:
        entries = parse_json(text)
        if not isinstance(entries, dict) or entries.get("schema") != _SCHEMA:
            kind = entries.get("schema") if isinstance(entries, dict) else None
            raise RecipeError(
                f"{where} says in a way that this lorakit does not know how it was made: schema {kind!r:.60}"
            )
        return _read(entries, where)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise RecipeError(f"what {where} says about how it was made cannot be read: {reason:.200}") from error


def _read(entries: Mapping[str, Any], where: object) -> PictureRecipe:
    recipe = parse_recipe(json.dumps(entries["recipe"]), where)
    if recipe is None or recipe.verb != VERB:
        raise ValueError("its recipe is none of a picture")
    seed = entries["seed"]
    if type(seed) is not int or not 0 <= seed <= LARGEST:
        raise ValueError(f"seed is {seed!r:.60}")
    negative = entries.get("negative_prompt")
    return PictureRecipe(
        recipe=recipe,
        prompt=_text(entries["prompt"]),
        negative=None if negative is None else _text(negative),
        seed=seed,
        settings=options_from(Settings, entries["settings"]),
        loading=options_from(Loading, entries["loading"]),
        literal=entries.get("literal_prompt") is True,
        files={
            _text(name): RecordedFile(_text(file["file"]), None if file["sha256"] is None else _text(file["sha256"]))
            for name, file in entries.get("files", {}).items()
        },
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no text")
    return value
