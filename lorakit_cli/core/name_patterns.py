"""peft's patterns for module names: a number for each module that one of them fits, the first that does."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from lorakit_cli.core.late import late

# A plain name, or several to choose from. Nearly all patterns are one, and a file may hold hundreds.
_NAME = r"\w(?:\w|\\?\.)*"
_LITERAL = late(rf"(\^?)(?:({_NAME})|\((?:\?:)?({_NAME}(?:\|{_NAME})*)\))\$?")
# A repeated group, or many repeats, can take forever on a name that does not fit, and no trainer writes such.
_COSTLY = late(r"\)[*+?{]")
_REPEATED = late(r"(?<!\\)[*+{]")
_MOST_REPEATED = 4
_LONGEST = 1000


@dataclass(frozen=True)
class NamePatterns:
    """Numbers by pattern, in order: a pattern fits a module's whole name, or a dotted end of it.

    With `^` before it only the whole name. Literal names are looked up and do not go through `re`.
    https://github.com/huggingface/peft/blob/main/src/peft/utils/other.py (get_pattern_key)
    """

    entries: tuple[tuple[str, float], ...] = ()

    def require_sane(self) -> None:
        """Raise ValueError for a pattern that could take forever, re.error for one that is none."""
        for pattern, _ in self.entries:
            literal = _LITERAL.fullmatch(pattern)
            length = max(map(len, pattern.split("|"))) if literal else len(pattern)
            repeats = len(_REPEATED.findall(pattern))
            if length > _LONGEST or repeats > _MOST_REPEATED or _COSTLY.search(pattern):
                raise ValueError(f"the pattern {pattern[:60]!r} repeats a group, repeats too much or is too long")
            if not literal:
                re.compile(_whole_or_end(pattern))

    def find(self, module: str) -> float | None:
        """Give the number of the first pattern that fits a module's name, None where none does."""
        whole, ends, rest = self._sorted
        fitting = [whole[module]] if module in whole else []
        fitting += [ends[end] for end in ends_of(module) if end in ends] if ends else []
        fitting += [place for place, pattern in rest if pattern.match(module)]
        return self.entries[min(fitting)][1] if fitting else None

    @cached_property
    def _sorted(self) -> tuple[Mapping[str, int], Mapping[str, int], list[tuple[int, re.Pattern[str]]]]:
        """Sort the places of the entries: by whole name, by end of a name, and those that are more than names."""
        whole: dict[str, int] = {}
        ends: dict[str, int] = {}
        rest: list[tuple[int, re.Pattern[str]]] = []
        for place, (pattern, _) in enumerate(self.entries):
            found = _LITERAL.fullmatch(pattern)
            if found is None:
                rest.append((place, re.compile(_whole_or_end(pattern))))
                continue
            anchor, name, names = found.groups()
            for each in (name or names).replace("\\", "").split("|"):
                (whole if anchor else ends).setdefault(each, place)
        return whole, ends, rest


def one_of(names: list[str], *, anchored: bool) -> str:
    """Write a pattern that fits these modules, with `anchored` by their whole names only."""
    text = names[0] if len(names) == 1 else f"({'|'.join(names)})"
    return f"^{text}$" if anchored else text


def ends_of(module: str) -> Iterator[str]:
    """Give a dotted name and every dotted end of it."""
    yield module
    start = module.find(".")
    while start >= 0:
        yield module[start + 1 :]
        start = module.find(".", start + 1)


def _whole_or_end(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"
