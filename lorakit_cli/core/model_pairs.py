"""The parameters of two models of one architecture, side by side, in whatever layout each of them is stored."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.kind import Shape
from lorakit_cli.core.match import Part, Target
from lorakit_cli.errors import WrongBaseError

# What adapters are made for, by the beginning of its name; an autoencoder is none of it.
ADAPTED = ("unet", "transformer", "text_encoder")

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


def pair_models(before: BaseIndex, after: BaseIndex) -> Pairs:
    """Pair every parameter of the components that both models have.

    Raises WrongBaseError where they share no component, or where parameters are missing in one or differ in shape.
    """
    shared = [name for name in before.components if name in after.components]
    if not shared:
        raise WrongBaseError(
            f"{after.label} has {', '.join(after.components)}, and {before.label} has {', '.join(before.components)}: "
            "they share no component"
        )
    pairs: list[Pair] = []
    for name in shared:
        pairs.extend(_pairs(before, after, name))
    return Pairs(
        tuple(pairs),
        tuple(name for name in before.components if name not in shared),
        tuple(name for name in after.components if name not in shared),
    )


def _pairs(before: BaseIndex, after: BaseIndex, component: str) -> Iterator[Pair]:
    first, second = before.components[component], after.components[component]
    where = f"{after.label} is no fine-tune of {before.label}: {component}"
    left = set(_parameters(second))
    for parameter in _parameters(first):
        shape = first.shape(parameter)
        spelling = next((name for name in second.spellings(parameter) if name in left), None)
        if spelling is None:
            raise WrongBaseError(f"{where}.{parameter} is missing in it")
        if second.shape(spelling) != shape:
            raise WrongBaseError(f"{where}.{parameter} is {list(second.shape(spelling))} in it, not {list(shape)}")
        left.discard(spelling)
        yield Pair(component, parameter, shape, _part(first, parameter), _part(second, spelling))
    if left:
        raise WrongBaseError(f"{where}.{min(left)} is only in it")


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
