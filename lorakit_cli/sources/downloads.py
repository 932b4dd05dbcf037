"""Who shows how far a download is: said once by whoever has a screen, found by whoever downloads, deep inside."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from lorakit_cli.core.bytes_done import Progress

Screen = Callable[[str], AbstractContextManager[Progress | None]]
"""Called with what is downloaded; gives a function to call with the bytes done and in all, None where nobody looks."""

_screen: ContextVar[Screen | None] = ContextVar("screen", default=None)


@contextmanager
def shown_on(screen: Screen) -> Iterator[None]:
    """Show on a screen what is downloaded in the meantime."""
    before = _screen.set(screen)
    try:
        yield
    finally:
        _screen.reset(before)


def downloading(label: str) -> AbstractContextManager[Progress | None]:
    """Begin to show a download."""
    screen = _screen.get()
    return screen(label) if screen else nullcontext()
