"""Addresses of files on the web: which are taken, what of one may be shown or written down, how it names a file."""

import re
from urllib.parse import parse_qsl, quote_plus, unquote, urlsplit, urlunsplit

from lorakit_cli.core.adapter_spec import is_web
from lorakit_cli.core.civitai_reference import civitai_reference
from lorakit_cli.core.late import late
from lorakit_cli.errors import AdapterSpecError

# Names of what proves in an address who asks; a little too much is left out rather than too little.
_SECRET = late(
    r"(.*[-_.])?(access|refresh|api|id|sas|bearer)?[-_.]?"
    r"(token|key|apikey|auth|authorization|sig|signature|hmac|secret|password|passwd|pwd|pass|credential|credentials|"
    r"session|sessionid|sid|jwt|code|ticket|policy|expires)|x-(amz|goog|oss|cos)-.*",
    re.IGNORECASE,
)
# A file's page there differs from the file itself in one word.
_HUB_HOSTS = ("huggingface.co", "hf.co")
_HUB_PAGE = late(r"(/[^/]+/[^/]+)/blob(/.+)")


def web_address(text: str) -> str:
    """Check an address, and give the one that is asked for the file. Raises AdapterSpecError."""
    try:
        address = urlsplit(text)
        usable = address.scheme == "https" and bool(address.hostname) and (address.port is None or address.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise AdapterSpecError(f"{public_address(text)} is no address of a file, which is written https://host/file")
    page = _HUB_PAGE.fullmatch(address.path) if address.hostname in _HUB_HOSTS else None
    path = f"{page[1]}/resolve{page[2]}" if page else address.path
    return urlunsplit((address.scheme, address.netloc, path, address.query, ""))


def public_address(text: str) -> str:
    """Give an address without what only who asks should know: name, password, keys and signatures."""
    try:
        address = urlsplit(text)
    except ValueError:
        # What cannot be taken apart is cut where a secret may begin.
        return re.sub(r"//[^/]*@", "//", text).partition("?")[0]
    host = address.netloc.rpartition("@")[2]
    pairs = parse_qsl(address.query, keep_blank_values=True)
    secret = [_SECRET.fullmatch(name) is not None for name, _ in pairs]
    query = address.query
    if any(secret):
        kept = [pair for pair, hidden in zip(pairs, secret, strict=True) if not hidden]
        query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in kept)
    return urlunsplit((address.scheme, host, address.path, query, ""))


def without_secret(source: str) -> str:
    """Give the source of an adapter with no token in it: a version on CivitAI by number, an address in public."""
    if not is_web(source):
        return source
    version = civitai_reference(source)
    return str(version) if version else public_address(source)


def name_in(address: str) -> str:
    """Give the last part of an address's path, which may be empty."""
    return unquote(urlsplit(address).path.rstrip("/").rpartition("/")[2])
