"""A base on the Hub as people write it: `owner/repo`, `owner/repo@revision`, or either behind `hf:`."""

import re
from dataclasses import dataclass

from lorakit_cli.errors import BaseModelError

_FORCED = "hf:"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_REFERENCE = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^\s@]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository on the Hub, at a branch, tag or commit (None: its main branch)."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubReference | None":
        """Read a reference, None where the text is none. Raises BaseModelError for `hf:` before something else."""
        found = _REFERENCE.fullmatch(text.removeprefix(_FORCED))
        if found:
            return cls(found["repo"], found["revision"])
        if text.startswith(_FORCED):
            raise BaseModelError(
                f"{text!r} names no Hub repository, which is written hf:owner/name or hf:owner/name@revision"
            )
        return None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo
