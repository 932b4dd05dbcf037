"""Merging by pruning: of each change the small values are left out, or some by lot; where signs differ, one wins.

Yadav et al., 2023 (TIES), arXiv:2306.01708; Yu et al., 2023 (DARE), arXiv:2311.03099;
https://github.com/huggingface/peft/blob/main/src/peft/utils/merge_utils.py, whose outcomes these are. What is drawn
depends on the seed and the module's name alone, not on the order of work.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import reduce
from itertools import groupby

import torch
from torch import Tensor

from lorakit_cli.core.merge_method import MergeSettings
from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service.decomposing import Total
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.largest_values import keep_largest
from lorakit_cli.service.slot_factors import Pair, thin
from lorakit_cli.service.slot_values import change_of
from lorakit_cli.service.tensors import TensorReader

# Values that are merged at a time, few enough to stay in a processor's cache; a GPU wants more at once.
_AT_ONCE, _AT_ONCE_ON_GPU = 1 << 16, 1 << 24


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
            change = reduce(torch.add, (change_of(slot, part, reader, torch.float32) for part in own))
            changes.append(change if strength > 0 else -change)
            weights.append(abs(strength))
        return merged(changes, weights, settings, _lot(settings, slot))

    return total


def merged_factors(slot: MergeSlot, reader: FactorReader, settings: MergeSettings) -> Pair:
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
    ups, downs = ([torch.from_numpy(factor) for factor in factors] for factors in zip(*pairs, strict=True))
    down = merged(downs, signed, settings, lot)
    return merged(ups, roots, settings, lot).numpy(), down.numpy()


def merged(
    changes: Sequence[Tensor], weights: Sequence[float], settings: MergeSettings, lot: torch.Generator
) -> Tensor:
    """Merge tensors of one shape: prune each, elect signs if the method does, and add them up at their weights.

    The tensors are used up: they hold something else afterwards.
    """
    density = settings.density or 1.0
    if density < 1:
        prune = _by_lot if settings.method.draws else _by_size
        changes = [prune(change, density, lot) for change in changes]
    flats = [change.reshape(-1) for change in changes]
    merged = torch.empty_like(flats[0])
    size = _AT_ONCE if merged.device.type == "cpu" else _AT_ONCE_ON_GPU
    for begin in range(0, len(merged), size):
        own = [flat[begin : begin + size] for flat in flats]
        total = _elected(own, weights, settings.majority_sign) if settings.method.elects else _weighted(own, weights)
        merged[begin : begin + size] = total
    return merged.view(changes[0].shape)


def _elected(changes: Sequence[Tensor], weights: Sequence[float], majority: str) -> Tensor:
    """Take the mean of the values whose sign wins, at their weights."""
    votes = reduce(torch.add, changes if majority == "total" else (change.sign() for change in changes))
    # Zero votes for what is positive.
    winner = (votes >= 0).to(votes).mul_(2).sub_(1)
    sizes = [(change * winner).relu_() for change in changes]
    count = reduce(torch.add, (size.sign() for size in sizes)).clamp_(min=1)
    return _weighted(sizes, weights).mul_(winner).div_(count)


def _weighted(changes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return reduce(torch.add, (change * weight for change, weight in zip(changes, weights, strict=True)))


def _by_size(change: Tensor, density: float, lot: torch.Generator) -> Tensor:
    """Keep the share of values that are the largest."""
    return keep_largest(change, int(density * change.numel()))


def _by_lot(change: Tensor, density: float, lot: torch.Generator) -> Tensor:
    """Keep each value with this probability, made larger so that their expectation stays."""
    kept = torch.bernoulli(torch.full(change.shape, density), generator=lot).to(change)
    return kept.mul_(change).div_(density)


def _lot(settings: MergeSettings, slot: MergeSlot) -> torch.Generator:
    name = f"{settings.seed}/{slot.place.stem}/{slot.parameter}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    return torch.Generator().manual_seed(seed)


def _no_factors(slot: MergeSlot, settings: MergeSettings, reason: str) -> UnsupportedError:
    name = settings.method.name
    return UnsupportedError(
        f"{slot.place.stem}: {name} works on the factors as they are, and {reason}; {name}_svd works on the changes"
    )
