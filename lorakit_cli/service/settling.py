"""Settle how a picture is made: what the user left open is taken from the picture it begins from, then the base."""

from dataclasses import replace

from lorakit_cli.core import generation
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.generation import Settings


def settle(settings: Settings, base: BaseIndex) -> Settings:
    """Complete settings for a base and check them. Raises OptionError."""
    whole = _sized(settings, base).filled_from(generation.defaults_of(base))
    generation.check(whole, base)
    return whole


def _sized(settings: Settings, base: BaseIndex) -> Settings:
    """Take the size of the picture to begin from, in the base's multiples, at the width or height that is given."""
    if settings.init_image is None:
        return settings
    # Only who has a picture waits for the library that reads it.
    from lorakit_cli.service.init_picture import picture_size, require_same_size

    width, height = picture_size(settings.init_image)
    if settings.mask is not None:
        require_same_size(settings.init_image, settings.mask)
    multiple = generation.multiple_of(base)
    if settings.width is not None:
        width, height = settings.width, settings.height or _round(height * settings.width / width, multiple)
    elif settings.height is not None:
        width, height = _round(width * settings.height / height, multiple), settings.height
    else:
        width, height = _round(width, multiple), _round(height, multiple)
    return replace(settings, width=width, height=height)


def _round(side: float, multiple: int) -> int:
    return max(multiple, int(side + multiple / 2) // multiple * multiple)
