"""The words that an adapter listens to, with where each is stated, and the tags it was trained on."""

import heapq
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lorakit_cli.core.late import late
from lorakit_cli.core.record import Record
from lorakit_cli.core.stated import (
    CARD,
    CIVITAI,
    MANAGER,
    NOTHING_BESIDE,
    WEBUI,
    Place,
    SideFiles,
    Statements,
    capped,
    whole_number,
)

if TYPE_CHECKING:
    from lorakit_cli.core.tag_count import TagCount

TAGS, FOLDER = "ss_tag_frequency", "data set folder"
# The author's own words first, what was noted down later after them.
_STATED: dict[str, Place] = {
    "modelspec.trigger_phrase": "modelspec.trigger_phrase",
    f"{CARD} instance_prompt": (CARD, "instance_prompt"),
    f"{CIVITAI} trainedWords": (CIVITAI, "trainedWords"),
    f"{MANAGER} trainedWords": (MANAGER, "civitai", "trainedWords"),
    f"{WEBUI} activation text": (WEBUI, "activation text"),
}
_LONGEST_STATED, _LONGEST_WORD = 2000, 100
_MOST_WORDS, _MOST_FROM_TAGS, _MOST_TAGS = 50, 8, 20
# A tag in 9 of 10 pictures is meant to be everywhere, some caption having been forgotten; fewer than 4 prove nothing.
_NEARLY_ALL, _FEWEST_IMAGES = 0.9, 4
# kohya numbers the second and further listings of a folder.
_FOLDER = late(r"\d{1,6}_(.{1,200}?)(?: \(\d{1,3}\))?", re.DOTALL)


class Trigger(Record):
    """One word or phrase and where it comes from; `guessed` where nobody calls it a trigger."""

    text: str
    source: str
    guessed: bool = False


class Triggers(Record):
    """All triggers, the most trusted first and each once; the most frequent of `distinct` tags."""

    words: tuple[Trigger, ...] = ()
    tags: "tuple[TagCount, ...]" = ()
    distinct: int = 0
    problems: tuple[str, ...] = ()

    @property
    def best(self) -> tuple[str, ...]:
        """The words of the most trusted source alone; the name of a folder is not trusted enough."""
        sources = [word.source for word in self.words if word.source != FOLDER]
        return tuple(word.text for word in self.words if sources and word.source == sources[0])

    @property
    def stated(self) -> tuple[str, ...]:
        """The words of the most trusted source, if it is one that calls them triggers."""
        return self.best if self.words and not self.words[0].guessed else ()


class _DataSet(Record):
    """One folder of pictures: what it is called after, the captions each tag stands in, and its size as stated."""

    words: str | None
    counts: Mapping[str, int]
    images: int | None

    def everywhere(self) -> list[str]:
        """List the tags that stand at nearly every picture."""
        # One folder may be listed twice and its captions counted twice; then the most frequent tag shows it.
        size = max(self.images or 0, *self.counts.values(), 1)
        return [
            tag
            for tag, count in self.counts.items()
            if count >= _NEARLY_ALL * size
            and len(tag) <= _LONGEST_WORD
            and ((self.images or 0) >= _FEWEST_IMAGES or self.is_named(tag))
        ]

    def is_named(self, tag: str) -> bool:
        """Tell whether the folder is called after a tag; kohya writes tags in lower case."""
        return self.words is not None and tag.lower() == self.words.lower()


def read_triggers(metadata: Mapping[str, str], side: SideFiles = NOTHING_BESIDE) -> Triggers:
    """Read the triggers that are stated, then those the training data suggest. Never raises.

    Suggested are the tags that stand in at least nine of ten captions of one data set, of at least four pictures;
    kohya counts every caption once, however often its picture is repeated, and sets for regularisation are left out.
    Last comes what a folder such as `10_ohwx man` is called after: kohya makes it the caption of pictures without
    one, https://github.com/kohya-ss/sd-scripts (library/train_util.py, set_tag_frequency).
    """
    stated = Statements(metadata, side)
    words = [
        Trigger(word, source)
        for source, place in _STATED.items()
        for value in stated.values(place)
        for word in _split(value)
    ]
    sets = _data_sets(stated)
    words += [Trigger(tag, TAGS, guessed=True) for tag in _everywhere(sets)]
    words += [Trigger(each.words, FOLDER, guessed=True) for each in sets[:_MOST_WORDS] if each.words]
    tags, distinct = _most_frequent(sets) if sets else ((), 0)
    return Triggers(_each_once(words)[:_MOST_WORDS], tags, distinct, tuple(stated.problems))


def _most_frequent(sets: list[_DataSet]) -> "tuple[tuple[TagCount, ...], int]":
    """Give the most frequent tags of all data sets, and how many there are."""
    from lorakit_cli.core.tag_count import TagCount

    total: Counter[str] = Counter()
    for each in sets:
        total.update(each.counts)
    most = heapq.nlargest(_MOST_TAGS, total.items(), key=lambda item: item[1])
    return tuple(TagCount(capped(tag, _LONGEST_WORD), count) for tag, count in most), len(total)


def _split(value: object) -> list[str]:
    """Split a phrase, or each of a list of them, at the commas."""
    if isinstance(value, list):
        return [word for item in value[:_MOST_WORDS] if isinstance(item, str) for word in _split(item)]
    if not isinstance(value, str):
        return []
    words = [capped(word, _LONGEST_WORD) for word in value[:_LONGEST_STATED].split(",")]
    return [word for word in words if word and word != "None"]


def _each_once(words: list[Trigger]) -> tuple[Trigger, ...]:
    seen: dict[str, Trigger] = {}
    for word in words:
        seen.setdefault(word.text.lower(), word)
    return tuple(seen.values())


def _data_sets(stated: Statements) -> list[_DataSet]:
    """List the data sets that are trained on: tags and captions by folder, as kohya's trainer writes them."""
    listed = stated.mapping("ss_dataset_dirs")
    regularisation = stated.mapping("ss_reg_dataset_dirs")
    tags = stated.mapping(TAGS)
    sets = []
    for name in dict.fromkeys([*tags, *listed]):
        if name in regularisation or (listed and name not in listed):
            continue
        entry, counts = listed.get(name), tags.get(name)
        images = whole_number(entry.get("img_count")) if isinstance(entry, dict) else None
        found = _FOLDER.fullmatch(name)
        sets.append(
            _DataSet(
                capped(found[1], _LONGEST_WORD) if found else None,
                _counts(counts) if isinstance(counts, dict) else {},
                images,
            )
        )
    return sets


def _counts(tags: Mapping[str, object]) -> dict[str, int]:
    counts = {tag.strip(): number for tag, count in tags.items() if (number := whole_number(count))}
    counts.pop("", None)
    return counts


def _everywhere(sets: list[_DataSet]) -> list[str]:
    """List the tags that are everywhere in some data set: what a folder is called after first, then by frequency."""
    found: dict[str, tuple[bool, int]] = {}
    for each in sets:
        for tag in each.everywhere():
            found[tag] = max(found.get(tag, (False, 0)), (each.is_named(tag), each.counts[tag]))
    return heapq.nlargest(_MOST_FROM_TAGS, found, key=lambda tag: found[tag])
