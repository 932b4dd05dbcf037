"""Bring an adapter from the Hub: the one file that is meant and the small ones beside it, at a commit that is kept."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from lorakit_cli.core.adapter_spec import FILE_SUFFIXES
from lorakit_cli.core.bytes_done import BytesDone
from lorakit_cli.core.disk_space import require_space
from lorakit_cli.core.downloads import download_bar
from lorakit_cli.core.hub_file import HubFile
from lorakit_cli.core.stated import BESIDE, CARD, LONGEST_JSON, PEFT_CONFIG
from lorakit_cli.core.tensor_file import header_length
from lorakit_cli.errors import (
    FetchError,
    NotDownloadedError,
    OutputError,
    PickleError,
    UnknownAdapterError,
    did_you_mean,
)
from lorakit_cli.sources.adapter_choice import SAFE, choose_file, listed
from lorakit_cli.sources.hub_errors import ADAPTER, explained
from lorakit_cli.sources.hub_files import cache_folder, cached, fetch_files, is_offline
from lorakit_cli.sources.hub_patience import patiently
from lorakit_cli.sources.hub_repo import HubRepo
from lorakit_cli.sources.hub_silence import hushed

_PEFT = "adapter_model"
_ADVICE = "the repository's own copy is broken, try another revision"
_FIRST_BYTES = 64


def hub_adapter(asked: HubFile, *, allow_pickle: bool = False, download: bool = True) -> tuple[Path, str]:
    """Give the file of an adapter on the Hub, downloaded unless it is in the cache, and a reference to its commit.

    Without `download` nothing is asked on the network, and NotDownloadedError raised where the file is not here. Raises
    FetchError, UnknownAdapterError for a file that is not in the repository or not the only one, PickleError,
    CorruptFileError for what is no adapter file under the name of one.
    """
    missing = f"{asked} is not downloaded; what uses it downloads it"
    try:
        repo = HubRepo(asked.repo, asked.revision, ADAPTER, asking=download)
        names = _names(repo, asked)
    except FetchError as error:
        raise error if download else NotDownloadedError(missing) from error
    if not names and not download:
        raise NotDownloadedError(missing)
    file = _chosen(asked, names, allow_pickle=allow_pickle)
    path = cached(asked.repo, repo.commit, file)
    if path is None and not download:
        raise NotDownloadedError(missing)
    if download:
        path = _fetched(asked.repo, repo.commit, file, names)
    assert path is not None
    _require_whole(path, PurePosixPath(asked.repo) / file)
    return path, str(HubFile(asked.repo, repo.commit, file, forced=True))


def _names(repo: HubRepo, asked: HubFile) -> Collection[str]:
    """List the files of a repository; where that fails, the one that is asked for, if it is here, is enough."""
    try:
        return repo.names
    except FetchError:
        if asked.path and cached(asked.repo, repo.commit, asked.path):
            return (asked.path,)
        raise


def _chosen(asked: HubFile, names: Collection[str], *, allow_pickle: bool) -> str:
    """Choose the file of a repository that is asked for. Raises UnknownAdapterError or PickleError."""
    path = asked.path
    if path not in names:
        if path and not any(name.startswith(path + "/") for name in names):
            weights = [name for name in names if name.lower().endswith(FILE_SUFFIXES)]
            near = did_you_mean(path, weights) or (f"; it has {listed(sorted(weights))}" if weights else "")
            raise UnknownAdapterError(f"{asked.spelled('')} has no file {path}{near}")
        return choose_file(names, path, str(asked), asked.spelled, allow_pickle=allow_pickle)
    if not path.lower().endswith(FILE_SUFFIXES):
        raise UnknownAdapterError(f"{asked} is no adapter file ({', '.join(FILE_SUFFIXES)})")
    if not path.lower().endswith(SAFE) and not allow_pickle:
        raise PickleError(
            f"{asked} is a pickle file, which can run code when opened; pass --allow-pickle to read its tensors only "
            "(weights_only)"
        )
    return path


def _fetched(repo: str, commit: str, file: str, names: Collection[str]) -> Path:
    """Download a file and what lies beside it, all but what is in the cache, and give its place."""
    missing = [name for name in dict.fromkeys((file, *_beside(file, names))) if cached(repo, commit, name) is None]
    # Alone the weights are worth having, but for those of peft, which say nothing of their scale.
    needed = [name for name in missing if name == file or PurePosixPath(name).name == PEFT_CONFIG]
    if needed:
        _download(repo, commit, file, missing)
    elif missing and not is_offline():
        with suppress(FetchError, OutputError):
            _download(repo, commit, file, missing)
    lost = next((name for name in (file, *needed) if cached(repo, commit, name) is None), None)
    if lost:
        raise FetchError(f"{repo} has lost {lost}, which it lists; try again, or another revision")
    path = cached(repo, commit, file)
    assert path is not None
    return path


def _download(repo: str, commit: str, file: str, missing: Sequence[str]) -> None:
    """Download files of which only the adapter's own may be large."""
    if is_offline():
        fetch_files(repo, commit, missing, purpose=ADAPTER)
    sizes = _sizes(repo, commit, missing)
    wanted = [name for name in missing if name == file or sizes.get(name, 0) <= LONGEST_JSON]
    total = sum(sizes.get(name, 0) for name in wanted)
    try:
        require_space(cache_folder(), total)
    except OutputError as error:
        raise OutputError(f"{repo}/{file} is to be downloaded: {error}, which HF_HOME names") from error
    with download_bar(f"downloading {PurePosixPath(file).name}") as progress:
        fetch_files(repo, commit, wanted, BytesDone(total, progress), ADAPTER)


def _beside(file: str, names: Collection[str]) -> Iterator[str]:
    """List what a repository has beside an adapter: a card, what sites and tools noted down, peft's config."""
    path = PurePosixPath(file)
    for kind in BESIDE:
        if kind == PEFT_CONFIG and path.stem != _PEFT:
            continue
        own = str(path.parent / (kind if kind in (CARD, PEFT_CONFIG) else path.stem + kind))
        yield from (name for name in ((own, CARD) if kind == CARD else (own,)) if name in names)


def _sizes(repo: str, commit: str, names: Sequence[str]) -> dict[str, int]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with explained(repo, commit, ADAPTER), hushed():
        found = patiently(lambda: HfApi().get_paths_info(repo, list(names), revision=commit))
    return {entry.path: entry.size for entry in found if isinstance(entry, RepoFile)}


def _require_whole(path: Path, called: PurePosixPath) -> None:
    """Raise CorruptFileError for a file of weights that is a pointer, a page or a text."""
    if called.suffix.lower() != SAFE:
        return
    with path.open("rb") as file:
        header_length(called, file.read(_FIRST_BYTES), path.stat().st_size, _ADVICE)
