"""Recognise the model an adapter was made for, from its keys and shapes, held against the published sizes."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit_cli.core.architecture import Architecture, Shape, expand, expand_before
from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.kind import ANY
from lorakit_cli.core.late import late
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.quick_places import quick_places
from lorakit_cli.core.record import Record
from lorakit_cli.core.shown import shown
from lorakit_cli.core.tensor_info import TensorInfo

if TYPE_CHECKING:
    from lorakit_cli.core.match import Match
    from lorakit_cli.core.matching import Unmatched

# Below this part of its layers, a model is no explanation of a file.
_LEAST_MATCH = 0.5
# The number of a block, not the end of a name such as attn1 or linear_2.
_NUMBER = late(r"_\d+(?=_)")
_BLOCK = late(r"([^.]+)\.(\d+)\.")
_NOWHERE = Path()


class Candidate:
    """A published model that an adapter may be for, and how far its layers fit it."""

    def __init__(self, architecture: Architecture, size: str, file: LoraFile) -> None:
        self.architecture = architecture
        self.size = size
        self.file = file

    @cached_property
    def base(self) -> BaseIndex:
        """The model as a base without values."""
        return published(self.architecture, self.size)

    @cached_property
    def _outcome(self) -> "tuple[tuple[Match, ...], tuple[Unmatched, ...]]":
        # Most files go without.
        from lorakit_cli.core.matching import match_layers

        return match_layers(self.base, self.size, self.file, hints=False)

    @cached_property
    def _quick(self) -> tuple[str, ...] | None:
        if self.architecture.unchanged is None or not all(layout.keeps_runs for layout in self.file.formats):
            return None
        return quick_places(published(self.architecture, self.size, runs=True).components.values(), self.file)

    @property
    def components(self) -> Mapping[int, str]:
        """The component of each layer that fits, by the layer's id."""
        if self._quick:
            return dict(zip(map(id, self.file.layers), self._quick, strict=True))
        return {id(match.layer): match.component for match in self.matches}

    @property
    def matches(self) -> "tuple[Match, ...]":
        """The layers that fit."""
        return self._outcome[0]

    @property
    def missed(self) -> "tuple[Unmatched, ...]":
        """The layers that do not."""
        return () if self._quick else tuple(part for part in self._outcome[1] if not part.loose)

    @property
    def is_exhausted(self) -> bool:
        """Whether the layers are in several stacks of blocks, and in each of them reach the last."""
        reached = _depths(name for match in self.matches for name in match.parameters)
        whole = _depths(name for component in self.base.components.values() for name in component.tensors)
        return len(reached) > 1 and all(whole[stack] == last for stack, last in reached.items())

    @property
    def variants(self) -> tuple[str, ...]:
        """Models of this very shape, which no file of tensors tells apart."""
        return self.architecture.variants.get(self.size, ())


class Recognition(Record):
    """What an adapter was made for: the candidates that explain it best, and why.

    `confidence` is `certain` (one published size has every layer, in its shape), `likely` (several have, and of one
    it is just the whole), `ambiguous` (several have), `partial` (the best has most of them) or `unknown`.
    """

    candidates: tuple[Candidate, ...]
    confidence: str
    reasons: tuple[str, ...]

    @property
    def name(self) -> str | None:
        """The candidates by name, None where there is none."""
        return " or ".join(candidate.size for candidate in self.candidates) or None


def recognise(file: LoraFile, architectures: Callable[[str], Sequence[Architecture]]) -> Recognition:
    """Recognise an adapter's model; `architectures` gives those that the names of its modules may belong to."""
    total = sum(not layer.optional for layer in file.layers)
    possible = architectures(name_text(layer.format.body(layer.stem) for layer in file.layers))
    widths = _widths(file)
    candidates: list[Candidate] = []
    complete: tuple[Candidate, ...] = ()
    for published in (True, False):
        alike = [
            Candidate(known, size, file)
            for known in possible
            if known.published is published
            for size in known.sizes_of(widths)
        ]
        candidates += alike
        complete = complete or tuple(candidate for candidate in alike if not candidate.missed)
        if complete:
            break
    # A smaller model can lie within a larger one: to stop at its very ends is hardly an accident, and yet no proof.
    exhausted = tuple(candidate for candidate in complete if candidate.is_exhausted) if len(complete) > 1 else ()
    if len(exhausted) == 1:
        others = ", ".join(candidate.size for candidate in complete if candidate not in exhausted)
        end = f"{others} would have them too, but they reach the last of {exhausted[0].size} in each stack of blocks"
        return Recognition(exhausted, "likely", (*_reasons(exhausted, total), end))
    if complete:
        certain = "certain" if len(complete) == 1 else "ambiguous"
        return Recognition(complete, certain, tuple(_reasons(complete, total)))
    # No published size has it all: the one that has most of it, if that is enough to mean something.
    loose = candidates or [Candidate(known, size, file) for known in possible for size in known.parameters()]
    best = max(loose, key=lambda candidate: len(candidate.matches), default=None)
    if best is None or len(best.matches) < _LEAST_MATCH * total:
        names = ", ".join(known.name for known in possible)
        reason = f"its names are those of {names}, its shapes of no published size" if names else "no known names"
        return Recognition((), "unknown", (reason,))
    missing = best.missed[0]
    reason = f"{len(best.matches)} of {total} layers fit {best.size}; {shown(missing.stem)}: {missing.reason}"
    return Recognition((best,), "partial", (reason,))


def name_text(modules: Iterable[str]) -> str:
    """Write modules a line each, as `marks` and `hints` of architectures want them: which block it is does not matter.

    Numbers are 0, `_` stands for `.`, and every line has a newline on both sides.
    """
    text = _NUMBER.sub("_0", "\n".join(modules).replace(".", "_"))
    return "\n" + "\n".join(dict.fromkeys(text.split("\n"))) + "\n"


def published(architecture: Architecture, size: str, *, runs: bool = False) -> BaseIndex:
    """Give a published model as a base: names and shapes, no files.

    With `runs` those runs of blocks stay together that have the same names in every way of writing them.
    """
    components: dict[str, BaseComponent] = {}
    for name, table in architecture.parameters()[size].items():
        # One of each shape will do, since it has no place in a file.
        alike = {shape: BaseTensor(TensorInfo("F32", shape, 0, 0), _NOWHERE) for shape in set(table.values())}
        tensors = {template: alike[shape] for template, shape in table.items()}
        own = architecture if name == architecture.denoiser else None
        if not runs:
            tensors = expand(tensors)
        elif own and own.unchanged:
            tensors = expand_before(own.unchanged, tensors)
        class_name = min(architecture.classes, default="") if own else _text_class(table)
        components[name] = BaseComponent(name, class_name, {}, tensors, None, own)
    return BaseIndex(Path(size), architecture.name, components)


def _text_class(table: Mapping[str, Shape]) -> str:
    return "T5EncoderModel" if any(".SelfAttention." in name for name in table) else "CLIPTextModel"


def _depths(names: Iterable[str]) -> dict[str, int]:
    """Give the number of the last block in each stack of blocks."""
    last: dict[str, int] = {}
    for name in names:
        if found := _BLOCK.match(name):
            last[found[1]] = max(last.get(found[1], 0), int(found[2]))
    return last


def _widths(file: LoraFile) -> set[int]:
    """Collect how many values each row of the layers has: splitting and stacking modules leaves that as it is."""
    shapes = {layer.delta_shape for layer in file.layers}
    return {math.prod(shape[1:]) for shape in shapes if len(shape) > 1 and ANY not in shape[1:]}


def _reasons(complete: Sequence[Candidate], total: int) -> Iterator[str]:
    for candidate in complete:
        yield f"all {total} layers are modules of {candidate.size}, in its shapes"
        if len(candidate.variants) > 1:
            yield f"shapes do not tell apart {', '.join(candidate.variants)}"
