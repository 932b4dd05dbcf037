"""Read the header of a safetensors file that has nothing odd about it, as nearly all have, in a third of the time."""

import json
from typing import Any

from lorakit_cli.core.tensor_info import BIT_SIZES, MOST, TensorInfo

_KEYS = ("dtype", "shape", "data_offsets")
_METADATA = "__metadata__"
# Python reads a minus zero as a whole number, and half of a pair of surrogates as a character.
_MINUS_ZERO, _BEFORE_NUMBERS = b"-0", b"[, \t\r\n"
_SURROGATES = (rb"\ud", rb"\uD")


def quick_header(text: bytes, start: int) -> tuple[dict[str, TensorInfo], dict[str, str]] | None:
    """Give tensors and metadata, the data starting at `start`; None where a closer look is needed.

    Takes nothing that the closer look would refuse.
    """
    # Every object comes as pairs, the inner ones first, and leaves a None in its place.
    objects: list[list[tuple[str, Any]]] = []
    try:
        json.loads(text.decode(), object_pairs_hook=objects.append)
    except (ValueError, RecursionError):
        return None
    if not objects or any(mark in text for mark in _SURROGATES) or _has_minus_zero(text):
        return None
    root = objects.pop()
    if len(objects) != len(root):
        return None
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for (name, nothing), pairs in zip(root, objects, strict=True):
        if nothing is not None:
            return None
        if name == _METADATA:
            metadata = dict(pairs)
            if len(metadata) < len(pairs) or not all(type(value) is str for value in metadata.values()):
                return None
            continue
        if len(pairs) != 3:
            return None
        (first, dtype), (second, shape), (third, offsets) = pairs
        if (first, second, third) != _KEYS or type(dtype) is not str or type(shape) is not list:
            return None
        if type(offsets) is not list or len(offsets) != 2:
            return None
        bits = BIT_SIZES.get(dtype, 0)
        for size in shape:
            # What is empty may still be larger than any number on the way to it.
            if type(size) is not int or size <= 0:
                return None
            bits *= size
        begin, end = offsets
        if type(begin) is not int or type(end) is not int or not 0 <= begin < end <= MOST or bits != 8 * (end - begin):
            return None
        tensors[name] = TensorInfo(dtype, tuple(shape), start + begin, start + end)
    return (tensors, metadata) if len(tensors) + (_METADATA in dict(root)) == len(root) else None


def _has_minus_zero(text: bytes) -> bool:
    place = text.find(_MINUS_ZERO)
    while place > 0 and text[place - 1] not in _BEFORE_NUMBERS:
        place = text.find(_MINUS_ZERO, place + 1)
    return place >= 0
