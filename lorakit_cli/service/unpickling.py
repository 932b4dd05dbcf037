"""Turn a pickled adapter into a safetensors file, in a process of its own, so that all else reads safetensors only."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from lorakit_cli import errors
from lorakit_cli.core.adapter_spec import FILE_SUFFIXES
from lorakit_cli.core.private_folder import private_folder
from lorakit_cli.errors import CorruptFileError, LorakitError, OutputError, PickleError
from lorakit_cli.formats.pickled_list import list_component

# -I keeps a torch.py in the current folder from being imported; the path is this process's own.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lorakit_cli.service.pickle_reading import main; sys.exit(main(*sys.argv[2:]))"
)
_PROTOCOLS = tuple(bytes([0x80, version]) for version in range(2, 6))
_SECONDS = 600
_numbers = itertools.count()


def is_pickle(path: Path) -> bool:
    """Say whether a file is a pickle by its first bytes, or else by its suffix. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(512)
    if _is_safetensors(start):
        return False
    name_length = int.from_bytes(start[26:28], "little")
    is_torch_zip = start.startswith(b"PK\x03\x04") and start[30 : 30 + name_length].endswith(b"data.pkl")
    return is_torch_zip or start.startswith(_PROTOCOLS) or path.suffix.lower() in FILE_SUFFIXES


def unpickled(path: Path) -> Path:
    """Copy the tensors of a pickled adapter into a safetensors file that is removed when this process ends.

    No code of the pickle is run: torch's restricted unpickler (`weights_only`) opens it, in a process with limits.
    Raises LoraFileError or another LorakitError; PickleError where it asks for more than tensors.
    """
    try:
        target = private_folder() / f"{next(_numbers)}.safetensors"
    except OSError as error:
        raise OutputError(f"{path} cannot be unpacked: {error}") from error
    paths = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    command = [sys.executable, "-I", "-c", _PROGRAM, paths, str(target), list_component(path.name)]
    with _opened(path) as file:
        done = _run(command, path, file, _SECONDS + file.seek(0, 2) / 1e6)
    if done.returncode:
        target.unlink(missing_ok=True)
        raise _failure(path, done)
    return target


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from error


def _run(command: list[str], path: Path, file: BinaryIO, seconds: float) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(command, stdin=file, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise PickleError(f"{path} is not open after {seconds:.0f} seconds; refused") from error


def _failure(path: Path, done: "subprocess.CompletedProcess[bytes]") -> LorakitError:
    """Say what the reading process said. Raises RuntimeError where it failed by a mistake of its own."""
    if done.stdout:
        report = json.loads(done.stdout)
        kind: type[LorakitError] = getattr(errors, report["error"])
        return kind(f"{path} {report['reason']}")
    if done.returncode != 1:
        return PickleError(
            f"{path} ended the process that opened it ({done.returncode}): it takes far more time or memory than its "
            "size, or is made to crash its reader; refused"
        )
    raise RuntimeError(f"cannot open {path}:\n{done.stderr.decode(errors='replace')}")


def _is_safetensors(start: bytes) -> bool:
    """Say whether a header length and a JSON object stand first; a length may begin like a pickle."""
    return start[4:8] == bytes(4) and start[8:9] == b"{"
