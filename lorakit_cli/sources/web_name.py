"""Under which name a file from the web is kept: a stranger gives it, who must not choose where anything is written."""

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from lorakit_cli.core.adapter_spec import FILE_SUFFIXES
from lorakit_cli.core.late import late

_LONGEST = 120
_FALLBACK = "adapter"
_FORBIDDEN = late(r'[<>:"|?*]')
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICE = late(r"(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³])\s*(\..*)?", re.IGNORECASE)
# https://datatracker.ietf.org/doc/html/rfc6266
_EXTENDED = late(r"(?:^|;)\s*filename\*\s*=\s*(?P<charset>[\w-]+)'[^']*'(?P<text>[^;\s]+)", re.IGNORECASE)
_PLAIN = late(r'(?:^|;)\s*filename\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^;\s"]+))', re.IGNORECASE)
_ESCAPED = late(r"\\(.)")


def disposition_name(header: str) -> str | None:
    """Read the name out of a Content-Disposition, the one with a character set before the plain one."""
    extended = _EXTENDED.search(header)
    if extended:
        try:
            return unquote_to_bytes(extended["text"]).decode(extended["charset"]) or None
        except (LookupError, ValueError):
            # The plain one is there for that.
            pass
    plain = _PLAIN.search(header)
    if not plain:
        return None
    return _ESCAPED.sub(r"\1", plain["quoted"]) if plain["quoted"] is not None else plain["token"]


def safe_name(text: str) -> str:
    """Make a name that means one plain file on every system, of at most 120 characters and bytes, suffix kept."""
    name = unicodedata.normalize("NFC", re.split(r"[\\/]", text)[-1])
    name = "".join(character for character in name if character.isprintable())
    name = _FORBIDDEN.sub("_", name).lstrip(". ").rstrip(". ")
    suffix = suffix_of(name)
    stem = _shortened(name[: len(name) - len(suffix)], _LONGEST - len(suffix)).rstrip(". ")
    stem = stem or _FALLBACK
    return ("_" if _DEVICE.fullmatch(stem) else "") + stem + suffix


def suffix_of(name: str) -> str:
    """Give the suffix of a name if it is an adapter's, as it is written there, else nothing."""
    return next((name[-len(suffix) :] for suffix in FILE_SUFFIXES if name.lower().endswith(suffix)), "")


def _shortened(text: str, size: int) -> str:
    return text.encode("utf-8", errors="ignore")[:size].decode("utf-8", errors="ignore")
