"""The metadata of an adapter whose ranks have changed: kohya's statements about them made true again, the rest kept."""

import json
from collections.abc import Mapping, Sequence

_DIM, _ALPHA, _ARGS, _COMMENT = "ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_training_comment"
# What kohya's resize_lora.py writes where layers differ.
_DYNAMIC = "Dynamic"
_CONV = ("conv_dim", "conv_alpha")
# LyCORIS' word for the algorithm, and what it calls those of two factors, which any other has become.
_ALGORITHM = "algo"
_PLAIN = ("lora", "locon")


def resized_metadata(metadata: Mapping[str, str], ranks: Sequence[int], before: str) -> dict[str, str]:
    """Give the metadata with the new ranks, and alphas equal to them, where it states any."""
    if not {_DIM, _ALPHA, "ss_network_module"} & metadata.keys():
        return dict(metadata)
    kinds = {rank for rank in ranks if rank}
    rank = str(kinds.pop()) if len(kinds) == 1 else _DYNAMIC
    alpha = rank if rank == _DYNAMIC else str(float(rank))
    comment = f"dimension is resized from {before} to {rank}"
    old = metadata.get(_COMMENT)
    new = {_DIM: rank, _ALPHA: alpha, _COMMENT: f"{comment}; {old}" if old and old != "None" else comment}
    arguments = _arguments(metadata.get(_ARGS, ""))
    changed: dict[str, object] = {}
    if not arguments.keys().isdisjoint(_CONV):
        changed |= zip(_CONV, (rank, alpha), strict=True)
    if arguments.get(_ALGORITHM, _PLAIN[0]) not in _PLAIN:
        changed[_ALGORITHM] = _PLAIN[0]
    if changed:
        new[_ARGS] = json.dumps(arguments | changed)
    return {**metadata, **new}


def _arguments(text: str) -> dict[str, object]:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}
