"""Bring the summed changes of modules to a lower rank: to the closest product there is, module by module."""

from collections.abc import Sequence

from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.service.decomposing import Decomposed, RuleOf, Total, decompose_each
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.lanes import Progress
from lorakit_cli.service.slot_factors import dtype_of
from lorakit_cli.service.stored_factors import StoredFactors, compared, store


def reduce_rank(
    slots: Sequence[MergeSlot],
    reader: FactorReader,
    rule_of: RuleOf,
    dtype: str | None,
    *,
    total: Total | None = None,
    progress: Progress | None = None,
) -> list[StoredFactors]:
    """Give each module's change at the rank that a rule keeps, in the order of the modules, rounded to `dtype`.

    That is spelled as safetensors does; None is what its factors are stored in. `total` gives another change than the
    sum of all; errors are those against the sum all the same.
    """
    done: dict[int, StoredFactors] = {}

    def use(found: Decomposed) -> None:
        slot, up, down = found.slot, found.up, found.down
        result = store(slot, up, down, dtype or dtype_of(slot, reader), found.norm, found.tail)
        done[id(slot)] = compared(result, up, down, reader) if total else result

    decompose_each(slots, reader, rule_of, use, total=total, progress=progress)
    return [done[id(slot)] for slot in slots]
