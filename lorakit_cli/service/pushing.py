"""Push an output to the Hub once it is complete, and know beforehand that nothing obvious stands in the way."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from lorakit_cli.core.recipe import recipe_of
from lorakit_cli.errors import OptionError, PushError
from lorakit_cli.service.fuse_report import FuseReport
from lorakit_cli.service.fuse_request import PreparedFuse
from lorakit_cli.service.model_card import model_card
from lorakit_cli.sources.hub_upload import require_name, require_token, upload
from lorakit_cli.sources.local import is_embedded


@dataclass(frozen=True, slots=True)
class Push:
    """Where an output is to be pushed; a repository that is not there yet becomes private unless `public`."""

    repo: str
    public: bool = False


def prepare_push(repo: str | None, *, public: bool = False, dry_run: bool = False) -> Push | None:
    """Check what is asked for, None where it is nothing; but for a dry run, ask the Hub whether it knows the token.

    Raises OptionError, PushError.
    """
    if repo is None:
        if public:
            raise OptionError("--public is for the repository that --push-to-hub makes")
        return None
    require_name(repo)
    if not dry_run:
        require_token()
    return Push(repo, public)


def push(prepared: PreparedFuse, report: FuseReport, to: Push) -> FuseReport:
    """Upload a fused pipeline, and add to its report where it is. Raises PushError, with the output as it is."""
    out = Path(report.out)
    recipe = recipe_of(out) if out.is_file() else None
    card = model_card(recipe, file=out.name) if recipe else None
    try:
        return replace(report, pushed=upload(out, to.repo, _message(prepared), public=to.public, card=card))
    except PushError as error:
        private = "" if to.public else " --private"
        later = f"hf upload {shlex.quote(to.repo)} {shlex.quote(str(out))}{private}"
        raise PushError(
            f"{out} is complete, but was not pushed to {to.repo}: {error}; `{later}` does so later"
        ) from error


def _message(prepared: PreparedFuse) -> str:
    """Say what was fused into what; of a folder its name alone, for strangers need not know where it is."""
    base = prepared.plan.base
    adapters = ", ".join(f"{adapter.name}:{adapter.weight:g}" for adapter in prepared.plan.adapters)
    name = prepared.base_source if is_embedded(base.path) else base.path.name
    return f"Fuse {adapters} into {base.remote or name}"
