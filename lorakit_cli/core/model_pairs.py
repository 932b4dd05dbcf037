"""The parameters of two models of one architecture, side by side, in whatever layout each of them is stored."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.families import ANOTHER, base_family
from lorakit_cli.core.kind import Shape
from lorakit_cli.core.match import Part, Target
from lorakit_cli.errors import WrongBaseError

_DENOISERS = ("unet", "transformer")
# What adapters are made for, by the beginning of its name; an autoencoder is none of it.
ADAPTED = (*_DENOISERS, "text_encoder")

# Modules that look values up instead of multiplying with them.
_TABLES = frozenset({"token_embedding", "position_embedding", "shared", "embed_tokens", "relative_attention_bias"})
_MATRIX = 2


class Pair(NamedTuple):
    """One parameter, by its name in the first model, and where it lies in either."""

    component: str
    parameter: str
    shape: Shape
    before: Part
    after: Part

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.component}.{self.parameter}"

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """The shape as a matrix: all but the rows taken together."""
        return self.shape[0], math.prod(self.shape[1:])

    @property
    def module(self) -> str:
        """The module it belongs to, or the parameter itself where it stands alone."""
        return self.parameter.removesuffix(".weight").removesuffix(".bias")

    @property
    def is_adapted(self) -> bool:
        """Whether adapters are made for its component."""
        return self.component.startswith(ADAPTED)

    @property
    def is_matrix(self) -> bool:
        """Whether it is the weight of a linear layer or a convolution, for which two factors can stand."""
        name = self.module.rpartition(".")[2]
        return self.parameter.endswith(".weight") and len(self.shape) >= _MATRIX and name not in _TABLES


class Pairs(NamedTuple):
    """All parameters that two models share, and the components that only one of them has."""

    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def pair_models(before: BaseIndex, after: BaseIndex, components: Sequence[str]) -> Pairs:
    """Pair every parameter of components that both models have.

    Raises WrongBaseError where the models are of two architectures, or where parameters are missing in one or differ in
    shape.
    """
    where = f"{_described(after)} is no fine-tune of {_described(before)}"
    names = before.components, after.components
    denoisers = [[name for name in own if name.startswith(_DENOISERS)] for own in names]
    if not components or (all(denoisers) and set(denoisers[0]).isdisjoint(denoisers[1])):
        raise WrongBaseError(f"{where}: one has {', '.join(names[1])}, the other {', '.join(names[0])}")
    pairs: dict[str, tuple[Pair, ...]] = {}
    # What a denoiser says of its model is said first.
    for name in sorted(components, key=lambda name: not name.startswith(_DENOISERS)):
        others = [other for other in components if other != name and other.startswith(ADAPTED)]
        rest = "" if name.startswith(_DENOISERS) or not others else f"; --components {','.join(others)} leaves it out"
        pairs[name] = tuple(_pairs(before, after, name, where, rest))
    return Pairs(
        tuple(pair for name in components for pair in pairs[name]),
        *(tuple(n for n in own if n not in other) for own, other in (names, names[::-1])),
    )


def _described(index: BaseIndex) -> str:
    names = dict.fromkeys(name for name in (base_family(index), index.class_name) if name != ANOTHER)
    return f"{index.label} ({', '.join(names)})"


def _pairs(before: BaseIndex, after: BaseIndex, component: str, where: str, rest: str) -> Iterator[Pair]:
    first, second = before.components[component], after.components[component]
    left = set(_parameters(second))
    for parameter in _parameters(first):
        label = f"{where}: {component}.{parameter}"
        shape = first.shape(parameter)
        spelling = next((name for name in second.spellings(parameter) if name in left), None)
        if spelling is None:
            raise WrongBaseError(f"{label} is missing in it{rest}")
        if second.shape(spelling) != shape:
            raise WrongBaseError(f"{label} is {list(second.shape(spelling))} in it, not {list(shape)}{rest}")
        left.discard(spelling)
        yield Pair(component, parameter, shape, _part(first, parameter), _part(second, spelling))
    if left:
        raise WrongBaseError(f"{where}: {component}.{min(left)} is only in it{rest}")


def _parameters(component: BaseComponent) -> tuple[str, ...]:
    """List the parameters, without the buffers that some versions save with them."""
    names = component.tensors if component.places is None else component.places
    return tuple(name for name in names if not name.endswith("position_ids"))


def _part(component: BaseComponent, parameter: str) -> Part:
    place, shape = component.place(parameter), component.shape(parameter)
    assert place is not None
    rows = shape[0] if shape else 1
    target = Target(component.name, place.tensor)
    return Part(parameter, target, 0, rows, place.rows, place.swapped, place.transposed)
