"""What has come of a file so far, and by what to tell that the rest belongs to it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lorakit_cli.core.record import Record
from lorakit_cli.core.write_error import write_error
from lorakit_cli.sources.web_name import disposition_name

if TYPE_CHECKING:
    from httpx2 import Response

_LONGEST_NOTES = 65_536


class Notes(Record):
    """What a server says about a file: its size, what tells this version of it from others, and its name."""

    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    name: str | None = None

    @classmethod
    def of(cls, response: "Response") -> "Notes":
        """Read them from the headers of an answer that begins with the file's first byte."""
        headers = response.headers
        name = disposition_name(headers.get("Content-Disposition", ""))
        if encoded(response):
            # Size and version are those of what goes over the wire.
            return cls(name=name)
        length = headers.get("Content-Length", "")
        size = int(length) if length.isascii() and length.isdigit() else None
        return cls(size, headers.get("ETag"), headers.get("Last-Modified"), name)

    @property
    def version(self) -> str | None:
        """What a server compares before it sends the rest, None where there is nothing that it could."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.modified


def encoded(response: "Response") -> bool:
    """Tell whether an answer is compressed for the way."""
    return bool(response.headers.get("Content-Encoding", "identity").lower() != "identity")


class Part:
    """A file that is not whole, with what its server said about it beside it. Everything may raise OutputError.

    `lasting`: a later run may go on with it.
    """

    def __init__(self, path: Path, *, lasting: bool = True) -> None:
        self.path = path
        self._lasting = lasting
        self._notes = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """The number of bytes that have come."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def resumable(self) -> Notes | None:
        """Give what is known of the file if the rest of it can be asked for, None where it has to come anew."""
        try:
            with self._notes.open("rb") as file:
                entries = json.loads(file.read(_LONGEST_NOTES))
            notes = Notes(entries["size"], entries["etag"], entries["modified"], entries["name"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return notes if self.size and notes.version and self._lasting else None

    def begin(self, notes: Notes) -> None:
        """Begin anew."""
        self.drop()
        with self._writing():
            text = json.dumps({name: getattr(notes, name) for name in Notes._fields})
            self._notes.write_text(text, encoding="utf-8")

    @contextmanager
    def appending(self) -> Iterator[BinaryIO]:
        """Open it for what comes next."""
        with self._writing(), self.path.open("ab") as file:
            yield file

    def drop(self) -> None:
        """Remove it."""
        for path in (self.path, self._notes):
            with suppress(FileNotFoundError), self._writing():
                path.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise write_error(self.path, error) from error
