"""Download what a pipeline on the Hub needs, at the commit that was indexed, and no more; into the client's cache."""

import glob
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.pipeline_copy import components_of, to_copy
from lorakit_cli.core.recipe import RECIPE_FILE
from lorakit_cli.core.weight_files import weight_file
from lorakit_cli.errors import BaseModelError
from lorakit_cli.sources.hub_errors import explained
from lorakit_cli.sources.hub_repo import HubRepo
from lorakit_cli.sources.hub_silence import hushed

_MODEL_INDEX = "model_index.json"


def download(base: BaseIndex, done: Callable[[int], object] | None = None) -> Path:
    """Download a base that was indexed on the Hub, all but what is in the cache, and give the folder of its commit.

    `done` is called with the number of bytes whenever some have come in. Raises BaseModelError.
    """
    name, commit = base.repository
    repo = HubRepo(name, commit)
    wanted = [_MODEL_INDEX, *(file for file in _wanted(base, repo) if file != _MODEL_INDEX)]
    missing = [file for file in wanted if _cached(name, commit, file) is None]
    if missing:
        _fetch(name, commit, wanted, missing, done)
    index = _cached(name, commit, _MODEL_INDEX)
    lost = next((file for file in wanted if _cached(name, commit, file) is None), None)
    if index is None or lost:
        raise BaseModelError(f"{name} has lost {lost}, which it lists; try again, or another revision")
    return index.parent


def missing_bytes(base: BaseIndex) -> int:
    """Count the bytes of weights that a download would bring, those in the cache left out."""
    name, commit = base.repository
    return sum(size for file, size in _weights(base).items() if _cached(name, commit, file) is None)


def cache_folder() -> Path:
    """Give the folder in which the client keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _wanted(base: BaseIndex, repo: HubRepo) -> list[str]:
    """List the files a pipeline needs: weights of the chosen variant, their indices, and all that is copied."""
    wanted = set(_weights(base))
    wanted |= {str(file) for file in to_copy(repo.names, components_of(repo.json(_MODEL_INDEX)))}
    for component in base.components:
        inside = repo.files(component) or ()
        chosen = weight_file(inside, base.variant) or weight_file(inside, None)
        # One that is parted is found by its index.
        wanted |= {f"{component}/{chosen}"} if chosen else set()
    # It is not copied, but says how pictures are made with the base.
    return sorted(wanted | {RECIPE_FILE} & set(repo.names))


def _weights(base: BaseIndex) -> dict[str, int]:
    """Give the files of weights that an index names, each with its size: a header accounts for all of its file."""
    sizes: dict[str, int] = {}
    for component in base.components.values():
        for tensor in component.tensors.values():
            file = tensor.file.relative_to(base.path).as_posix()
            sizes[file] = max(sizes.get(file, 0), tensor.info.end)
    return sizes


def _cached(name: str, commit: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, revision=commit)
    return Path(found) if isinstance(found, str) else None


def _fetch(name: str, commit: str, wanted: list[str], missing: list[str], done: Callable[[int], object] | None) -> None:
    from huggingface_hub import constants, snapshot_download

    # The client would take a part of a snapshot for the whole where it cannot ask.
    if constants.HF_HUB_OFFLINE:
        raise BaseModelError(
            f"{name} is not wholly in the cache, {missing[0]} is missing, and HF_HUB_OFFLINE forbids the network; "
            "unset it once, or give the path of a folder"
        )
    patterns = [glob.escape(file) for file in wanted]
    stopped = Event()
    with explained(name, commit), hushed(), ThreadPoolExecutor(1) as pool:
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
