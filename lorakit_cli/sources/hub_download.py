"""Download what a pipeline on the Hub needs, at the commit that was indexed, and no more; into the client's cache."""

from collections.abc import Callable
from pathlib import Path

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.pipeline_copy import components_of, to_copy
from lorakit_cli.core.recipe import RECIPE_FILE
from lorakit_cli.core.weight_files import weight_file
from lorakit_cli.errors import BaseModelError
from lorakit_cli.sources.hub_files import cached, fetch_files
from lorakit_cli.sources.hub_repo import HubRepo

_MODEL_INDEX = "model_index.json"


def download(base: BaseIndex, done: Callable[[int], object] | None = None) -> Path:
    """Download a base that was indexed on the Hub, all but what is in the cache, and give the folder of its commit.

    `done` is called with the number of bytes whenever some have come in. Raises BaseModelError.
    """
    name, commit = base.repository
    repo = HubRepo(name, commit)
    wanted = [_MODEL_INDEX, *(file for file in _wanted(base, repo) if file != _MODEL_INDEX)]
    fetch_files(name, commit, wanted, done)
    index = cached(name, commit, _MODEL_INDEX)
    lost = next((file for file in wanted if cached(name, commit, file) is None), None)
    if index is None or lost:
        raise BaseModelError(f"{name} has lost {lost}, which it lists; try again, or another revision")
    return index.parent


def missing_bytes(base: BaseIndex) -> int:
    """Count the bytes of weights that a download would bring, those in the cache left out."""
    name, commit = base.repository
    return sum(size for file, size in _weights(base).items() if cached(name, commit, file) is None)


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
