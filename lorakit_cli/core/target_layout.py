"""A layout that adapters are written in: how its keys are made, and which algorithms it can hold."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseComponent, BaseIndex

# Writes the name of a module as the start of a key.
Write = Callable[[str], str]


class TargetLayout(NamedTuple):
    """A layout to convert to.

    `stem` says how the modules of one of the base's components are written; it raises UnsupportedError where the
    layout has no name for that component. `native` says whether modules of a component go by the names of the
    original code where they have one. `suffixes` maps roles to ends of keys, `text_suffixes` those that differ in
    text encoders. `kinds` are the algorithms that it can hold. `alpha`: whether each layer has a key for alpha; the
    scales otherwise go into metadata or a file beside it, in peft's form.
    """

    name: str
    stem: Callable[[BaseIndex, BaseComponent], Write]
    native: Callable[[BaseComponent], bool]
    suffixes: Mapping[str, str]
    kinds: frozenset[str]
    alpha: bool
    text_suffixes: Mapping[str, str] = MappingProxyType({})

    def suffix(self, component: str, role: str) -> str:
        """Give the end of the key for a part of a layer."""
        own = self.text_suffixes.get(role) if component.startswith("text_encoder") else None
        return own or self.suffixes[role]
