"""How much adapters have in common, as a report: in all, by component and by block."""

from typing import NamedTuple


class PairOverlap(NamedTuple):
    """Two adapters over the layers that both change.

    `cosine` is that of their changes at the given weights, all layers as one vector: 1 where they do the same, 0 where
    they have nothing to do with each other, -1 where one undoes the other. `outputs` and `inputs` are the mean squared
    cosines of the principal angles between what they write to and what they read from, averaged over layers: the share
    of the smaller space that lies in the larger. `by_chance` is what random spaces of those sizes have of it. All are
    None where there is no such layer.
    """

    one: str
    other: str
    component: str | None
    block: str | None
    layers: int
    cosine: float | None
    outputs: float | None
    inputs: float | None
    by_chance: float | None


class AdapterNorm(NamedTuple):
    """An adapter: its weight, the Frobenius norm of its change at that weight, and the weight that is suggested."""

    name: str
    weight: float
    norm: float
    suggested: float


class OverlapReport(NamedTuple):
    """What adapters have in common. `rule` says where the suggested weights come from."""

    architecture: str
    adapters: tuple[AdapterNorm, ...]
    pairs: tuple[PairOverlap, ...]
    components: tuple[PairOverlap, ...]
    blocks: tuple[PairOverlap, ...]
    together: float
    independent: float
    rule: str
    warnings: tuple[str, ...]
