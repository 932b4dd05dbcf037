"""Open a base and a fine-tune of it, wherever they are, and pair their parameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.downloads import download_bar
from lorakit_cli.core.model_pairs import Pairs, pair_models
from lorakit_cli.core.output_place import require_place
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BaseModelError, OptionError, did_you_mean
from lorakit_cli.service.bases import open_weights
from lorakit_cli.service.devices import fp64_device
from lorakit_cli.service.differing import Models
from lorakit_cli.service.fetching import fetched
from lorakit_cli.service.quantized import require_comparable
from lorakit_cli.sources.library import Library, open_library

if TYPE_CHECKING:
    from lorakit_cli.service.extracting import ExtractRequest


def open_models(request: "ExtractRequest") -> tuple[Models, Pairs]:
    """Open both models and pair what they share; weights on the Hub are downloaded once all else is known to be right.

    Raises BaseModelError, WrongBaseError or UnsupportedError for the models, OptionError, OutputError for an output
    that is one of them.
    """
    library = open_library()
    before, after = (_opened(name, library, request) for name in (request.base, request.tuned))
    for model in (before, after):
        require_comparable(model)
    if request.variant not in (None, before.variant, after.variant):
        raise OptionError(f"--variant {request.variant}: neither {before.label} nor {after.label} has such weights")
    _require_apart(request, before, after)
    shared = pair_models(before, after, _chosen(request.components, before, after))
    return Models(_fetched(before), _fetched(after), fp64_device(request.device)), shared


def _opened(name: str, library: Library, request: "ExtractRequest") -> BaseIndex:
    # One file has no variants.
    variant = None if user_path(name).is_file() else request.variant
    try:
        return open_weights(name, library, variant=variant, allow_pickle=request.allow_pickle)
    except BaseModelError:
        if variant is None:
            raise
        # The other model may have it.
        return open_weights(name, library, allow_pickle=request.allow_pickle)


def _fetched(index: BaseIndex) -> BaseIndex:
    if index.is_local:
        return index
    with download_bar(f"downloading {index.repository[0]}") as progress:
        return fetched(index, progress)


def _require_apart(request: "ExtractRequest", before: BaseIndex, after: BaseIndex) -> None:
    """Refuse one model twice, and to write over what is read."""
    if (before.path, before.remote) == (after.path, after.remote):
        raise OptionError(f"--base and --tuned are both {before.label}")
    sources = [index.path for index in (before, after) if isinstance(index.path, Path)]
    require_place(request.out, sources, folder=False, overwrite=request.overwrite)


def _chosen(names: Sequence[str], before: BaseIndex, after: BaseIndex) -> Sequence[str]:
    """Give the components asked for, else all that both have. Raises OptionError."""
    there = [name for name in before.components if name in after.components]
    for name in names:
        if name not in there:
            near = did_you_mean(name, there) or "."
            raise OptionError(f"the models share no component {name!r}{near} They share {', '.join(there)}")
    return [name for name in there if not names or name in names]
