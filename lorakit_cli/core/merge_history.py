"""What an adapter was made from, as far as its metadata tells."""

import re
from collections.abc import Mapping

from lorakit_cli.core.late import late
from lorakit_cli.core.record import Record
from lorakit_cli.core.stated import Statements, capped, text_of

_MOST = 50
# Comments that kohya's tools, and lorakit, put before what stood there.
_NOTES = late(r"(merged|dimension is resized|dynamic resize|extracted)\b", re.IGNORECASE)


class MergeHistory(Record):
    """The names of what was merged, the method as stated, and remarks of tools that rewrote the file."""

    merged_from: tuple[str, ...] = ()
    method: str | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_merge_history(metadata: Mapping[str, str]) -> MergeHistory:
    """Read what is stated about merging. Never raises.

    `modelspec.merged_from` lists titles with commas; `sd_merge_models` maps hashes to names and `sd_merge_recipe`
    holds the settings, https://github.com/AUTOMATIC1111/stable-diffusion-webui (modules/extras.py).
    """
    stated = Statements(metadata)
    titles = capped(metadata.get("modelspec.merged_from", ""), 5000).split(",")
    models = list(stated.mapping("sd_merge_models").values())[:_MOST]
    names = [text_of(model.get("name")) for model in models if isinstance(model, dict)]
    method = [
        stated.text(("sd_merge_recipe", key), limit=60) for key in ("type", "interp_method", "merge_mode", "multiplier")
    ]
    remarks = capped(metadata.get("ss_training_comment", ""), 2000).split(";")
    return MergeHistory(
        tuple(dict.fromkeys(name for text in [*titles, *names] if (name := capped((text or "").strip(), 100))))[:_MOST],
        ", ".join(text for text in method if text) or None,
        tuple(capped(remark) for remark in remarks if remark and _NOTES.match(remark.strip())),
        tuple(stated.problems),
    )
