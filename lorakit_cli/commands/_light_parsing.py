"""Take text, flags and defaults as they are, without the library that Typer loads to convert any value at all.

Loading pydantic takes as long as all else that a light command does. Numbers with limits or in an unusual form, and
choices that a user gives, still go through it.
"""

import re
from collections.abc import Callable
from typing import Any, Literal, get_origin

from typer import BadParameter
from typer.core import TyperArgument, TyperCommand, TyperOption

# An option that is given as nothing is meant to be given: a script's variable was not set.
_MAY_BE_EMPTY = ("negative",)
# As people write them, and as every reader takes them.
_NUMBERS = {int: r"-?[0-9]{1,15}", float: r"-?[0-9]{1,15}(\.[0-9]{1,15})?"}


class LightCommand(TyperCommand):
    """A command whose text values are not converted."""

    def get_params(self, ctx: Any) -> Any:
        """Give the parameters, `--help` among them."""
        return lightened(super().get_params(ctx))


def lightened(parameters: list[Any]) -> list[Any]:
    """Put a light converter in front of Typer's own, for each parameter that has none yet."""
    for parameter in parameters:
        # An attribute of the instance goes before the method of the class.
        if isinstance(parameter, TyperArgument | TyperOption) and "get_runtime_param" not in vars(parameter):
            light = _Light(parameter.get_runtime_param)
            setattr(parameter, "get_runtime_param", lambda light=light: light)  # noqa: B010
    return parameters


class _Light:
    """Converts one parameter's values: what needs no conversion itself, the rest with what `heavy` gives."""

    def __init__(self, heavy: Callable[[], Any]) -> None:
        self._heavy = heavy

    def coerce(self, value: Any, param: TyperArgument | TyperOption, ctx: Any) -> Any:
        """Give the value that the command is called with. Raises what Typer does for a bad one."""
        if value == "" and isinstance(param, TyperOption) and param.name not in _MAY_BE_EMPTY:
            raise BadParameter("it is empty; leave the option out or give it a value", ctx=ctx, param=param)
        kind = param.type_descriptor.annotation
        several = param.nargs == -1 or getattr(param, "multiple", False)
        if value is None:
            return () if several else None
        if kind == list[str] and isinstance(value, tuple | list) and all(type(text) is str for text in value):
            return list(value)
        if kind is str and type(value) is str:
            return value
        is_plain = kind in _NUMBERS and type(value) is str and not param.type_descriptor.is_ranged
        if is_plain and re.fullmatch(_NUMBERS[kind], value):
            return kind(value)
        if value is param.default and (kind in (int, float) or _is_choice(kind)):
            return value
        return self._heavy().coerce(value, param=param, ctx=ctx)


def _is_choice(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal
