"""A version of a model on CivitAI as people write it: `civitai:ID`, `civitai:ID/FILE`, or its address in a browser."""

import os
import re
from urllib.parse import parse_qs, urlsplit

from lorakit_cli.core.record import Record
from lorakit_cli.errors import AdapterSpecError

SITE = "https://civitai.com"
VARIABLE = "LORAKIT_CIVITAI_URL"

_HOSTS = ("civitai.com", "www.civitai.com")
# Also as the site itself writes resources: model, `@`, version.
_REFERENCE = re.compile(r"civitai:(?:\d{1,12}@)?(?P<version>\d{1,12})(?:/(?P<file>[^/\\]+))?", re.ASCII)
_DOWNLOAD = re.compile(r"/api/download/models/(\d{1,12})/?", re.ASCII)
_MODEL = re.compile(r"/models/\d+(?:/[^/]*)?/?", re.ASCII)
_VERSION = re.compile(r"\d{1,12}", re.ASCII)
_WHERE = "on the model's page choose the version; its number then stands behind modelVersionId= in the address"


class CivitaiReference(Record):
    """A version of a model by its number, and which of its files if that is said."""

    version: int
    file: str | None = None

    def __str__(self) -> str:
        return f"civitai:{self.version}" + (f"/{self.file}" if self.file else "")


def civitai_site() -> str:
    """Give the address under which CivitAI is asked: its own, or the one that LORAKIT_CIVITAI_URL names."""
    return (os.environ.get(VARIABLE) or SITE).rstrip("/")


def parse_civitai(source: str) -> CivitaiReference | None:
    """Read a reference, None where a source is something else. Raises AdapterSpecError where it names no version."""
    found = civitai_reference(source)
    if found:
        return found
    if source.startswith("civitai:"):
        raise AdapterSpecError(
            f"{source!r} names no version on CivitAI, which is written civitai:12345 or "
            f"civitai:12345/FILE.safetensors; {_WHERE}"
        )
    if _is_site(source) and _MODEL.fullmatch(urlsplit(source).path):
        raise AdapterSpecError(f"{source} is the page of a model with all its versions; {_WHERE}")
    return None


def civitai_reference(source: str) -> CivitaiReference | None:
    """Read a reference, None where a source is something else or names no version."""
    found = _REFERENCE.fullmatch(source)
    if found:
        return CivitaiReference(int(found["version"]), found["file"])
    if not _is_site(source):
        return None
    address = urlsplit(source)
    direct = _DOWNLOAD.fullmatch(address.path)
    if direct:
        return CivitaiReference(int(direct[1]))
    versions = parse_qs(address.query).get("modelVersionId", [""]) if _MODEL.fullmatch(address.path) else [""]
    return CivitaiReference(int(versions[0])) if _VERSION.fullmatch(versions[0]) else None


def _is_site(source: str) -> bool:
    if not source.startswith("https://"):
        return False
    try:
        host = urlsplit(source).netloc.rpartition("@")[2].lower()
        return host in (*_HOSTS, urlsplit(civitai_site()).netloc.lower())
    except ValueError:
        return False
