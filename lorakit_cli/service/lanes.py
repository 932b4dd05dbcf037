"""Do independent pieces of arithmetic side by side, each on one thread.

What a product comes to may depend on how many threads share it. With one to each, the bits are the same on a machine
of two cores and of sixty-four, and reading and writing go on while others compute.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
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
    with _single_threads(), ThreadPoolExecutor(_count(device)) as pool:
        waiting: set[Future[int]] = set()
        try:
            for done in _results(pool, jobs, waiting):
                if progress:
                    progress(done)
        except BaseException:
            for job in waiting:
                job.cancel()
            raise


def _results(pool: ThreadPoolExecutor, jobs: Iterable[Job], waiting: set[Future[int]]) -> Iterator[int]:
    # Few are handed out ahead, so that an error or Ctrl-C is not long in coming through.
    most = 4 * _MOST
    for job in jobs:
        waiting.add(pool.submit(_in_its_modes, job))
        if len(waiting) >= most:
            yield from _ended(waiting)
    while waiting:
        yield from _ended(waiting)


def _ended(waiting: set[Future[int]]) -> Iterator[int]:
    done, left = wait(waiting, return_when=FIRST_COMPLETED)
    waiting.clear()
    waiting |= left
    for job in done:
        yield job.result()


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
