"""Merging by pruning: of each change the small values are left out, or some by lot; where signs differ, one wins.

Yadav et al., 2023 (TIES), arXiv:2306.01708; Yu et al., 2023 (DARE), arXiv:2311.03099;
https://github.com/huggingface/peft/blob/main/src/peft/utils/merge_utils.py, whose outcomes these are. What is drawn
depends on the seed and the module's name alone, not on the order of work.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from lorakit_cli.core.merge_method import MergeSettings
from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service.decomposing import Total
from lorakit_cli.service.slot_values import change_of, thin
from lorakit_cli.service.tensors import TensorReader


def total_by(settings: MergeSettings) -> Total:
    """Give the function that merges the whole changes of a module.

    A negative weight turns a change before signs are elected: to take something away is a change the other way.
    """

    def total(slot: MergeSlot, reader: TensorReader) -> Tensor:
        changes: list[Tensor] = []
        weights: list[float] = []
        for _, parts in groupby(slot.contributions, lambda part: part.adapter):
            own = list(parts)
            strength = own[0].strength
            change = torch.stack([change_of(slot, part, reader) for part in own]).sum(0)
            changes.append(change * math.copysign(1.0, strength))
            weights.append(abs(strength))
        return merged(changes, weights, settings, _lot(settings, slot))

    return total


def merged_factors(slot: MergeSlot, reader: TensorReader, settings: MergeSettings) -> tuple[Tensor, Tensor]:
    """Merge the factors of a module each by itself, at the root of each weight.

    Their product has cross terms, so that it is no merge of the changes, but what peft makes under this name. Raises
    UnsupportedError where factors differ in rank, or are not those of the very module.
    """
    layers = [part.share.layer for part in slot.contributions]
    if any(
        not layer.kind.product or not part.share.covers for layer, part in zip(layers, slot.contributions, strict=True)
    ):
        raise _no_factors(slot, settings, "it is not plain LoRA of one and the same module in all adapters")
    if len({layer.rank for layer in layers}) > 1:
        ranks = " and ".join(str(layer.rank) for layer in layers)
        raise _no_factors(slot, settings, f"its ranks are {ranks}")
    pairs = [thin(part, reader, scaled=False) for part in slot.contributions]
    scales = [part.share.layer.scale * part.strength for part in slot.contributions]
    roots = [math.sqrt(abs(scale)) for scale in scales]
    signed = [math.copysign(root, scale) for root, scale in zip(roots, scales, strict=True)]
    lot = _lot(settings, slot)
    ups, downs = zip(*pairs, strict=True)
    down = merged(downs, signed, settings, lot)
    return merged(ups, roots, settings, lot), down


def merged(
    changes: Sequence[Tensor], weights: Sequence[float], settings: MergeSettings, lot: torch.Generator
) -> Tensor:
    """Merge tensors of one shape: prune each, elect signs if the method does, and add them up at their weights."""
    density = settings.density or 1.0
    prune = _by_lot if settings.method.draws else _by_size
    pruned = torch.stack([change if density == 1 else prune(change, density, lot) for change in changes])
    weighted = pruned * pruned.new_tensor(weights).reshape(-1, *(1 for _ in changes[0].shape))
    if not settings.method.elects:
        return weighted.sum(0)
    signs = pruned.sign()
    votes = pruned.sum(0) if settings.majority_sign == "total" else signs.sum(0)
    winners = signs == torch.where(votes >= 0, 1.0, -1.0)
    return (weighted * winners).sum(0) / winners.sum(0).clamp(min=1)


def _by_size(change: Tensor, density: float, lot: torch.Generator) -> Tensor:
    """Keep the share of values that are the largest."""
    flat = change.reshape(-1)
    places = flat.abs().topk(int(density * flat.numel())).indices
    kept = torch.zeros_like(flat)
    kept[places] = flat[places]
    return kept.reshape(change.shape)


def _by_lot(change: Tensor, density: float, lot: torch.Generator) -> Tensor:
    """Keep each value with this probability, made larger so that their expectation stays."""
    kept = torch.bernoulli(torch.full(change.shape, density), generator=lot).to(change)
    return change * kept / density


def _lot(settings: MergeSettings, slot: MergeSlot) -> torch.Generator:
    name = f"{settings.seed}/{slot.place.stem}/{slot.parameter}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    return torch.Generator().manual_seed(seed)


def _no_factors(slot: MergeSlot, settings: MergeSettings, reason: str) -> UnsupportedError:
    name = settings.method.name
    return UnsupportedError(
        f"{slot.place.stem}: {name} works on the factors as they are, and {reason}; {name}_svd works on the changes"
    )
