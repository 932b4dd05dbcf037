"""The digests of a base's files of weights, remembered from run to run."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from lorakit_cli.core.base_files import by_file, stored_tensors
from lorakit_cli.core.base_index import BaseIndex, BaseTensor
from lorakit_cli.core.file_digest import FileDigest, digest_files, digest_tensors
from lorakit_cli.core.match import Target
from lorakit_cli.core.recipe import RecipeBase
from lorakit_cli.sources.digest_cache import places_of, remembered

_KIND = "contents"
_THREADS = 4


def base_digests(base: BaseIndex) -> dict[str, FileDigest]:
    """Digest the files of weights of a base, by their names inside it; nothing for one that is only on the Hub.

    Raises OSError.
    """
    if not isinstance(base.path, Path):
        return {}
    files = by_file(stored_tensors(base))
    jobs = {path: partial(_digest, own) for path, own in files.items()}
    with ThreadPoolExecutor(_THREADS) as pool:
        texts = pool.map(lambda path: remembered(path, _KIND, jobs[path]), files)
        found = {path: text.split() for path, text in zip(files, texts, strict=True)}
    return {
        path.relative_to(base.path).as_posix() if path != base.path else path.name: FileDigest(int(size), xxh3)
        for path, (size, xxh3) in found.items()
    }


def places_of_base(recorded: RecipeBase) -> list[str]:
    """List where on this machine the largest file of a base was when it was looked at last: the folders it is in."""
    if not recorded.files:
        return []
    name, digest = max(recorded.files.items(), key=lambda file: file[1].size)
    places = places_of(_KIND, f"{digest.size} {digest.xxh3}")
    if "/" not in name:
        return [str(path) for path in places]
    return [str(path.parents[name.count("/")]) for path in places if path.as_posix().endswith(f"/{name}")]


def _digest(own: dict[Target, BaseTensor], path: Path) -> str:
    digest = digest_files(own, digest_tensors(path, own), [path])[path]
    return f"{digest.size} {digest.xxh3}"
