"""What of an adapter's metadata goes on into a converted file: all but what is no longer true, hashes made anew."""

from collections.abc import Mapping, Sequence

from lorakit_cli.core.new_tensor import NewTensor, blocks, in_order, places
from lorakit_cli.core.source import Source

# Settings of a layout that is left behind.
_LAYOUT = ("lora_adapter_metadata",)
_MODEL_HASH, _LEGACY_HASH, _CONTENT_HASH = "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"
_LENGTHS = {_MODEL_HASH: 64, _LEGACY_HASH: 8, _CONTENT_HASH: 64}


def carried(metadata: Mapping[str, str]) -> dict[str, str]:
    """Give the metadata to write; hashes in it are only place-holders, of their final length."""
    kept = {key: value for key, value in metadata.items() if key not in _LAYOUT}
    return {key: _mark(value) + "0" * _LENGTHS[key] if key in _LENGTHS else value for key, value in kept.items()}


def states_hashes(metadata: Mapping[str, str]) -> bool:
    """Tell whether metadata states any hash of the file."""
    return not _LENGTHS.keys().isdisjoint(metadata)


def with_hashes(tensors: Sequence[NewTensor], metadata: Mapping[str, str], source: Source) -> dict[str, str]:
    """Give the metadata with the true hashes of a file of these tensors, where it states any."""
    from lorakit_cli.service.hashing import addnet_hashes

    found = addnet_hashes(places(tensors), metadata, blocks(in_order(tensors), source))
    # Where nobody can tell, the place-holder stays: no other file has that hash.
    true = {_MODEL_HASH: found.model, _LEGACY_HASH: found.legacy, _CONTENT_HASH: found.model}
    known = {key: _mark(metadata[key]) + text for key, text in true.items() if key in metadata and text}
    return {**metadata, **known}


def _mark(value: str) -> str:
    """Give what some programs write before a hash."""
    return "0x" if value.startswith("0x") else ""
