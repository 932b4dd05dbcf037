"""Show pictures in the terminal: through its own graphics where it has any, else as blocks of two colours."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HIGHEST = 24
_ROWS_LEFT = 2


def show_picture(path: Path) -> None:
    """Draw a picture on the terminal behind stdout, and nothing where there is none, or one without colours."""
    if sys.stdout is None or not sys.stdout.isatty():
        return
    from rich.console import Console

    console = Console(file=sys.stdout)
    if console.color_system is None or console.no_color:
        return
    # What a terminal does not say about itself is no news for its user.
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    with _only_asking_terminals():
        from textual_image.renderable import Image

        height = max(min(_HIGHEST, console.height - _ROWS_LEFT), 1)
        console.print(Image(path, "auto", "auto"), height=height)


@contextmanager
def _only_asking_terminals() -> Iterator[None]:
    """Let the library ask what the terminal can do only where stdin is one too, or nobody would answer."""
    stdin = sys.__stdin__
    if stdin is not None and not stdin.isatty():
        sys.__stdin__ = None  # type: ignore[misc]  # the library takes this for a stdin that is closed
    try:
        yield
    finally:
        sys.__stdin__ = stdin  # type: ignore[misc]  # back to what it was
