"""Read the bytes of tensors with plain reads, each file opened once, by any number of threads.

Mapped files would count as memory of this process, as much as was ever read of them.
"""

from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from lorakit_cli.core.positional import read_into
from lorakit_cli.core.tensor_file import TensorFile, read_header
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import CorruptFileError


class TensorBytes:
    """Reads from files that stay open until it is closed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: dict[Path, tuple[TensorFile, int]] = {}
        self._opening = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def dtype(self, path: Path, name: str) -> str:
        """Give the dtype of a tensor as safetensors spells it. Raises CorruptFileError or OSError."""
        return self._opened(path)[0].tensors[name].dtype

    def open(self, path: Path) -> int:
        """Give the number of a file that stays open as long as this reader. Raises CorruptFileError or OSError."""
        return self._opened(path)[1]

    def find(self, path: Path, name: str, rows: tuple[int, int] | None = None) -> TensorInfo:
        """Say where one tensor or some of its rows lie. Raises CorruptFileError where the file has changed since."""
        try:
            info = self._opened(path)[0].tensors[name]
        except KeyError as error:
            raise CorruptFileError(f"{path} has changed since its header was read: {name} is missing") from error
        except OSError as error:
            raise _unreadable(path, name, error) from error
        if rows is None:
            return info
        width = (info.end - info.begin) // info.shape[0]
        shape = (rows[1] - rows[0], *info.shape[1:])
        return TensorInfo(info.dtype, shape, info.begin + rows[0] * width, info.begin + rows[1] * width)

    def fill(self, path: Path, name: str, place: TensorInfo, buffer: memoryview) -> None:
        """Read what `find` found into as many bytes. Raises CorruptFileError where the file has become shorter."""
        try:
            count = read_into(self._opened(path)[1], buffer, place.begin)
        except OSError as error:
            raise _unreadable(path, name, error) from error
        if count < place.end - place.begin:
            raise CorruptFileError(f"{path} has been cut off since its header was read")

    def _opened(self, path: Path) -> tuple[TensorFile, int]:
        with self._opening:
            if path not in self._files:
                header = read_header(path)
                file = self._stack.enter_context(path.open("rb", buffering=0))
                self._files[path] = header, file.fileno()
            return self._files[path]


def _unreadable(path: Path, name: str, error: OSError) -> CorruptFileError:
    return CorruptFileError(f"{path}: {name} cannot be read: {error.strerror}")
