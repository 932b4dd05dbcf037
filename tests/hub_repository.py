"""What a Hub on this machine holds, refuses and remembers."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The real Hub gives files of these kinds by way of another host.
LARGE = (".safetensors", ".bin", ".ckpt", ".gguf")


@dataclass
class Request:
    """One request that was answered, with the token it carried and the bytes of the answer's body so far."""

    method: str
    path: str
    host: str
    token: str | None
    status: int
    sent: int = 0


@dataclass
class Refusal:
    """An answer to give instead, to requests whose path has `mark` in it: as often as `times`, None for always."""

    mark: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = None


@dataclass
class Repository:
    """A repository: folders by commit, commits by branch or tag, and who may read it.

    `gated`: everybody may know of it, but only who shows `token` may read its files. `private`: without the token
    it does not exist.
    """

    commits: dict[str, Path] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    token: str | None = None

    def commit(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.revisions.get(revision)


def entries(folder: Path, inside: str, recursive: bool) -> Iterator[dict[str, object]]:
    """List the files and folders of a folder as the API does."""
    top = folder / inside
    for path in sorted(top.rglob("*") if recursive else top.iterdir()):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            yield {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
        else:
            size = path.stat().st_size
            entry = {"type": "file", "path": name, "oid": etag(path)[:40], "size": size}
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": etag(path), "size": size, "pointerSize": 134}
            yield entry


def etag(path: Path) -> str:
    """Give a file's fingerprint: of its start and size, since test files may be sparse and of many gigabytes."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 20) + str(path.stat().st_size).encode()).hexdigest()


def pieces(body: bytes | tuple[Path, int, int], cut: int | None) -> Iterator[bytes]:
    """Give an answer's body, of a stretch of a file no more than `cut` bytes."""
    if isinstance(body, bytes):
        yield body
        return
    path, begin, end = body
    with path.open("rb") as file:
        file.seek(begin)
        end = end if cut is None else min(end, begin + cut)
        while begin < end and (piece := file.read(min(65536, end - begin))):
            yield piece
            begin += len(piece)
