"""Textual inversions that lie in an adapter's file: new words for the text encoder, no change of any weight.

A1111 and OneTrainer bundle them as `bundle_emb.<word>.…`, cloneofsimo and diffusers as the bare word.
"""

from collections.abc import Collection, Mapping
from operator import methodcaller

from lorakit_cli.core.late import late

_BUNDLED = late(r"bundle_emb\.(.+?)\.(?:string_to_param\..+|string_to_token\..+|[^.]+)")
# What A1111 and the SDXL trainers name the parts of one embedding.
_ALONE = late(r"(?:string_to_param|string_to_token)\..+|emb_params|clip_[lg]")
_MARK = "<embed>"
_STARTS = ("bundle_emb.", "string_to_", "emb_params", "clip_", "<")
# The usual spelling of a new word, which no module has.
_WORD = late(r"<[^<>]+>")


def embeddings(keys: Collection[str], metadata: Mapping[str, str]) -> dict[str, str]:
    """Give the keys that belong to a textual inversion, each with its name."""
    marked = {key for key, value in metadata.items() if value == _MARK}
    if not marked and not any(map(methodcaller("startswith", _STARTS), keys)):
        return {}
    likely = [key for key in keys if key.startswith(_STARTS) or key in marked]
    return {key: name for key in likely if (name := _name(key, key in marked, metadata)) is not None}


def _name(key: str, marked: bool, metadata: Mapping[str, str]) -> str | None:
    if found := _BUNDLED.fullmatch(key):
        return found[1]
    if marked or _WORD.fullmatch(key):
        return key
    return metadata.get("name", "embedding") if _ALONE.fullmatch(key) else None
