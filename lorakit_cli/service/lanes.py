"""Do independent pieces of arithmetic side by side, each on one thread.

What a product comes to may depend on how many threads share it. With one to each, the bits are the same on a machine
of two cores and of sixty-four, and reading and writing go on while others compute.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# More would only wait for the disk, and each has buffers of its own.
_MOST = 16
# A GPU computes for all of them.
_BESIDE_A_GPU = 4

Job = Callable[[], int]
Progress = Callable[[int], None]


def run_side_by_side(jobs: Iterable[Job], device: "torch.device | None", progress: Progress | None = None) -> None:
    """Run jobs on as many threads as there are cores; `progress` is given what each returns.

    `device` is what torch computes on, None for jobs that do without it; torch is to be there before, not loaded by a
    job. The first job that raises ends it: jobs that have not begun are left, and its exception is raised.
    """
    with _single_threads():
        work = _Work(jobs)
        threads = [Thread(target=work.run, daemon=True) for _ in range(_count(device))]
        try:
            for thread in threads:
                thread.start()
            for done in work.results(len(threads)):
                if progress:
                    progress(done)
        finally:
            work.stop()
            for thread in threads:
                if thread.ident:
                    thread.join()


class _Work:
    """Jobs that threads take one after another, and what they return.

    Ctrl-C may come between any two steps of the main thread. Futures would be left locked by it now and then, threads
    would wait for them for ever. A queue that is written in C has no such steps, and daemons keep no program alive.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._taking = Lock()
        self._stopped = False
        self._ended: SimpleQueue[int | BaseException | None] = SimpleQueue()

    def run(self) -> None:
        """Do jobs until there are none; for one thread."""
        try:
            while (job := self._next()) is not None:
                self._ended.put(_in_its_modes(job))
        except BaseException as error:
            self._ended.put(error)
        finally:
            self._ended.put(None)

    def results(self, threads: int) -> Iterator[int]:
        """Give what jobs return as they end, until all threads have. Raises what one of them raised."""
        while threads:
            result = self._ended.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                threads -= 1
            else:
                yield result

    def stop(self) -> None:
        """Let no job begin any more."""
        self._stopped = True

    def _next(self) -> Job | None:
        with self._taking:
            return None if self._stopped else next(self._jobs, None)


def _in_its_modes(job: Job) -> int:
    # These belong to the thread: values that are not finite are looked for where they matter.
    with ExitStack() as modes:
        if numpy := sys.modules.get("numpy"):
            modes.enter_context(numpy.errstate(all="ignore"))
        if torch := sys.modules.get("torch"):
            modes.enter_context(torch.no_grad())
        return job()


def _count(device: "torch.device | None") -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST if device is None or device.type == "cpu" else _BESIDE_A_GPU)


@contextmanager
def _single_threads() -> Iterator[None]:
    """Let numpy and torch use one thread in each of the threads that are started meanwhile."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    with threadpool_limits(1, "blas"):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)
