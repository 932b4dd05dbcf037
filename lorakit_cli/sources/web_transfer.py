"""Bring a file from the web into a part; what breaks off goes on where it was, in this run or in a later one."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lorakit_cli.core.disk_space import require_space
from lorakit_cli.core.downloads import DownloadProgress
from lorakit_cli.core.record import Record
from lorakit_cli.errors import DownloadError, OutputError
from lorakit_cli.sources.web_client import connected, opened
from lorakit_cli.sources.web_errors import Asked, refused
from lorakit_cli.sources.web_part import Notes, Part, encoded
from lorakit_cli.sources.web_tries import BrokenOffError, answered, persistently, require_given

if TYPE_CHECKING:
    from httpx2 import Client, Response

# A line that breaks off again and again still brings a large file in, as long as so much comes each time.
_GAIN = 16 << 20
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)", re.ASCII)


class Wanted(Record):
    """A file to be fetched. `check` hears the name that the server gives it, and may raise.

    `log_in` begins the path to which redirects lead whoever has to log in first.
    """

    url: str
    asked: Asked
    headers: Mapping[str, str] = {}
    check: Callable[[str | None], object] = lambda name: None
    log_in: str | None = None


def bring(wanted: Wanted, part: Part, progress: DownloadProgress | None = None) -> Notes:
    """Fetch a file, or what is missing of it, into `part`, and give what its server says about it.

    Raises DownloadError, after some tries where another may help; OutputError where it cannot be stored.
    """
    before = part.size

    def attempt(again: bool) -> Notes:
        nonlocal before
        before = part.size
        return _once(client, wanted, part, progress, again)

    try:
        with connected() as client:
            return persistently(attempt, lambda: part.size - before >= _GAIN)
    except BrokenOffError as broken:
        raise _given_up(broken.failure, part) from broken


def _given_up(failure: DownloadError, part: Part) -> DownloadError:
    kept = part.resumable()
    if kept is None:
        part.drop()
        return failure
    whole = f" of {kept.size / 1e6:.1f}" if kept.size else ""
    return DownloadError(
        f"{failure}; {part.size / 1e6:.1f}{whole} MB are kept, and the same command goes on from there"
    )


def _once(client: "Client", wanted: Wanted, part: Part, progress: DownloadProgress | None, again: bool) -> Notes:
    asked, kept = wanted.asked, part.resumable()
    headers = dict(wanted.headers)
    if kept and kept.version:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": kept.version}
    with answered(asked, again=again), opened(client, wanted.url, headers, asked) as response:
        if response.status_code == 416 and kept:
            return _already_whole(response, asked, part, kept)
        if wanted.log_in and response.url.path.startswith(wanted.log_in):
            raise refused(asked, 401)
        require_given(response, asked, 200, 206)
        notes = _begun(response, wanted, part, kept)
        _store(response, part, notes, progress)
    if notes.size is not None and part.size != notes.size:
        raise BrokenOffError(DownloadError(f"{asked.host} sent too little of {asked.label}"))
    return notes


def _already_whole(response: "Response", asked: Asked, part: Part, kept: Notes) -> Notes:
    """Take what was kept for the file where nothing comes behind it, else have it begun anew."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found and int(found[2]) == part.size == kept.size:
        return kept
    part.drop()
    raise BrokenOffError(refused(asked, response.status_code))


def _begun(response: "Response", wanted: Wanted, part: Part, kept: Notes | None) -> Notes:
    """Give what is known of the file, the part cut off where this answer's first byte belongs."""
    if response.status_code == 200:
        notes = Notes.of(response)
        wanted.check(notes.name)
        part.begin(notes)
        return notes
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if kept and found and found[1] and int(found[1]) == part.size and kept.size in (None, int(found[2])):
        wanted.check(kept.name)
        return kept._replace(size=int(found[2]))
    part.drop()
    raise BrokenOffError(DownloadError(f"{wanted.asked.host} sent another part of {wanted.asked.label} than was asked"))


def _store(response: "Response", part: Part, notes: Notes, progress: DownloadProgress | None) -> None:
    done = part.size
    if notes.size is not None:
        try:
            require_space(part.path.parent, notes.size - done)
        except OutputError as error:
            raise OutputError(f"{error}, which LORAKIT_CACHE names") from error
    with part.appending() as file:
        for chunk in response.iter_bytes() if encoded(response) else response.iter_raw():
            file.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, notes.size)
