"""A repository on the Hub at one commit, read through the Hub's own client: names, JSON and headers, no weights."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from lorakit_cli.core.pipeline_folder import json_object
from lorakit_cli.core.tensor_file import header_length, parse_header, read_header
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import BaseModelError, CorruptFileError
from lorakit_cli.sources.header_cache import HeaderCache
from lorakit_cli.sources.hub_errors import BASE, Purpose, explained
from lorakit_cli.sources.hub_patience import patiently
from lorakit_cli.sources.hub_range import read_range
from lorakit_cli.sources.hub_silence import hushed
from lorakit_cli.sources.hub_snapshot import snapshot_folder

# Most headers of weights fit, so that one request reads them; a larger one takes a second.
_FIRST_READ = 131_072
_LIST = "files"
_ADVICE = "the repository's own copy is broken, try another revision"


class HubRepo:
    """A repository at the commit that a branch, tag or commit stands for now, or stood for when last seen.

    The client finds endpoint, token, offline mode and cache where it always does: HF_ENDPOINT, HF_TOKEN or the token
    of `hf auth login`, HF_HUB_OFFLINE, HF_HOME. What it reads it does not read again: the client keeps JSON in its
    cache, lorakit the list of files and the headers in its own. Everything raises the error of its purpose. `asking`:
    whether the Hub may be asked, also where the client may ask it.
    """

    def __init__(self, repo: str, revision: str | None = None, purpose: Purpose = BASE, *, asking: bool = True) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi()
        self._repo = repo
        self._revision = revision
        self._purpose = purpose
        self._asking = asking
        with self._explained():
            self.commit = patiently(
                lambda: self._api.resolve_revision(repo, revision=revision, local_files_only=not asking)
            ).resolved
        self._cache = HeaderCache(f"{self._api.endpoint}/{repo}", self.commit)

    @property
    def path(self) -> PurePosixPath:
        """The repository as a path, owner/name."""
        return PurePosixPath(self._repo)

    def files(self, folder: str = "") -> Collection[str] | None:
        """List the files directly in it or in a folder of it, None where there is no such folder."""
        prefix = folder + "/" if folder else ""
        inside = [name.removeprefix(prefix) for name in self.names if name.startswith(prefix)]
        return frozenset(name for name in inside if "/" not in name) if inside else None

    @cached_property
    def names(self) -> Collection[str]:
        """All files of the commit; offline and never listed, those the client's cache has of it."""
        from huggingface_hub import constants

        kept = self._cache.get(_LIST)
        if kept is not None:
            return kept.decode().split("\n")
        with self._explained():
            if constants.HF_HUB_OFFLINE or not self._asking:
                snapshot = snapshot_folder(self._repo, self.commit)
                here = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()]
                if here or not self._asking:
                    return here
            names = patiently(lambda: self._api.list_repo_files(self._repo, revision=self.commit))
        self._cache.put(_LIST, "\n".join(names).encode())
        return names

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object, by way of the client's cache."""
        with self._explained():
            path = Path(self._api.hf_hub_download(self._repo, name, revision=self.commit))
        return json_object(path, self.path / name)

    def tensors(self, name: str) -> Mapping[str, TensorInfo]:
        """Read the header of a safetensors file: a downloaded one's, a kept one, else the first bytes on the Hub."""
        from huggingface_hub import try_to_load_from_cache

        downloaded = try_to_load_from_cache(self._repo, name, revision=self.commit)
        try:
            if isinstance(downloaded, str):
                return read_header(Path(downloaded)).tensors
            return self._kept(name) or self._fetched(name)
        except CorruptFileError as error:
            raise BaseModelError(str(error)) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self._repo, self._revision, self._purpose), hushed():
            yield

    def _kept(self, name: str) -> Mapping[str, TensorInfo] | None:
        """Read a header from lorakit's cache, None where it has none that is sound."""
        kept = self._cache.get(name)
        if kept is None:
            return None
        try:
            return parse_header(self.path / name, kept[8:], int.from_bytes(kept[:8], "little"))[0]
        except CorruptFileError:
            return None

    def _fetched(self, name: str) -> Mapping[str, TensorInfo]:
        """Read a header from the Hub, and keep it."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self._repo, name, revision=self.commit, endpoint=self._api.endpoint)
        with self._explained():
            start, size = read_range(url, 0, _FIRST_READ)
            length = header_length(self.path / name, start, size, _ADVICE)
            text = start[8 : 8 + length]
            if len(text) < length:
                text += read_range(url, 8 + len(text), 8 + length)[0]
        if len(text) < length:
            raise BaseModelError(f"the Hub sent too little of {self.path / name}; try again")
        tensors = parse_header(self.path / name, text, size, _ADVICE)[0]
        self._cache.put(name, size.to_bytes(8, "little") + text)
        return tensors
