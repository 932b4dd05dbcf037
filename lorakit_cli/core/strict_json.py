"""Read JSON exactly as strictly as the safetensors library does, and refuse names that stand in it twice."""

import json
import math
from typing import Any, NoReturn

from lorakit_cli.core.late import late

_LONE_SURROGATE = late(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> Any:
    """Parse UTF-8 JSON. Raises ValueError or RecursionError.

    Python's own parser would also take UTF-16, a byte order mark, NaN, infinities, lone surrogates and repeated names.
    https://www.rfc-editor.org/rfc/rfc8259
    """
    text = data.decode()
    value = json.loads(
        text, object_pairs_hook=_no_duplicates, parse_int=_integer, parse_float=_number, parse_constant=_no_constant
    )
    if _LONE_SURROGATE.search(text):
        # A pair of surrogates has become one character by now; one alone cannot be encoded.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def depth(value: object) -> int:
    """Count how deep objects and arrays are nested, this one included."""
    containers, levels = [value] if isinstance(value, dict | list) else [], 0
    while containers:
        levels += 1
        parts = [part for one in containers for part in (one.values() if isinstance(one, dict) else one)]
        containers = [part for part in parts if isinstance(part, dict | list)]
    return levels


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name stands in it twice")
    return entries


def _integer(text: str) -> int | float:
    # Minus zero is a floating-point number to the library, and so no size.
    value = int(text)
    return -0.0 if text == "-0" else value if len(text) < 300 else int(_number(text))


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is out of range")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
