"""Say what went wrong with the Hub, and what would help, in lorakit's words: never the client's, which name URLs."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from lorakit_cli.errors import BaseModelError, FetchError, LorakitError

_LOG_IN = "log in with `hf auth login`"
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Purpose(NamedTuple):
    """What a repository is read for: the error to raise, and what could be given in its stead."""

    error: type[LorakitError]
    instead: str


BASE = Purpose(BaseModelError, "give the path of a folder")
ADAPTER = Purpose(FetchError, "give the path of a file")


@contextmanager
def explained(repo: str, revision: str | None = None, purpose: Purpose = BASE) -> Iterator[None]:
    """Turn what the Hub's client raises over a repository into the error of a purpose."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RevisionResolutionError,
    )

    try:
        yield
    except (HTTPError, EntryNotFoundError, RevisionResolutionError, OfflineModeIsEnabled) as error:
        raise purpose.error(_reason(error, repo, revision, purpose)) from error
    except HFValidationError as error:
        raise purpose.error(f"{repo!r} is no name of a Hub repository, which is written owner/name") from error
    # The client's own faults are both; hf_xet, which moves large files for it, raises the second for most of its own.
    except (OSError, RuntimeError) as error:
        raise purpose.error(_trouble(error, repo)) from error


def _reason(error: BaseException, repo: str, revision: str | None, purpose: Purpose) -> str:
    """Say why a repository cannot be read, and what would help."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    page = f"{constants.ENDPOINT}/{repo}"
    match error:
        case GatedRepoError():
            return f"{repo} is gated; accept its licence at {page} and {_LOG_IN}"
        case RepositoryNotFoundError():
            return f"the Hub has no repository {repo}, or it is private; check its name, or {_LOG_IN}"
        case RevisionNotFoundError():
            return f"{repo} has no revision {revision}; its branches and tags are listed at {page}/tree/main"
        case RemoteEntryNotFoundError():
            return f"{repo} has lost a file that it lists; try again, or another revision"
        case HfHubHTTPError():
            return _refusal(error.response.status_code, repo)
        case LocalEntryNotFoundError() | RevisionResolutionError() if error.__cause__:
            return _reason(error.__cause__, repo, revision, purpose)
        case OfflineModeIsEnabled() | LocalEntryNotFoundError() | RevisionResolutionError():
            return (
                f"{repo} is not in the cache, and HF_HUB_OFFLINE forbids the network; unset it once, or "
                f"{purpose.instead}"
            )
        case _:
            return (
                f"{constants.ENDPOINT} cannot be reached for {repo} ({type(error).__name__}); check the connection, "
                f"or {purpose.instead}"
            )


def _refusal(status: int, repo: str) -> str:
    """Say what a status means that speaks of no repository, revision or file."""
    if status == 401:
        return f"the Hub refuses the token it was given for {repo}; {_LOG_IN} again"
    if status == 403:
        return f"the token in use may not read {repo}; {_LOG_IN} with one that may"
    if status == 429:
        return f"the Hub asks for fewer requests (HTTP 429) and does not give {repo}; wait some minutes, or {_LOG_IN}"
    if status >= 500:
        return f"the Hub is in trouble (HTTP {status}) and does not give {repo}; try again later"
    return f"the Hub does not give {repo} (HTTP {status})"


def _trouble(error: OSError | RuntimeError, repo: str) -> str:
    """Say why a file of a repository could not be kept, or came in wrong."""
    from huggingface_hub import constants

    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return (
            f"the disk is full: {repo} does not fit into the Hub's cache, {constants.HF_HUB_CACHE}; free some space, "
            "or name another place with HF_HOME"
        )
    if number is not None:
        reason = os.strerror(number)
        return f"the Hub's cache, {constants.HF_HUB_CACHE}, cannot be used for {repo}: {reason}; HF_HOME names another"
    return f"a file of {repo} did not arrive whole ({type(error).__name__}); try again, what is complete is kept"
