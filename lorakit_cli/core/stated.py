"""What a file, or one beside it, states about an adapter: text that anyone may have written, read within limits."""

import json
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from lorakit_cli.core.record import Record

# Files that hold more about an adapter, by the end of their name or by all of it.
CIVITAI, WEBUI, MANAGER = ".civitai.info", ".json", ".metadata.json"
CARD, PEFT_CONFIG = "README.md", "adapter_config.json"
BESIDE = (CIVITAI, WEBUI, MANAGER, CARD, PEFT_CONFIG)
# What a large data set makes of tag counts; JSON of more takes long to read and much memory.
LONGEST_JSON = 4_000_000
_LONGEST_TEXT = 300
# What trainers write for "not set", through Python's str() or JSON.
_NOTHING = ("", "None", "null")

Place = str | tuple[str, ...]


class SideFiles(Record):
    """What the files beside an adapter hold: contents by kind (one of BESIDE), and what could not be read."""

    contents: Mapping[str, Mapping[str, object]] = MappingProxyType({})
    problems: tuple[str, ...] = ()


NOTHING_BESIDE = SideFiles()


def capped(text: str, limit: int = _LONGEST_TEXT) -> str:
    """Give text on one line and at most `limit` characters long, the last one an ellipsis where some is left out."""
    # A value may be many megabytes, so that it is cut before it is looked at.
    start = text[: 4 * limit]
    line = " ".join(start.split())
    cut = len(line) > limit or len(start) < len(text)
    return line[: limit - 1] + "…" if cut else line


def parse_json(text: str | bytes) -> object:
    """Read JSON of anyone's making. Raises ValueError with a reason for people."""
    if len(text) > LONGEST_JSON:
        raise ValueError(f"is longer than {LONGEST_JSON / 1e6:.0f} MB")
    try:
        value: object = json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {capped(str(error), 80)}") from None
    return value


def text_of(value: object, limit: int = _LONGEST_TEXT) -> str | None:
    """Give a text, number, truth value or short list of them as text, None for anything else and for nothing."""
    if isinstance(value, list | tuple):
        texts = [text for item in value[:20] if (text := text_of(item, limit))]
        return capped(", ".join(texts), limit) or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if not isinstance(value, str | int | float):
        return None
    text = capped(str(value), limit)
    return None if text in _NOTHING else text


def whole_number(value: object) -> int | None:
    """Give a count as a whole number, None for what is none."""
    return value if type(value) is int and 0 <= value < 2**53 else None


class Statements:
    """All that is stated about one adapter, looked up by place; what cannot be read is told once in `problems`.

    A place is a key of the header's metadata, or a path: such a key or one of BESIDE, and the keys in its JSON
    (`*` stands for each of a list).
    """

    def __init__(self, metadata: Mapping[str, str], side: SideFiles = NOTHING_BESIDE) -> None:
        self.metadata = metadata
        self.side = side
        self.problems = list(side.problems)
        self._parsed: dict[str, object] = {}

    def text(self, *places: Place, limit: int = _LONGEST_TEXT) -> str | None:
        """Give the text at the first of some places that states one."""
        return next((text for place in places if (text := self._text(place, limit))), None)

    def mapping(self, key: str) -> Mapping[str, object]:
        """Give a metadata value that is a JSON object, an empty one where there is none."""
        value = self._json(key)
        if value is not None and not isinstance(value, dict):
            self._tell(f"{key} is not a JSON object")
        return value if isinstance(value, dict) else {}

    def values(self, place: Place) -> list[object]:
        """Give every value at a place; none where nothing is stated."""
        if isinstance(place, str):
            return [self.metadata[place]] if place in self.metadata else []
        key, *path = place
        start = self.side.contents.get(key) if key in BESIDE else self._json(key)
        return list(_follow(start, path))

    def _text(self, place: Place, limit: int) -> str | None:
        texts = [text for value in self.values(place)[:20] if (text := text_of(value, limit))]
        return capped(", ".join(dict.fromkeys(texts)), limit) or None

    def _json(self, key: str) -> object:
        if key not in self._parsed:
            text = self.metadata.get(key, "")
            try:
                self._parsed[key] = None if text.strip()[:5] in _NOTHING else parse_json(text)
            except ValueError as error:
                self._parsed[key] = None
                self._tell(f"{key} {error}")
        return self._parsed[key]

    def _tell(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _follow(value: object, path: list[str]) -> Iterator[object]:
    if not path:
        yield value
    elif path[0] == "*" and isinstance(value, list):
        for item in value[:100]:
            yield from _follow(item, path[1:])
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _follow(value[path[0]], path[1:])
