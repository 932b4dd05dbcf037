"""The picture that another begins from, and the mask that says where: read, and cut to the size that is drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError

from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError

T = TypeVar("T")


def picture_size(text: str) -> tuple[int, int]:
    """Give width and height of a picture, the right way up. Raises OptionError."""
    return _read("--init-image", text, lambda picture: ImageOps.exif_transpose(picture).size)


def read_picture(text: str, size: tuple[int, int]) -> Image.Image:
    """Read a picture in colour, scaled to a size, what is too long for it cut off on both sides. Raises OptionError."""
    return _fitted(_read("--init-image", text, lambda picture: _flat(ImageOps.exif_transpose(picture))), size)


def read_mask(text: str, size: tuple[int, int]) -> Image.Image:
    """Read a mask, white where the picture is to change, and scale it likewise. Raises OptionError."""
    return _fitted(_read("--mask", text, lambda picture: ImageOps.exif_transpose(picture).convert("L")), size)


def require_same_size(picture: str, mask: str) -> None:
    """Raise OptionError for a mask of another size than its picture."""
    wanted = picture_size(picture)
    given = _read("--mask", mask, lambda found: ImageOps.exif_transpose(found).size)
    if given != wanted:
        raise OptionError(
            f"--mask {mask} has {given[0]}x{given[1]} pixels and {picture} {wanted[0]}x{wanted[1]}; they must agree"
        )


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cut whole pixels off on both sides until the shape is right, then scale."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = (max(1, round(side / scale)) for side in size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    cut = picture.crop((left, top, left + width, top + height))
    return cut if cut.size == size else cut.resize(size, Image.Resampling.LANCZOS)


def _flat(picture: Image.Image) -> Image.Image:
    """Put a picture that is transparent in places on white."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def _read(option: str, text: str, use: Callable[[Image.Image], T]) -> T:
    path: Path = user_path(text)
    if not path.is_file():
        raise OptionError(f"{option} {text}: there is no such file")
    try:
        with Image.open(path) as picture:
            return use(picture)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise OptionError(f"{option} {text} is no picture that can be read; save it as PNG or JPEG") from error
    except (OSError, ValueError, SyntaxError) as error:
        # Pillow raises SyntaxError for a PNG with a broken chunk.
        raise OptionError(f"{option} {text} cannot be read: {error}") from error
