"""Regular expressions that are compiled when they are first used, which in most runs most of them are not."""

import re
from typing import Any, cast


class _Late:
    """Stands in for a pattern until someone asks it for something."""

    def __init__(self, text: str, flags: int) -> None:
        self._source = text, flags

    def __getattr__(self, name: str) -> Any:
        # Kept, so that this is not asked again.
        value = self.__dict__[name] = getattr(re.compile(*self._source), name)
        return value


def late(text: str, flags: int = 0) -> re.Pattern[str]:
    """Give a pattern to be compiled later; an error in it shows later too."""
    return cast(re.Pattern[str], _Late(text, flags))
