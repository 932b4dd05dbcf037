"""What runs in a process of its own: open a pickle of tensors, and nothing but tensors, and write it as safetensors.

The pickle comes on stdin; the first and only word on stdout is a JSON object with an `error` and its `reason`, if
there is one. The process limits its own memory, time and output, so that a file made to exhaust them ends it alone.
"""

import json
import os
import pickle
import re
import struct
import sys
import tarfile
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lorakit_cli.errors import (
    CorruptFileError,
    LorakitError,
    NotALoraError,
    OutputError,
    PickleError,
    UnsupportedError,
)
from lorakit_cli.service.pickle_contents import Contents

# Before it, a pickle could corrupt memory even so: https://github.com/pytorch/pytorch/security/advisories/GHSA-63cw-57p8-fm3p
_SAFE_TORCH = (2, 10)
_MOST_MEMBERS = 100_000
_LONGEST_PICKLE = 64_000_000
# What torch raises for damaged input, which is nearly everything.
_DAMAGE = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, EOFError,
    OSError, struct.error, tarfile.TarError,
)  # fmt: skip

_GREEDY = "needs far more memory than its size explains; refused"


def main(target: str, component: str) -> int:
    """Convert the pickle on stdin; 0 if `target` is complete."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    file = sys.stdin.buffer
    try:
        size = file.seek(0, os.SEEK_END)
        limit_this_process(size)
        contents = read_pickle(file, size, component)
        _write(contents, Path(target))
    except LorakitError as error:
        json.dump({"error": type(error).__name__, "reason": str(error)}, sys.stdout)
        return 1
    except MemoryError:
        json.dump({"error": PickleError.__name__, "reason": _GREEDY}, sys.stdout)
        return 1
    return 0


def limit_this_process(size: int) -> None:
    """Limit memory, CPU time and written bytes to what a file of `size` bytes can need, where the system can."""
    try:
        import resource
    except ImportError:  # Windows; there the time alone is limited, from outside
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CPU: int(usage.ru_utime + usage.ru_stime) + 60 + size // 5_000_000,
        resource.RLIMIT_FSIZE: 6 * size + 200_000_000,
        resource.RLIMIT_CORE: 0,
    }
    # libtorch alone reserves gigabytes; what counts is what comes on top.
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + 8 * size + 1_000_000_000
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # macOS has the names of some limits, but not the limits
            resource.setrlimit(kind, (most, most))


def read_pickle(file: BinaryIO, size: int, component: str) -> Contents:
    """Read the tensors of a pickle of `size` bytes without running any code of it. Raises LorakitError."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _SAFE_TORCH:
        raise UnsupportedError(
            f"is a pickle, which torch {torch.__version__} cannot open safely; install torch 2.10 or newer"
        )
    file.seek(0)
    start = file.read(512)
    if start[257:262] == b"ustar":
        raise PickleError("is a tar archive as PyTorch wrote before 2017, which cannot be opened without running code")
    zipped = start.startswith(b"PK")
    if zipped:
        require_plain_zip(file, size)
    file.seek(0)
    return Contents(_load(file, _Storages(size, zeroed=not zipped)), size=size, component=component)


def require_plain_zip(file: BinaryIO, size: int) -> None:
    """Refuse a zip archive that `torch.save` does not write: compressed, repeated, overlapping or huge members."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError) as error:
        raise CorruptFileError(f"is a broken or truncated zip archive ({error!s:.80})") from error
    names = {member.filename for member in members}
    if any(name.endswith("/constants.pkl") for name in names):
        raise PickleError("is a TorchScript program, not a file of tensors; refused")
    pickles = [member for member in members if member.filename.endswith("data.pkl")]
    if len(pickles) != 1:
        raise NotALoraError("is a zip archive, but not one that torch.save wrote")
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise CorruptFileError("is a compressed zip archive, which torch.save never writes; refused")
    unfolded = sum(member.file_size for member in members)
    if len(names) < len(members) or len(members) > _MOST_MEMBERS or unfolded > size:
        raise CorruptFileError(f"is a zip archive of {len(members)} members that do not fit into it; refused")
    if pickles[0].file_size > _LONGEST_PICKLE:
        raise CorruptFileError(f"has a pickle of {pickles[0].file_size} bytes beside its tensors; refused")


class _Storages:
    """Takes every storage of a pickle to the CPU, and no more of them than fit into the file."""

    def __init__(self, size: int, *, zeroed: bool) -> None:
        self._left = size
        self._zeroed = zeroed

    def __call__(self, storage: Any, location: str) -> Any:
        self._left -= storage.nbytes()
        if self._left < 0:
            raise CorruptFileError("claims more bytes of tensors than it has; refused")
        # Before 1.6 the values came last, and a file may leave some out: then this would be whatever was in memory.
        return storage.fill_(0) if self._zeroed else storage


def _load(file: BinaryIO, storages: _Storages) -> object:
    try:
        return torch.load(file, map_location=storages, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(str(error)) from error
    except _DAMAGE as error:
        if "allocate memory" in str(error):
            raise PickleError(_GREEDY) from error
        raise CorruptFileError(
            f"is damaged or no file of torch.save ({type(error).__name__}: {error!s:.120})"
        ) from error


def _refusal(message: str) -> LorakitError:
    """Turn what torch's restricted unpickler says into one line."""
    wanted = re.search(r"GLOBAL (\S+) w", message)
    if wanted:
        return PickleError(f"needs code to be run to open it ({wanted[1]:.120}); refused")
    reason = re.search(r"WeightsUnpickler error:\s*(.*)", message)
    said = f"{reason[1] if reason else message:.120}"
    if "Can only" in said or "reduce" in said:
        return PickleError(f"needs code to be run to open it ({said}); refused")
    return CorruptFileError(f"is damaged or no file of torch.save ({said})")


def _write(contents: Contents, target: Path) -> None:
    try:
        save_file(contents.tensors, target, contents.metadata)
    except (SafetensorError, OSError) as error:
        raise OutputError(f"cannot be unpacked into {target.parent}: {error!s:.120}") from error
