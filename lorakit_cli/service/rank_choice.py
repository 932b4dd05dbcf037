"""Ranks for all modules under a rule, whether each can be told by itself or only all together."""

from collections.abc import Callable, Mapping, Sequence

from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.core.rank_budget import Spectrum, ranks_within
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.core.tensor_info import BIT_SIZES
from lorakit_cli.errors import OptionError
from lorakit_cli.service.decomposing import RuleOf

# Gives the size of the whole file with these ranks.
SizeOf = Callable[[Sequence[int]], int]


def rule_by_module(rule: RankRule) -> RuleOf:
    """Keep what a rule says that looks at one module at a time; without any, the highest rank that went into it."""
    return (lambda slot: rule) if rule.given else (lambda slot: RankRule(rank=_highest_rank(slot)))


def _highest_rank(slot: MergeSlot) -> int:
    """Give the highest rank among what is summed; what has none counts as a whole matrix."""
    return max(part.share.layer.rank or min(slot.matrix) for part in slot.contributions)


def rules_within(
    budget: int,
    slots: Sequence[MergeSlot],
    spectra: Sequence[Sequence[float]],
    dtypes: Sequence[str],
    size_of: SizeOf,
) -> RuleOf:
    """Keep so much that a file is no larger than the budget. Raises OptionError where even rank 1 everywhere is."""
    costs = [sum(slot.matrix) * BIT_SIZES[dtype] // 8 for slot, dtype in zip(slots, dtypes, strict=True)]
    try:
        ranks = ranks_within([Spectrum(*entry) for entry in zip(spectra, costs, strict=True)], budget, size_of)
    except ValueError as error:
        (least,) = error.args
        narrower = ", or store it in fp16" if "F32" in dtypes else ""
        raise OptionError(
            f"--size {budget} bytes is too little: with rank 1 in every layer the file has {least}; "
            f"ask for at least {-(-least // 10_000) / 100:.2f}MB{narrower}"
        ) from error
    chosen: Mapping[int, int] = {id(slot): rank for slot, rank in zip(slots, ranks, strict=True)}
    return lambda slot: RankRule(rank=chosen[id(slot)])
