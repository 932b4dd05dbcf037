"""Who shows how far downloads are: said once for a run, since files are fetched deep inside of other work."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

DownloadProgress = Callable[[int, int | None], object]
"""Called with the bytes that are there and those of the whole file, None where nobody knows."""
Bars = Callable[[str], AbstractContextManager[DownloadProgress | None]]
"""Opens a bar under a label."""

_bars: ContextVar[Bars | None] = ContextVar("bars", default=None)


@contextmanager
def downloads_shown(bars: Bars) -> Iterator[None]:
    """Let downloads be shown by these bars as long as the context lasts; otherwise nothing shows them."""
    token = _bars.set(bars)
    try:
        yield
    finally:
        _bars.reset(token)


@contextmanager
def download_bar(label: str) -> Iterator[DownloadProgress | None]:
    """Open a bar for one download, None where nobody would see it."""
    bars = _bars.get()
    if bars is None:
        yield None
        return
    with bars(label) as progress:
        yield progress
