"""A recipe in the header of a single file: room is kept for it before the data are written, and filled afterwards."""

import json
from collections.abc import Mapping

from lorakit_cli.core.recipe import RECIPE_KEY, Recipe

# What is only known at the end, such as on what it was computed, makes the text this much longer at most.
_ROOM = 1024
# Hashes of what the file was before.
_STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


def metadata_with_room(metadata: Mapping[str, str], draft: Recipe) -> dict[str, str]:
    """Give metadata with room for a recipe that is the draft but for digests, which are as long, and a few words."""
    kept = {key: value for key, value in metadata.items() if key not in _STALE}
    return kept | {RECIPE_KEY: _text(draft) + " " * _ROOM}


def with_recipe(header: bytes, draft: Recipe, recipe: Recipe) -> bytes:
    """Put the recipe into the room that was kept in a header, which stays as long as it is.

    Raises ValueError where the header has no such room.
    """
    reserved, text = _quoted(_text(draft) + " " * _ROOM), _quoted(_text(recipe))
    room = len(reserved) - len(text)
    if room < 0 or header.count(reserved) != 1:
        raise ValueError("the header has no room for the recipe")
    # Before the closing quote: spaces behind a JSON text mean nothing.
    return header.replace(reserved, text[:-1] + b" " * room + text[-1:])


def _text(recipe: Recipe) -> str:
    return json.dumps(recipe.as_json(), separators=(",", ":"))


def _quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
