"""Sort the keys of an adapter file into layers: by stem, by layout, by algorithm."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lorakit_cli.core.key_format import KeyFormat, by_dots
from lorakit_cli.core.kind import ALPHA, Kind, Shapes
from lorakit_cli.core.record import Record
from lorakit_cli.core.shown import shown
from lorakit_cli.core.tensor_info import TensorInfo

# Ends of keys that a tensor of any model may have: alone they are no sign of an adapter.
_COMMON = frozenset({"alpha", "weight", "bias", "scale", "down", "up", "magnitude", "down.weight", "up.weight"})
_MOST_NAMES = 5


class Problem(Record):
    """Something wrong with an adapter file; fatal: it cannot be applied as it is meant."""

    text: str
    fatal: bool = False


class Parts(Record):
    """The roles of a stem that make up layers, by algorithm, and those left; `telling`: an adapter alone has such."""

    kinds: tuple[tuple[Kind, tuple[str, ...]], ...]
    left: tuple[str, ...]
    telling: bool


class Group(NamedTuple):
    """The keys of one stem: its layout, the components it may belong to, its keys by role, what they make up.

    Groups whose tensors are of the same roles, dtypes and shapes, of which a model has but a few, share `parts`.
    """

    format: KeyFormat
    components: tuple[str, ...]
    keys: Mapping[str, str]
    parts: Parts


class Grouped(Record):
    """All keys of a file: in a group, in `unknown`, or named by a problem."""

    groups: dict[str, Group]
    unknown: list[str]
    problems: list[Problem]


class Grouping:
    """Groups keys with a choice of layouts and algorithms."""

    def __init__(self, formats: Sequence[KeyFormat], kinds: Sequence[Kind]) -> None:
        self._formats = formats
        self._undotted = [known for known in formats if known.split is not by_dots]
        self._kinds = kinds
        self._roles = {suffix: role for kind in kinds for suffix, role in kind.suffixes.items()} | {ALPHA: ALPHA}
        # How the keys end whose stem has no dot: nothing longer can be a suffix there.
        self._after_flat = {suffix: role for suffix, role in self._roles.items() if suffix not in _COMMON}
        self._after_flat[ALPHA] = ALPHA
        self._telling = {role for suffix, role in self._roles.items() if suffix not in _COMMON}

    def group(self, keys: Iterable[str], tensors: Mapping[str, TensorInfo]) -> Grouped:
        """Group the keys of a file."""
        done = Grouped({}, [], [])
        stems: dict[str, dict[str, str]] = {}
        names: dict[str, None] = {}
        after_flat = self._after_flat
        for key in keys:
            stem, _, end = key.partition(".")
            role = after_flat.get(end)
            if role is None:
                split = self._split(key, names)
                if split is None:
                    done.unknown.append(key)
                    continue
                stem, role = split
            roles = stems.get(stem)
            if roles is None:
                roles = stems[stem] = {}
            elif role in roles:
                both = f"{shown(roles[role])} and {shown(key)}"
                done.problems.append(Problem(f"{both} are the same part of one layer; remove one", fatal=True))
            roles[role] = key
        if len(names) > 1:
            listed = ", ".join(shown(name, 40) for name in list(names)[:_MOST_NAMES])
            text = f"it holds several adapters, {listed}; save each into a file of its own"
            done.problems.insert(0, Problem(text, fatal=True))
        claims = [(known, known.components) for known in self._settled(stems, tensors)]
        parted: dict[tuple[object, ...], Parts] = {}
        for stem, roles in stems.items():
            layout: KeyFormat | None = None
            components: tuple[str, ...] = ()
            for known, components_of in claims:
                components = components_of(stem)
                if components:
                    layout = known
                    break
            sort = (layout is None, *roles, *[tensors[key][:2] for key in roles.values()])
            parts = parted.get(sort)
            if parts is None:
                shapes = {role: tensors[key].shape for role, key in roles.items() if role != ALPHA}
                parts = parted[sort] = self._part(shapes, known=layout is not None)
            if parts.left or not parts.kinds:
                _tell_left(done, roles, parts, known=layout is not None)
            if layout is not None and parts.kinds:
                done.groups[stem] = Group(layout, components, roles, parts)
        _refuse_unknown_parts(done)
        return done

    def _split(self, key: str, names: dict[str, None]) -> tuple[str, str] | None:
        """Part a key into stem and role: by the longest suffix known, or by one with an adapter's name inside."""
        if "." not in key:
            parted = next((found for known in self._undotted if (found := known.split(key))), None)
            return (parted[0], self._roles[parted[1]]) if parted else None
        last = key.rfind(".")
        second = key.rfind(".", 0, last) if last > 0 else -1
        for dot in (key.rfind(".", 0, second) if second > 0 else -1, second, last):
            if dot >= 0 and (suffix := key[dot + 1 :]) in self._roles:
                if suffix in _COMMON:
                    # Before alpha, only another suffix could be the end of a name that holds an adapter's.
                    if suffix == ALPHA and key[second + 1 : last] not in self._roles:
                        return key[:last], ALPHA
                    break
                return key[:dot], self._roles[suffix]
        return self._split_closely(key.split("."), names)

    def _split_closely(self, words: Sequence[str], names: dict[str, None]) -> tuple[str, str] | None:
        # peft keeps the adapter's name in the keys of a model in memory: lora_A.default.weight, hada_w1_a.default.
        for count, place in ((2, -2), (1, -1)):
            rest = [*words[:place], *words[place:][1:]]
            suffix = ".".join(rest[-count:])
            if len(rest) > count and suffix in self._roles and suffix not in _COMMON:
                names[words[place]] = None
                return ".".join(rest[:-count]), self._roles[suffix]
        for count in (2, 1):
            suffix = ".".join(words[-count:])
            if len(words) > count and suffix in self._roles:
                return ".".join(words[:-count]), self._roles[suffix]
        return None

    def _settled(
        self, stems: Mapping[str, Mapping[str, str]], tensors: Mapping[str, TensorInfo]
    ) -> Iterator[KeyFormat]:
        """Choose the very layout where there are several of one name."""
        for known in self._formats:
            if known.settle is None:
                yield known
            else:
                own = ((stem, roles.values()) for stem, roles in stems.items() if known.components(stem))
                yield known.settle({stem: [tensors[key].shape for key in keys] for stem, keys in own})

    def _part(self, shapes: Shapes, *, known: bool) -> Parts:
        """Part the roles of a stem by algorithm."""
        left = dict(shapes)
        parts: list[tuple[Kind, tuple[str, ...]]] = []
        while known and (kind := self._kind_of(left)):
            taken = tuple(role for role in left if role in kind.required or role in kind.optional)
            parts += [(part, taken) for part in (kind, *kind.beside)]
            left = {role: shape for role, shape in left.items() if role not in taken}
        telling = bool(parts) or any(role in self._telling for role in left)
        return Parts(tuple(parts), tuple(left), telling)

    def _kind_of(self, shapes: Shapes) -> Kind | None:
        return next((kind for kind in self._kinds if kind.required <= shapes.keys() and kind.when(shapes)), None)


def _tell_left(done: Grouped, roles: Mapping[str, str], parts: Parts, *, known: bool) -> None:
    """Say of keys that make up no layer what is the matter with them."""
    if parts.left and parts.telling and known:
        has = " and ".join(shown(roles[role]) for role in parts.left[:_MOST_NAMES])
        wrong = "is a part that does not go with the rest" if parts.kinds else "is there without what belongs to it"
        done.problems.append(Problem(f"{has} {wrong}; the file is incomplete or damaged", fatal=True))
    elif not parts.kinds:
        done.unknown.extend(roles.values())


def _refuse_unknown_parts(done: Grouped) -> None:
    """Refuse a layer with a part that is not understood: DoRA's magnitude left out is another change."""
    # A name of a million dots has as many beginnings, each of them long.
    lengths = {len(stem) for stem in done.groups}
    for key in done.unknown:
        ends = (place for place, letter in enumerate(key) if letter == "." and place in lengths)
        for stem in (key[:end] for end in ends if key[:end] in done.groups):
            part = shown(key[len(stem) + 1 :])
            text = f"{shown(stem)} has {part} beside its factors, an algorithm lorakit does not know"
            done.problems.append(Problem(text + "; nothing is applied by halves", fatal=True))
