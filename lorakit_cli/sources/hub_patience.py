"""Ask the Hub's API once more when it asks for fewer requests: its client does that for files alone."""

import time
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")

_WAITS = (1.0, 3.0, 8.0)
_TOO_MANY = 429


def patiently(ask: Callable[[], _Answer]) -> _Answer:
    """Call a function again after a refusal for too many requests, in some seconds, or in as many as the Hub names.

    Raises what the function does, at once where the Hub names longer than anyone would wait.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for wait in _WAITS:
        try:
            return ask()
        except HfHubHTTPError as error:
            named = error.response.headers.get("Retry-After", "")
            seconds = float(named) if named.isdecimal() else wait
            if error.response.status_code != _TOO_MANY or seconds > max(_WAITS):
                raise
        time.sleep(seconds)
    return ask()
