"""Text on a sheet: in Pillow's own font, or in one of the system's where it has not all the letters."""

import unicodedata
from functools import lru_cache
from typing import Any

from PIL import ImageFont

_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "msyh.ttc",
)
_MISSING = "\U0010fffe"
_CUT = "…"


class Lettering:
    """A text that fits a width, with the font that it is drawn in; `width` and `height` are in pixels."""

    def __init__(self, text: str, size: int, most: int) -> None:
        plain = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
        self.font, plain = _font_for(plain, size)
        self.text = _fitted(plain, self.font, most)
        self.width = round(self.font.getlength(self.text))
        self.height = round(size * 1.3)


def _font_for(text: str, size: int) -> tuple[Any, str]:
    """Choose a font that has all letters; where there is none, letters lose their marks or become question marks."""
    own = ImageFont.load_default(size)
    if _has(own, text):
        return own, text
    for name in _FONTS:
        font = _installed(name, size)
        if font and _has(font, text):
            return font, text
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return own, "".join(letter if _has(own, letter) else "?" for letter in bare)


@lru_cache(maxsize=256)
def _installed(name: str, size: int) -> Any:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _has(font: Any, text: str) -> bool:
    missing = bytes(font.getmask(_MISSING))
    return all(letter == " " or bytes(font.getmask(letter)) != missing for letter in set(text))


def _fitted(text: str, font: Any, most: int) -> str:
    if font.getlength(text) <= most:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + _CUT) <= most:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + _CUT
