"""How a family keeps a whole pipeline in one file: its sections, and what other files are taken for one."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorakit_cli.core.architecture import Name, Shape

NOTHING = re.compile(r"(?!)")


def no_config(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Give an empty configuration: nothing of it shows in shapes."""
    return {}


@dataclass(frozen=True, slots=True)
class Section:
    """The tensors of a single-file checkpoint that are one component of a pipeline.

    Their names begin with one of `prefixes`, the first of which a name follows that `mark` matches whole; what comes
    behind the prefix is their native name. `modules` lists, from these names, the modules that the component has in
    diffusers or transformers, and `native` writes their native names again. Every tensor must come out of that but
    those that `needless` matches (they are no parameters there), and every module must be found but those that
    `optional` matches. `endings` are the ends of a native name by the parameter of diffusers' module; `transposed`
    the native names of what is kept transposed. `config` reads from shapes what they tell of the configuration.
    """

    component: str
    class_name: str
    prefixes: tuple[str, ...]
    mark: re.Pattern[str]
    modules: Callable[[Collection[str]], Sequence[str]]
    native: Callable[[Sequence[str]], Iterator[Name]]
    needless: re.Pattern[str] = NOTHING
    optional: re.Pattern[str] = NOTHING
    endings: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"weight": (".weight",), "bias": (".bias",)},
    )
    transposed: frozenset[str] = frozenset()
    config: Callable[[Mapping[str, Shape]], Mapping[str, Any]] = no_config


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """A family's layout: its denoiser, without which a file is no base, the other sections, and the pipeline class.

    `pipeline` names the class from the shapes of the parameters by component.
    """

    denoiser: Section
    others: tuple[Section, ...]
    pipeline: Callable[[Mapping[str, Mapping[str, Shape]]], str]


@dataclass(frozen=True, slots=True)
class Stranger:
    """A file that is no base lorakit reads: a mark searched in the names of its tensors, and what it is instead."""

    mark: re.Pattern[str]
    what: str
