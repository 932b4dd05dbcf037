"""The hashes of adapter files that pictures carry, remembered from run to run."""

from collections.abc import Iterator
from pathlib import Path

from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.hashing import hashes, sha256_of
from lorakit_cli.sources.digest_cache import places_of, remembered

_SHA256, _AUTO_V3 = "sha256", "auto_v3"


def digest_of(path: Path) -> str:
    """Give the sha256 of an adapter file. Raises CorruptFileError."""
    try:
        return remembered(path, _SHA256, sha256_of)
    except OSError as error:
        raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from error


def auto_v3_of(path: Path) -> str:
    """Give the hash by which web UIs know an adapter, 12 digits of that of its tensors; of a pickle, of the whole file.

    Raises CorruptFileError.
    """
    try:
        return remembered(path, _AUTO_V3, _auto_v3)
    except OSError as error:
        raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from error


def places_of_adapter(sha256: str) -> Iterator[Path]:
    """Yield where on this machine an adapter file was when it was looked at last."""
    return places_of(_SHA256, sha256)


def _auto_v3(path: Path) -> str:
    if path.suffix.lower() != ".safetensors":
        return sha256_of(path)[:12]
    return hashes(path).auto_v3.lower()
