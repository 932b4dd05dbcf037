"""Ask again for what did not come, where that may help, and say why it did not where it does not."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from lorakit_cli.errors import DownloadError
from lorakit_cli.sources.web_errors import Asked, refused, unreachable

if TYPE_CHECKING:
    from httpx2 import Response

# Seconds before each further try.
PAUSES = (0.5, 2.0, 5.0, 10.0)
_LONGEST_PAUSE = 60.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)

_Answer = TypeVar("_Answer")


class BrokenOffError(Exception):
    """A try that came to nothing, or not to the end, and may do better the next time, after a pause if one is asked."""

    def __init__(self, failure: DownloadError, pause: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.pause = pause


def persistently(attempt: Callable[[bool], _Answer], gained: Callable[[], bool] = lambda: False) -> _Answer:
    """Make an attempt, which hears whether it is a repetition, until it does not raise BrokenOffError.

    After some attempts in a row by which nothing is `gained` the last BrokenOffError is raised; DownloadError at once
    where the server asks for a long pause.
    """
    pauses, again = list(PAUSES), False
    while True:
        try:
            return attempt(again)
        except BrokenOffError as broken:
            if gained():
                pauses = list(PAUSES)
            if not pauses:
                raise
            pause = max(pauses.pop(0), broken.pause or 0.0)
            if pause > _LONGEST_PAUSE:
                raise DownloadError(f"{broken.failure}; it asks to wait {pause:.0f} seconds") from broken
            time.sleep(pause)
            again = True


@contextmanager
def answered(asked: Asked, *, again: bool) -> Iterator[None]:
    """Turn what the client raises on the way into BrokenOffError; DownloadError where nobody was reached at all.

    `again`: somebody was there a moment ago, and may be there again.
    """
    import httpx2

    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
        # A redirect may have led to another host than was asked.
        failure = unreachable(asked._replace(host=error.request.url.host), error)
        raise BrokenOffError(failure) if again else failure from error
    except httpx2.TransportError as error:
        why = type(error).__name__
        raise BrokenOffError(DownloadError(f"the connection broke off over {asked.label} ({why})")) from error
    except httpx2.HTTPError as error:
        raise DownloadError(f"{asked.host} gives an answer for {asked.label} that cannot be read") from error


def require_given(response: "Response", asked: Asked, *statuses: int) -> None:
    """Raise for any other status what it means: BrokenOffError for one that may pass, else DownloadError."""
    status = response.status_code
    if status in _PASSING:
        raise BrokenOffError(refused(asked, status), _retry_after(response.headers.get("Retry-After", "")))
    if status not in statuses:
        raise refused(asked, status)


def _retry_after(header: str) -> float | None:
    """Read for how many seconds a server wants to be left alone."""
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max((until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
