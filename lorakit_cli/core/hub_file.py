"""An adapter on the Hub as people write it: `[hf:]owner/repo[@revision][/path/to/file.safetensors]`."""

import re
from urllib.parse import quote, unquote

from lorakit_cli.core.record import Record
from lorakit_cli.errors import AdapterSpecError

FORCED = "hf:"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# Of the revisions with a slash, those of pull requests and conversions are known; others are written with %2F.
_REVISION = r"refs/[a-z]+/[^\s@/]+|[^\s@/]+"
_REFERENCE = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_REVISION}))?(?:/(?P<path>\S.*)?)?", re.ASCII)


class HubFile(Record):
    """A file or folder in a repository on the Hub, at a branch, tag or commit (None: its main branch).

    `path` is empty for the repository itself. `forced`: whatever lies here under the same words.
    """

    repo: str
    revision: str | None = None
    path: str = ""
    forced: bool = False

    @classmethod
    def parse(cls, text: str) -> "HubFile | None":
        """Read a reference, None where the text is none. Raises AdapterSpecError for `hf:` before something else."""
        found = _REFERENCE.fullmatch(text.removeprefix(FORCED))
        path = (found["path"] or "").rstrip("/") if found else ""
        # A repository has no folders that lead out of it.
        if found and not {"", ".", ".."} & set(path.split("/") if path else ()):
            revision = unquote(found["revision"]) if found["revision"] else None
            return cls(found["repo"], revision, path, text.startswith(FORCED))
        if text.startswith(FORCED):
            raise AdapterSpecError(
                f"{text!r} names no adapter on the Hub, which is written hf:owner/repo or "
                "hf:owner/repo@revision/file.safetensors"
            )
        return None

    @property
    def name(self) -> str:
        """The last part of its path, or the repository's name."""
        return (self.path or self.repo).rsplit("/", 1)[-1]

    def spelled(self, path: str) -> str:
        """Write the reference to a file of the same repository and revision."""
        return str(self._replace(path=path))

    def __str__(self) -> str:
        revision = self.revision or ""
        known = re.fullmatch(_REVISION, revision, re.ASCII)
        revision = f"@{revision if known else quote(revision, safe='')}" if revision else ""
        return f"{FORCED if self.forced else ''}{self.repo}{revision}" + (f"/{self.path}" if self.path else "")
