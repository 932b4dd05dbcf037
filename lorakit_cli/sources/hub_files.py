"""Download files of one commit of a repository, and no others, into the cache of the Hub's client."""

import glob
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from lorakit_cli.sources.hub_errors import BASE, Purpose, explained
from lorakit_cli.sources.hub_silence import hushed


def cache_folder() -> Path:
    """Give the folder in which the client keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Tell whether HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached(name: str, commit: str, file: str) -> Path | None:
    """Give where the client keeps a file of a commit, None where it has not downloaded it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, revision=commit)
    return Path(found) if isinstance(found, str) else None


def fetch_files(
    name: str,
    commit: str,
    wanted: Sequence[str],
    done: Callable[[int], object] | None = None,
    purpose: Purpose = BASE,
) -> None:
    """Download those of some files of a commit that are not in the cache; what a repository has lost is left out.

    `done` is called with the number of bytes whenever some have come in. Raises the error of the purpose.
    """
    from huggingface_hub import snapshot_download

    missing = [file for file in wanted if cached(name, commit, file) is None]
    if not missing:
        return
    # The client would take a part of a snapshot for the whole where it cannot ask.
    if is_offline():
        raise purpose.error(
            f"{name} is not wholly in the cache, {missing[0]} is missing, and HF_HUB_OFFLINE forbids the network; "
            f"unset it once, or {purpose.instead}"
        )
    patterns = [glob.escape(file) for file in wanted]
    stopped = Event()
    with explained(name, commit, purpose), hushed(), ThreadPoolExecutor(1) as pool:
        bars = _counting(done, stopped)
        fetching = pool.submit(snapshot_download, name, revision=commit, allow_patterns=patterns, tqdm_class=bars)
        try:
            fetching.result()
        except BaseException:
            # After Ctrl-C the client would wait for all files that it has begun, which may take hours.
            stopped.set()
            raise


def _counting(done: Callable[[int], object] | None, stopped: Event) -> Any:
    """Give a class of bars for the client that show nothing, tell what comes in, and end the work once `stopped`."""
    from huggingface_hub.utils import tqdm

    class Counting(tqdm):
        """A bar that draws nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # The client has one for bytes on the way, one for bytes that have come to be files, and one for files.
            self._counts = kwargs.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            """Tell of bytes."""
            if stopped.is_set():
                raise InterruptedError
            if self._counts and done and n:
                done(int(n))

    return Counting
