"""Tell a file of tensors from every other: a digest of its header and of the digests of its tensors.

XXH3 over tensors, which can be read in any order and by several threads, costs a tenth of what reading them does. It
finds what has changed, and is no protection from somebody who wants two files to be taken for one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseTensor
from lorakit_cli.core.match import Target
from lorakit_cli.core.positional import read_into

_BLOCK = 4 << 20


class FileDigest(NamedTuple):
    """The size of a file and the digest of what is in it."""

    size: int
    xxh3: str


def digest_tensors(path: Path, tensors: Mapping[Target, BaseTensor]) -> dict[Target, bytes]:
    """Read tensors of one file and digest each. Raises OSError."""
    from xxhash import xxh3_128

    found: dict[Target, bytes] = {}
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        for target, (info, _) in tensors.items():
            digest = xxh3_128()
            for place in range(info.begin, info.end, _BLOCK):
                block = buffer[: min(_BLOCK, info.end - place)]
                if read_into(file.fileno(), block, place) < len(block):
                    raise OSError(f"{path} has been cut off since its header was read")
                digest.update(block)
            found[target] = digest.digest()
    return found


def digest_files(
    stored: Mapping[Target, BaseTensor], tensors: Mapping[Target, bytes], paths: Iterable[Path]
) -> dict[Path, FileDigest]:
    """Give the digest of each of these files all of whose tensors have been digested."""
    from xxhash import xxh3_128

    files: dict[Path, list[tuple[int, Target]]] = {path: [] for path in paths}
    for target, tensor in stored.items():
        if tensor.file in files:
            files[tensor.local_file].append((tensor.info.begin, target))
    found: dict[Path, FileDigest] = {}
    for path, entries in files.items():
        if all(target in tensors for _, target in entries):
            with path.open("rb") as file:
                length = file.read(8)
                digest = xxh3_128(length + file.read(int.from_bytes(length, "little")))
                size = file.seek(0, 2)
            for _, target in sorted(entries):
                digest.update(tensors[target])
            found[path] = FileDigest(size, digest.hexdigest())
    return found
