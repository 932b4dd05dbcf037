"""Count the bytes that threads have done, for whoever shows it."""

from collections.abc import Callable
from threading import Lock

Progress = Callable[[int, int], object]
"""Called with what is done and what there is in all."""


class BytesDone:
    """A count that any thread may add to."""

    def __init__(self, total: int, progress: Progress | None = None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress
        self._lock = Lock()

    def __call__(self, count: int) -> None:
        """Add to the count."""
        if self._progress is None:
            return
        with self._lock:
            self._done = min(self._done + count, self._total)
            self._progress(self._done, self._total)
