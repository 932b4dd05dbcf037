"""The adapter spec `[NAME=]SOURCE[:WEIGHT]`, as text and as a value.

Behind the weight there may be block weights, as in prompts of the web UIs: see adapter_tail.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorakit_cli.core.late import late
from lorakit_cli.errors import AdapterSpecError

if TYPE_CHECKING:
    from lorakit_cli.core.block_weights import BlockWeights

FILE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")

NAME = late(r"[A-Za-z0-9_-]+")
"""What an adapter may be called."""
NAMED = late(r"([A-Za-z0-9_-]+)=(.*)", re.DOTALL)
"""A name in front of something, as in `NAME=SOURCE`."""

_NUMBER_TEXT = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = late(_NUMBER_TEXT, re.ASCII)
# What web UIs know to say behind the weight; not all of it is understood here.
_NAMED_TAIL = late(r":(?:lbwe?|te|unet|dyn|start|stop|step|x)=")
_SECOND = late(rf":{_NUMBER_TEXT}(:{_NUMBER_TEXT})$", re.ASCII)
# What may hold a colon that is no weight's: a scheme, a port, a forced Hub reference, a CivitAI version, a drive.
_PREFIX = late(r"https?://[^/]*|hf:|civitai:|[A-Za-z]:(?=[\\/])")
_REMOTE = late(r"https?://|hf:|civitai:")
_GRAMMAR = "an adapter is written [NAME=]SOURCE[:WEIGHT], for example toy:0.8"


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """One adapter as the user asked for it.

    `source` is a library name, a path, a Hub reference, an https URL or `civitai:VERSION_ID`; `weight` is None
    where the text gives none, so that the library's default applies. `block_weights` multiply it block by block.
    """

    source: str
    weight: float | None = None
    alias: str | None = None
    weight_text: str | None = field(default=None, compare=False, repr=False)
    block_weights: "BlockWeights | None" = None
    tail: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.weight is not None and not math.isfinite(self.weight):
            raise AdapterSpecError(f"the weight of adapter {self.source!r} must be a finite number")

    @classmethod
    def parse(cls, text: str) -> "AdapterSpec":
        """Read a spec; `str` of the result gives the text back. Raises AdapterSpecError."""
        if text != text.strip() or not text.isprintable():
            raise AdapterSpecError(f"adapter {text!r} begins or ends with a space or holds a control character")
        named = NAMED.fullmatch(text)
        alias, rest = named.groups() if named else (None, text)
        body, second, by_name = _split_tail(rest)
        source, weight_text = _split_weight(body, text)
        if not source or source in ("hf:", "civitai:"):
            raise AdapterSpecError(f"adapter {text!r} names no source; {_GRAMMAR}")
        if is_plain(source) and not NAME.fullmatch(source):
            raise AdapterSpecError(
                f"{source!r} is neither a library name (letters, digits, _ and -) nor a path; "
                f"{_GRAMMAR}, and a file in this folder is written ./{source}"
            )
        weight = None if weight_text is None else float(weight_text)
        if not second and not by_name:
            return cls(source, weight, alias, weight_text)
        # Few have any.
        from lorakit_cli.core.adapter_tail import read_tail

        weight, weights = read_tail(text, weight, float(second[1:]) if second else None, by_name[1:])
        return cls(source, weight, alias, None, weights, rest[len(source) :])

    @property
    def name(self) -> str:
        """The name the adapter goes by: the one given, else one made from the source."""
        return self.alias or (self.source if is_plain(self.source) else name_from(self.source))

    def __str__(self) -> str:
        text = f"{self.alias}={self.source}" if self.alias else self.source
        if self.tail and AdapterSpec.parse(text + self.tail) == self:
            return text + self.tail
        if self.block_weights:
            from lorakit_cli.core.adapter_tail import tail_text

            return text + tail_text(self.weight, self.block_weights)
        if self.weight is None:
            return text
        kept = self.weight_text is not None and float(self.weight_text) == self.weight
        return f"{text}:{self.weight_text if kept else repr(self.weight)}"


def is_plain(source: str) -> bool:
    """Tell whether a source can only be a library name: no separator, no scheme, no file suffix."""
    return not (
        _PREFIX.match(source)
        or any(mark in source for mark in "/\\")
        or source.startswith((".", "~"))
        or source.lower().endswith(FILE_SUFFIXES)
    )


def is_remote(source: str) -> bool:
    """Tell whether a source can only be somewhere else than on this machine."""
    return _REMOTE.match(source) is not None


def is_web(source: str) -> bool:
    """Tell whether a source is an https address or a version on CivitAI."""
    return source.startswith(("https://", "civitai:"))


def name_from(source: str) -> str:
    """Make an adapter name from a path, URL or Hub reference: its last part without suffix."""
    if is_web(source):
        # What takes addresses apart is left alone where there is none.
        from lorakit_cli.core.civitai_reference import civitai_reference

        source = str(civitai_reference(source) or source)
    path = re.sub(r"^(hf:)|[?#].*$", "", source)
    if "@" in path and not _REMOTE.match(path):
        # A revision may have slashes; most references have none.
        from lorakit_cli.core.hub_file import HubFile

        on_hub = HubFile.parse(path)
        path = on_hub.name if on_hub else path
    if not path.startswith("civitai:"):
        path = re.split(r"[\\/]", path.rstrip("\\/"))[-1].split("@")[0]
    if source.startswith("https://"):
        from urllib.parse import unquote

        path = unquote(path)
    if path.lower().endswith(FILE_SUFFIXES):
        path = path[: path.rindex(".")]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", path).strip("_") or "adapter"


def require_distinct(names: Iterable[str]) -> None:
    """Raise AdapterSpecError where two adapters go by one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise AdapterSpecError(
                f"two adapters are called {name!r}; give one another name, for example {name}-2=SOURCE:WEIGHT"
            )
        seen.add(name)


def _split_tail(text: str) -> tuple[str, str, str]:
    """Split off a second number, and what is said by name behind it, each with its colon."""
    prefix = _PREFIX.match(text)
    begin = prefix.end() if prefix else 0
    named = _NAMED_TAIL.search(text, begin)
    body, by_name = (text[: named.start()], text[named.start() :]) if named else (text, "")
    second = _SECOND.search(body, begin)
    return (body[: second.start(1)], second[1], by_name) if second else (body, "", by_name)


def _split_weight(text: str, whole: str) -> tuple[str, str | None]:
    """Split the weight off; a tail that is no number is an error unless it belongs to a path."""
    prefix = _PREFIX.match(text)
    begin = prefix.end() if prefix else 0
    head, colon, tail = text[begin:].rpartition(":")
    if not colon:
        return text, None
    if _NUMBER.fullmatch(tail):
        if not math.isfinite(float(tail)):
            raise AdapterSpecError(f"the weight {tail!r} of adapter {whole!r} is too large to be a number")
        return text[:begin] + head, tail
    if any(mark in tail for mark in "/\\") or tail.lower().endswith(FILE_SUFFIXES):
        return text, None
    hint = f"block weights are written lbw={tail}" if "," in tail or tail.isupper() else _GRAMMAR
    raise AdapterSpecError(f"the weight {tail!r} of adapter {whole!r} is not a finite number; {hint}")
