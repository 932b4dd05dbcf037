"""Adapters from the web, by an https address or a version on CivitAI: out of the cache, or fetched into it once."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from lorakit_cli.core.adapter_spec import is_web
from lorakit_cli.core.civitai_reference import CivitaiReference, parse_civitai
from lorakit_cli.core.downloads import download_bar
from lorakit_cli.sources.web_address import name_in, public_address, web_address
from lorakit_cli.sources.web_cache import WebCache
from lorakit_cli.sources.web_errors import Asked
from lorakit_cli.sources.web_fetch import Expected, fetch, require_no_pickle, require_online
from lorakit_cli.sources.web_name import safe_name
from lorakit_cli.sources.web_part import Part
from lorakit_cli.sources.web_transfer import Wanted


def cached_file(source: str) -> Path | None:
    """Give the file of a source from the web that is in the cache, None where it is not; never asks the network.

    Raises AdapterSpecError for an address that is none.
    """
    return _place(source)[0].file() if is_web(source) else None


def web_file(source: str, *, allow_pickle: bool = True) -> Path:
    """Give the file of a source from the web, fetched if it is not in the cache.

    Without `allow_pickle` what is known to be a pickle is not fetched. Raises AdapterSpecError for an address that is
    none, DownloadError, CorruptFileError, NotALoraError, PickleError, OutputError.
    """
    cache, reference = _place(source)
    there = cache.file()
    if there:
        return there
    require_online(str(reference) if isinstance(reference, CivitaiReference) else public_address(reference))
    with ExitStack() as stack:
        with ExitStack() as waiting:
            part = stack.enter_context(cache.claimed(_waits(waiting)))
        # Whoever was waited for has perhaps fetched it.
        there = cache.file()
        if there:
            return there
        if isinstance(reference, CivitaiReference):
            # Most adapters come from elsewhere.
            from lorakit_cli.sources.civitai import civitai_file

            return fetch(cache, part, civitai_file(reference, allow_pickle=allow_pickle))
        return _fetch_address(reference, cache, part, allow_pickle)


def _place(source: str) -> tuple[WebCache, CivitaiReference | str]:
    """Say where a source is kept, and what is to be asked for."""
    reference = parse_civitai(source)
    if reference:
        return WebCache(str(reference)), reference
    address = web_address(source)
    # Two addresses may differ in a key alone that tells one file from another; who asks is no part of what is asked.
    parts = urlsplit(address)
    return WebCache(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()), address


def _fetch_address(address: str, cache: WebCache, part: Part, allow_pickle: bool) -> Path:
    source, name = public_address(address), safe_name(name_in(address))
    require_no_pickle(source, name, allow_pickle=allow_pickle)
    wanted = Wanted(address, Asked(source, urlsplit(address).hostname or ""))
    return fetch(cache, part, Expected(wanted, source, name, allow_pickle=allow_pickle))


def _waits(stack: ExitStack) -> Callable[[], None]:
    """Give a function that shows that another run is waited for, from its first call on."""
    shown: list[object] = []

    def show() -> None:
        if not shown:
            shown.append(stack.enter_context(download_bar("waiting for another run's download")))

    return show
