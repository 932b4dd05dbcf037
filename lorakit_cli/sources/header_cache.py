"""Keep what was read of a repository's commit, which never changes: its list of files and the headers of weights."""

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from lorakit_cli.sources.cache_folder import cache_folder

_UNSAFE = re.compile(r"[^\w.-]")


class HeaderCache:
    """Small files by name, for one commit of one repository, in the user's cache folder."""

    def __init__(self, repo: str, commit: str) -> None:
        self._folder = cache_folder() / "hub" / _UNSAFE.sub("--", repo) / _UNSAFE.sub("--", commit)

    def get(self, name: str) -> bytes | None:
        """Read what was kept under a name, None where nothing was or it cannot be read."""
        try:
            return self._path(name).read_bytes()
        except OSError:
            return None

    def put(self, name: str, content: bytes) -> None:
        """Keep something under a name; where that fails it is fetched again the next time."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(self._path(name))

    def _path(self, name: str) -> Path:
        # The name is the repository's, which must not choose where this machine writes.
        return self._folder / hashlib.sha256(name.encode()).hexdigest()
