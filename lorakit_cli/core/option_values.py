"""A dataclass of options as plain values that can be written down, its defaults left out, and made of them again."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")


def option_values(options: Any) -> dict[str, Any]:
    """Give the fields that are not what they are by default."""
    return {name: value for name, value in asdict(options).items() if value != _default(type(options), name)}


def options_from(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Make options of such values, of any origin. Raises ValueError for what no option is, or no value of one."""
    hints = get_type_hints(kind)
    made = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{name!r:.60} is no setting that this lorakit knows")
        made[name] = _as(hints[name], value, name)
    return kind(**made)


def overridden(given: Options, recorded: Options) -> Options:
    """Take what was given; what is given as nothing but the default is taken from the record."""
    return type(given)(**(asdict(recorded) | option_values(given)))  # type: ignore[call-overload]


def _default(kind: Any, name: str) -> Any:
    (field,) = (field for field in fields(kind) if field.name == name)
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _as(hint: Any, value: Any, name: str) -> Any:
    """Give a value of JSON as the type that it is to have."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for choice in arguments:
            if choice is types.NoneType:
                if value is None:
                    return None
                continue
            try:
                return _as(choice, value, name)
            except ValueError:
                continue
    elif origin is Literal and value in arguments:
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        rest = len(arguments) == 2 and arguments[1] is ...
        kinds = [arguments[0]] * len(value) if rest else arguments
        if len(kinds) == len(value):
            return tuple(_as(kind, part, name) for kind, part in zip(kinds, value, strict=True))
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_as(arguments[0], key, name): _as(arguments[1], part, name) for key, part in value.items()}
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif hint in (Any, object) or (isinstance(hint, type) and type(value) is hint):
        return value
    raise ValueError(f"{name} is {value!r:.60}")
