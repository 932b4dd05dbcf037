"""What an adapter was asked for by, as far as it may be told to others."""

import re

from lorakit_cli.core.adapter_spec import is_plain, is_remote, is_web
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import PathError
from lorakit_cli.sources.web_address import without_secret

_LOCAL = re.compile(r"[/\\.~]|[A-Za-z]:[\\/]")
_HUB = "hf:"


def public_source(source: str) -> str:
    """Give a library name, a reference or an address, without what may be a token; nothing for a path of this machine.

    A reference to the Hub gets `hf:` in front, so that it is one on a machine where a file goes by the same words.
    """
    if is_web(source):
        return without_secret(source)
    if is_remote(source):
        return source
    if not source or is_plain(source):
        return source
    is_path = "/" not in source or _LOCAL.match(source) or _is_here(source)
    return "" if is_path else _HUB + source


def _is_here(source: str) -> bool:
    try:
        return user_path(source).exists()
    except PathError:
        return False
