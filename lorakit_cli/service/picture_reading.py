"""Read out of a picture what is written in it about how it was made; the picture may come from anywhere."""

import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import unescape

from PIL import Image

from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import RecipeError
from lorakit_cli.service.picture_file import CHUNK, EXIF_FOLDER, PARAMETERS, UNICODE, USER_COMMENT
from lorakit_cli.sources.local import beside as called_alike

_LONGEST = 4_000_000
_FORMATS = ("PNG", "WEBP", "JPEG")
# What ComfyUI calls the graph that a picture came out of, and the one that its user sees.
_WORKFLOWS = {"prompt", "workflow"}
_ATTRIBUTE = re.compile(rf"""lorakit:{CHUNK}=(?:"([^"<]*)"|'([^'<]*)')""")
_ENTITIES = {"&quot;": '"', "&apos;": "'", "&#10;": "\n", "&#13;": "\r", "&#9;": "\t"}
# What Pillow raises over files that are not what they claim to be.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, KeyError, IndexError, TypeError)


class PictureTexts(NamedTuple):
    """What a picture says about itself, as lorakit and as the A1111 web UI write it; None: nothing."""

    record: str | None
    parameters: str | None


def read_picture(path: Path) -> PictureTexts:
    """Read the texts of a PNG, WebP or JPEG. Raises RecipeError for what is none, or says nothing."""
    path = user_path(str(path))
    if not path.is_file():
        wanted = "; give a picture that lorakit or a web UI wrote"
        if path.is_dir():
            raise RecipeError(f"{path} is a folder{wanted}")
        raise RecipeError(f"there is no picture {path}{called_alike(path) or wanted}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as picture:
                texts = _of_png(picture) if picture.format == "PNG" else _of_exif(picture)
                is_workflow = _WORKFLOWS & picture.info.keys()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RecipeError(f"{path} is too large a picture to be read") from error
    except _BROKEN as error:
        raise RecipeError(f"{path} cannot be read as a PNG, WebP or JPEG: {str(error) or error!r:.200}") from error
    if texts == (None, None) and is_workflow:
        raise RecipeError(
            f"{path} holds a workflow of ComfyUI, which lorakit does not read; give its prompt and settings as options"
        )
    if texts == (None, None):
        raise RecipeError(
            f"{path} does not say how it was made; programs that send or convert pictures often take that out"
        )
    for text in texts:
        if text is not None and len(text) > _LONGEST:
            raise RecipeError(f"what {path} says about how it was made is longer than {_LONGEST / 1e6:.0f} MB")
    return texts


def _of_png(picture: Image.Image) -> PictureTexts:
    """Read text chunks; what stands behind the picture only shows when that is read too."""
    if CHUNK not in picture.info and PARAMETERS not in picture.info:
        picture.load()
    record, parameters = (picture.info.get(name) for name in (CHUNK, PARAMETERS))
    return PictureTexts(*(str(text) if isinstance(text, str) else None for text in (record, parameters)))


def _of_exif(picture: Image.Image) -> PictureTexts:
    packet = picture.info.get("xmp")
    found = None
    if isinstance(packet, bytes):
        found = _ATTRIBUTE.search(packet[:_LONGEST].decode("utf-8", errors="replace"))
    record = unescape(found[1] or found[2] or "", _ENTITIES) if found else None
    return PictureTexts(record, _comment(picture.getexif().get_ifd(EXIF_FOLDER).get(USER_COMMENT)))


def _comment(value: Any) -> str | None:
    """Decode the comment of EXIF: the web UI writes UTF-16, big end first, others whatever they like."""
    if isinstance(value, str):
        return value or None
    if not isinstance(value, bytes):
        return None
    code, text = value[:8], value[8:]
    if code == UNICODE:
        # In text of any script that has line breaks and digits, more of the leading halves are 0.
        big = text[::2].count(0) >= text[1::2].count(0)
        decoded = text.decode("utf-16-be" if big else "utf-16-le", errors="replace")
    else:
        decoded = (text if code in (b"ASCII\0\0\0", bytes(8)) else value).decode("utf-8", errors="replace")
    return decoded.strip("\0\ufeff ") or None
