"""The different weights that the cells of a grid need, and an order in which few tensors change between them."""

from lorakit_cli.core.match import Target
from lorakit_cli.core.plan import Plan

# Beyond it the search takes longer than it saves; the grid's own order has its neighbours side by side too.
_MOST_SEARCHED = 300


class WeightStates:
    """Weight states, each known by what its plan adds to which tensor. State numbers count from 0 as they come."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Target, tuple[tuple[str, str, float], ...]], int] = {}
        self._targets: list[Target] = []
        self._states: dict[frozenset[int], int] = {}

    def number(self, plan: Plan) -> int:
        """Give the number of a plan's state; plans that come to the same weights have the same."""
        changes: list[int] = []
        for target, terms in plan.changes():
            change = target, tuple((term.adapter, str(term.file), term.strength) for term in terms)
            if change not in self._numbers:
                self._numbers[change] = len(self._targets)
                self._targets.append(target)
            changes.append(self._numbers[change])
        return self._states.setdefault(frozenset(changes), len(self._states))

    def __len__(self) -> int:
        return len(self._states)

    def order(self) -> list[int]:
        """List all states, each time the one next that has the fewest tensors to change, from the bare base on."""
        states = list(self._states)
        if len(states) > _MOST_SEARCHED:
            return list(range(len(states)))
        left, here, order = dict(enumerate(states)), frozenset[int](), list[int]()
        while left:
            nearest = min(left, key=lambda number: (self._apart(here, left[number]), number))
            here = left.pop(nearest)
            order.append(nearest)
        return order

    def _apart(self, one: frozenset[int], other: frozenset[int]) -> int:
        """Count the tensors that differ between two states."""
        return len({self._targets[change] for change in one ^ other})
