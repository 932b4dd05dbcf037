"""Upload an output to a repository on the Hub in one commit, through the Hub's own client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lorakit_cli.core.pipeline_copy import is_weights
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import OptionError, PushError
from lorakit_cli.sources.hub_silence import hushed

CARD = "README.md"
_LOG_IN = "log in with `hf auth login`"
_LONGEST_MESSAGE = 200


def require_name(repo: str) -> None:
    """Raise OptionError for what names no repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise OptionError(f"--push-to-hub {repo}: a repository on the Hub is written owner/name") from error


def require_token() -> None:
    """See that there is a token that the Hub knows and that may write, so far as it says. Raises PushError."""
    from huggingface_hub import HfApi

    with _explained("the Hub"):
        told = HfApi().whoami()
    role = ((told.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise PushError(f"the token in use may only read; {_LOG_IN} with one that may write")


def upload(out: Path, repo: str, message: str, *, public: bool = False, card: str | None = None) -> str:
    """Upload a folder or file, and give the address of the commit; a repository that is missing is made, private.

    `card` goes beside a file, unless the repository has one. Weights that the commit would leave beside new ones, to be
    loaded in their place, are removed by it. Raises PushError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with _explained(repo), hushed():
        name = api.create_repo(repo, private=not public, exist_ok=True).repo_id
        there = api.list_repo_files(name)
        files: dict[str, Path | bytes] = dict(_files(out))
        if card is not None and CARD not in (*there, *files):
            files[CARD] = card.encode()
        adding = [CommitOperationAdd(path, file) for path, file in files.items()]
        removing = [CommitOperationDelete(path) for path in _stale(there, files)]
        done = api.create_commit(name, [*adding, *removing], commit_message=message)
    return str(done.commit_url)


def _files(out: Path) -> Iterator[tuple[str, Path]]:
    if out.is_file():
        yield out.name, out
        return
    for path in sorted(out.rglob("*")):
        if path.is_file():
            yield path.relative_to(out).as_posix(), path


def _stale(there: list[str], files: Mapping[str, object]) -> Iterator[str]:
    folders = {PurePosixPath(name).parent for name in files} - {PurePosixPath()}
    for name in there:
        path = PurePosixPath(name)
        if name not in files and path.parent in folders and is_weights(path):
            yield name


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what the Hub's client raises over an upload into PushError."""
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    # The client gives what it can name no better as one of the last three, and hf_xet does.
    except (HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError, ValueError, RuntimeError) as error:
        raise PushError(_reason(error, repo)) from error


def _reason(error: BaseException, repo: str) -> str:
    """Say why something is not uploaded, and what would help: never with the token in use."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    match error:
        case LocalTokenNotFoundError():
            return f"there is no token for the Hub; {_LOG_IN}, or set HF_TOKEN"
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE forbids the network; unset it"
        case HfHubHTTPError():
            return _refusal(error.response.status_code, repo, error.server_message)
        case HTTPError():
            return f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}); check the connection"
        case _ if error.__cause__:
            return _reason(error.__cause__, repo)
        case _:
            return f"the Hub's client gave up ({type(error).__name__}); try again"


def _refusal(status: int, repo: str, message: str | None) -> str:
    said = f", which says: {shown(message, _LONGEST_MESSAGE)}" if message else ""
    if status == 401:
        return f"the Hub refuses the token in use; {_LOG_IN} again"
    if status in (403, 404):
        return f"the token in use may not write to {repo}{said}; {_LOG_IN} with one that may"
    if status == 429:
        return "the Hub asks for fewer requests (HTTP 429); wait some minutes"
    if status >= 500:
        return f"the Hub is in trouble (HTTP {status}); try again later"
    return f"the Hub does not take it (HTTP {status}{said})"
