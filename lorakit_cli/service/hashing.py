"""The hashes by which adapter files are known: of the whole file, and of its tensors alone."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from lorakit_cli.core.tensor_file import TensorFile, read_header
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.core.training import StatedHash, read_training
from lorakit_cli.errors import CorruptFileError

_BLOCK = 4 * 1024 * 1024
# Where the first web UIs looked at a file to tell it from others, and how much of it they read.
_WINDOW_START, _WINDOW_LENGTH = 0x100000, 0x10000
_TRAINING_PREFIX = "ss_"

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class AddnetHashes:
    """What kohya's tools keep in a file as `sshs_model_hash` and `sshs_legacy_hash`.

    `legacy` is None where the header is so long that the bytes it is made of are the header's, whose order is chance.
    """

    model: str
    legacy: str | None


@dataclass(frozen=True, slots=True)
class Hashes:
    """The hashes of one file: AutoV1 to AutoV3 as CivitAI shows them, in upper case; the others as kohya does."""

    sha256: str
    auto_v1: str
    auto_v2: str
    auto_v3: str
    addnet: AddnetHashes
    stated: tuple[StatedHash, ...]


def hashes(path: Path, progress: Progress | None = None) -> Hashes:
    """Hash an adapter file in one reading; `progress` is told the bytes done and all bytes.

    AutoV2 starts the hash of the file; AutoV3 that of everything behind the header, which is `sshs_model_hash`.
    AutoV1 is of 64 KiB at 1 MiB. Raises CorruptFileError or OSError.
    """
    header = read_header(path)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        whole, data = _both(file, header, start, progress)
        auto_v1 = _window_hash(file, _WINDOW_START)
        window = _window_in_data(header.tensors, header.metadata)
        legacy = None if window is None else _window_hash(file, start + window)
    addnet = AddnetHashes(data, legacy)
    stated = tuple(_compared(header, addnet))
    return Hashes(whole, auto_v1.upper(), whole[:10].upper(), data[:12].upper(), addnet, stated)


def sha256_of(path: Path) -> str:
    """Hash a whole file. Raises CorruptFileError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from error


def whole_hashes(path: Path, progress: Progress | None = None) -> tuple[str, str]:
    """Hash a file of any kind: sha256 and AutoV1. Raises OSError."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done, size)
        return digest.hexdigest(), _window_hash(file, _WINDOW_START)


def addnet_hashes(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], data: Iterable[bytes | memoryview]
) -> AddnetHashes:
    """Give the hashes for a file that is being written: its tensors and their places, its metadata and its data.

    `data` is everything behind the header, in order and in blocks of any size; places may count from anywhere. The
    legacy hash is of 64 KiB at 1 MiB of the file as it would be with the training metadata (`ss_…`) alone, see
    precalculate_safetensors_hashes in https://github.com/kohya-ss/sd-scripts/blob/main/library/train_util.py.
    """
    window = _window_in_data(tensors, metadata)
    model, legacy, position = hashlib.sha256(), hashlib.sha256(), 0
    for block in data:
        model.update(block)
        if window is not None:
            legacy.update(block[max(window - position, 0) : max(window + _WINDOW_LENGTH - position, 0)])
        position += len(block)
    return AddnetHashes(model.hexdigest(), None if window is None else legacy.hexdigest()[:8])


def _both(file: BufferedReader, header: TensorFile, start: int, progress: Progress | None) -> tuple[str, str]:
    """Hash the whole file and its data side by side, while the next block is read."""
    whole, data = hashlib.sha256(), hashlib.sha256()
    file.seek(0)
    whole.update(file.read(start))
    done = start
    with ThreadPoolExecutor(2) as pool:
        running: list[Future[None]] = []
        for block in _blocks(file):
            for each in running:
                each.result()
            running = [pool.submit(whole.update, block), pool.submit(data.update, block)]
            done += len(block)
            if progress:
                progress(done, header.size)
        for each in running:
            each.result()
    if done != header.size:
        raise CorruptFileError(f"{header.path} changed while it was read")
    return whole.hexdigest(), data.hexdigest()


def _blocks(file: BufferedReader) -> Iterator[memoryview]:
    """Read the rest of a file into two buffers by turns: one may still be looked at while the other is filled."""
    buffers = [memoryview(bytearray(_BLOCK)) for _ in range(2)]
    turn = 0
    while count := file.readinto(buffers[turn]):
        yield buffers[turn][:count]
        turn = 1 - turn


def _window_hash(file: BinaryIO, start: int) -> str:
    # Of a shorter file this is the hash of nothing, e3b0c442, as it is elsewhere.
    file.seek(start)
    return hashlib.sha256(file.read(_WINDOW_LENGTH)).hexdigest()[:8]


def _window_in_data(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> int | None:
    """Say where in the data the window of the legacy hash begins, None where it begins in the header."""
    length = _training_header_length(tensors, metadata)
    if length is None or 8 + length > _WINDOW_START:
        return None
    return _WINDOW_START - 8 - length


def _training_header_length(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> int | None:
    """Give the length of the header that safetensors writes for these tensors and the training metadata alone.

    Compact JSON, as serde_json writes it, filled up with spaces to a multiple of 8; the order of entries does not
    matter for its length. None for text that no JSON in UTF-8 holds.
    https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs (prepare)
    """
    start = min((info.begin for info in tensors.values()), default=0)
    entries: dict[str, object] = {
        "__metadata__": {key: value for key, value in metadata.items() if key.startswith(_TRAINING_PREFIX)}
    }
    for name, info in tensors.items():
        places = (info.begin - start, info.end - start)
        entries[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": places}
    try:
        length = len(json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        return None
    return length + -length % 8


def _compared(header: TensorFile, actual: AddnetHashes) -> Iterator[StatedHash]:
    for key, text in read_training(header.metadata).hashes.items():
        if key == "sshs_legacy_hash":
            matches = None if actual.legacy is None else text == actual.legacy
        else:
            matches = text == actual.model or (key == "modelspec.hash_sha256" and text == _by_name(header))
        yield StatedHash(key, text, matches)


def _by_name(header: TensorFile) -> str:
    """Hash the tensors in the order of their names, as OneTrainer does for `modelspec.hash_sha256`.

    https://github.com/Nerogar/OneTrainer (modules/modelSaver/mixin): it differs from the hash of the data where not all
    tensors have one dtype, by which safetensors sorts first.
    """
    digest = hashlib.sha256()
    with header.path.open("rb") as file:
        for _, info in sorted(header.tensors.items()):
            file.seek(info.begin)
            for place in range(info.begin, info.end, _BLOCK):
                digest.update(file.read(min(_BLOCK, info.end - place)))
    return digest.hexdigest()
