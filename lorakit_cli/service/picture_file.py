"""Write a picture as PNG, WebP or JPEG, with texts in it that say how it was made."""

import json
from collections.abc import Mapping
from typing import Any, BinaryIO
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lorakit_cli.core.picture_parameters import picture_parameters
from lorakit_cli.errors import OutputError

CHUNK = "lorakit"
PARAMETERS = "parameters"
EXIF_FOLDER, USER_COMMENT = 0x8769, 0x9286
UNICODE = b"UNICODE\0"
NAMESPACE = "urn:lorakit:picture:1"
_FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
_QUALITY = 90


def save_picture(
    picture: Image.Image,
    file: BinaryIO,
    made_with: Mapping[str, Any],
    *,
    suffix: str = ".png",
    quality: int | None = None,
) -> None:
    """Write a picture in the format of a suffix: the same values give the same bytes.

    `lorakit` is JSON with everything, in PNG a text chunk, else in XMP; `parameters` says it as the A1111 web UI does
    and where it does, in PNG a text chunk, else the comment in EXIF. `quality` is from 1 to 100, of WebP and JPEG.
    Raises OutputError where the texts are too long for the format.
    """
    record = json.dumps(made_with, ensure_ascii=False, sort_keys=True)
    parameters = picture_parameters(made_with)
    kind = _FORMATS[suffix.lower()]
    if kind == "PNG":
        chunks = PngInfo()
        chunks.add_itxt(CHUNK, record)
        chunks.add_itxt(PARAMETERS, parameters)
        picture.save(file, kind, pnginfo=chunks)
        return
    exif = Image.Exif()
    exif.get_ifd(EXIF_FOLDER)[USER_COMMENT] = UNICODE + parameters.encode("utf-16-be")
    full = {"subsampling": 0} if kind == "JPEG" else {}
    try:
        picture.save(file, kind, quality=quality or _QUALITY, exif=exif, xmp=_xmp(record), **full)
    except ValueError as error:
        raise OutputError(f"the prompt and the recipe are too long for {kind}; write a .png instead") from error


def _xmp(record: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:lorakit="{NAMESPACE}" lorakit:{CHUNK}={quoteattr(record)}/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()
