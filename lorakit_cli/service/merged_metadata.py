"""The metadata of a merged adapter: where it comes from, what it listens to, and what all its parts agree on."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lorakit_cli import __version__
from lorakit_cli.core.triggers import read_triggers

MERGE_KEY = "lorakit.merge"
# Facts about the base, which stay true where all adapters state them alike. Everything else in ss_* is about one
# training, and of several it would be a lie.
_SHARED = (
    "ss_base_model_version", "ss_v2", "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_clip_skip",
    "modelspec.architecture", "modelspec.resolution", "modelspec.prediction_type", "modelspec.sai_model_spec",
    "modelspec.implementation",
)  # fmt: skip
_HASHES = {"sshs_model_hash": "0" * 64, "sshs_legacy_hash": "0" * 8, "modelspec.hash_sha256": "0x" + "0" * 64}
_KOHYA = "ss_network_module"


class MergedFile(NamedTuple):
    """An adapter as it went into a merge."""

    name: str
    weight: float
    sha256: str
    metadata: Mapping[str, str]
    triggers: tuple[str, ...] = ()
    block_scales: Mapping[str, Any] | str | None = None


def merged_metadata(
    adapters: Sequence[MergedFile], settings: Mapping[str, object], ranks: Sequence[int]
) -> dict[str, str]:
    """Give the metadata of a merge with these settings and ranks; hashes are place-holders of their final length."""
    kept = {
        key: adapters[0].metadata[key]
        for key in _SHARED
        if key in adapters[0].metadata and len({adapter.metadata.get(key) for adapter in adapters}) == 1
    }
    kept[MERGE_KEY] = json.dumps({"version": __version__, "adapters": list(map(_source, adapters)), **settings})
    kept["modelspec.merged_from"] = ", ".join(adapter.name for adapter in adapters)
    words = [word for adapter in adapters for word in (adapter.triggers or read_triggers(adapter.metadata).best)]
    if words:
        kept["modelspec.trigger_phrase"] = ", ".join(dict.fromkeys(words))
    if any(_KOHYA in adapter.metadata for adapter in adapters):
        kinds = set(ranks) - {0}
        rank = str(kinds.pop()) if len(kinds) == 1 else "Dynamic"
        weights = ", ".join(f"{adapter.name}:{adapter.weight:g}" for adapter in adapters)
        kept |= {
            _KOHYA: "networks.lora",
            "ss_network_dim": rank,
            "ss_network_alpha": rank if rank == "Dynamic" else str(float(rank)),
            "ss_training_comment": f"merged by lorakit from {weights}",
        }
    stated = {key for adapter in adapters for key in adapter.metadata}
    return kept | {key: place for key, place in _HASHES.items() if key in stated}


def _source(adapter: MergedFile) -> dict[str, object]:
    """Say what an adapter is and how strongly it acts, for another merge like this one."""
    entries: dict[str, object] = {"name": adapter.name, "weight": adapter.weight, "sha256": adapter.sha256}
    return entries | ({"block_scales": adapter.block_scales} if adapter.block_scales is not None else {})
