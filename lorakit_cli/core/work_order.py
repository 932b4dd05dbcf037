"""In which order pictures are drawn: those with the same weights together, and next what changes the fewest."""

from collections.abc import Mapping, Sequence

from lorakit_cli.core.match import Target
from lorakit_cli.core.plan import Plan, Term


def work_order(plans: Sequence[Plan], plan_of: Sequence[int]) -> list[int]:
    """Order pictures of which each has one of these plans; those of one plan keep their order."""
    wanted = [dict(plan.changes()) for plan in plans]
    waiting = list(dict.fromkeys(plan_of))
    order: list[int] = []
    current: Mapping[Target, tuple[Term, ...]] = {}
    while waiting:
        # A tie goes to what was asked for first.
        nearest = min(waiting, key=lambda plan: _differing(current, wanted[plan]))
        waiting.remove(nearest)
        current = wanted[nearest]
        order += [picture for picture, plan in enumerate(plan_of) if plan == nearest]
    return order


def _differing(one: Mapping[Target, tuple[Term, ...]], other: Mapping[Target, tuple[Term, ...]]) -> int:
    """Count the tensors that change from one to the other."""
    return sum(one.get(target) != other.get(target) for target in one.keys() | other.keys())
