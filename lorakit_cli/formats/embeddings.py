"""Textual inversions that lie in an adapter's file: new words for the text encoder, no change of any weight.

A1111 and OneTrainer bundle them as `bundle_emb.<word>.…`, cloneofsimo and diffusers as the bare word.
"""

from collections.abc import Mapping

from lorakit_cli.core.late import late

_BUNDLED = late(r"bundle_emb\.(.+?)\.(?:string_to_param\..+|string_to_token\..+|[^.]+)")
# What A1111 and the SDXL trainers name the parts of one embedding.
_ALONE = late(r"(?:string_to_param|string_to_token)\..+|emb_params|clip_[lg]")
_MARK = "<embed>"
_STARTS = ("bundle_emb.", "string_to_", "emb_params", "clip_", "<")
# The usual spelling of a new word, which no module has.
_WORD = late(r"<[^<>]+>")


def embedding_of(key: str, metadata: Mapping[str, str]) -> str | None:
    """Name the textual inversion that a key belongs to, None where it belongs to none."""
    if metadata.get(key) != _MARK and not key.startswith(_STARTS):
        return None
    if found := _BUNDLED.fullmatch(key):
        return found[1]
    if metadata.get(key) == _MARK or _WORD.fullmatch(key):
        return key
    return metadata.get("name", "embedding") if _ALONE.fullmatch(key) else None
