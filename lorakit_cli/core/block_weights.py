"""Block weights as the web UIs write them: `lbw=1,0,0,…`, one number for each block, or the name of a preset.

https://github.com/hako-mikan/sd-webui-lora-block-weight
"""

import re
from collections.abc import Sequence

from lorakit_cli.core.numbers import finite
from lorakit_cli.core.record import Record
from lorakit_cli.errors import BlockScalesError, did_you_mean

# For SD1.x and SD2.x that program's own, with 17 numbers; for SDXL, with 12, what its users made of them: I and O are
# the blocks before and behind the middle, D the half that is nearer to it, S the other.
PRESETS: dict[str, dict[int, str]] = {
    "INS": {17: "1 111000 0 000000000", 12: "1 1100 0 000000"},
    "IND": {17: "1 000111 0 000000000", 12: "1 0011 0 000000"},
    "INALL": {17: "1 111111 0 000000000", 12: "1 1111 0 000000"},
    "MIDD": {17: "1 000111 1 111100000", 12: "1 0011 1 111000"},
    "OUTD": {17: "1 000000 0 111100000", 12: "1 0000 0 111000"},
    "OUTS": {17: "1 000000 0 000011111", 12: "1 0000 0 000111"},
    "OUTALL": {17: "1 000000 0 111111111", 12: "1 0000 0 111111"},
}
EVERYWHERE = {"NONE": 0.0, "ALL": 1.0, "ALL0.5": 0.5, "FLUXALL": 1.0}
"""Presets of one number for all blocks there are."""
NAMES = (*EVERYWHERE, *PRESETS)

_MARKS = ("lbw", "te", "unet")
_NUMBERS = re.compile(r"[\s+\-.\deERUX]*(,[\s+\-.\deERUX]*)+", re.ASCII)
_EXAMPLE = "write the numbers, or a preset: " + ", ".join(NAMES)


class BlockWeights(Record):
    """Numbers, or the name of a preset, or neither; `te` multiplies those of text encoders, `unet` all others."""

    numbers: tuple[float, ...] = ()
    preset: str | None = None
    te: float = 1.0
    unet: float = 1.0

    @property
    def text(self) -> str:
        """What they are written as."""
        listed = self.preset or ",".join(map(number_text, self.numbers))
        if listed and self.te == self.unet == 1.0:
            return listed
        scales = f"te={number_text(self.te)}:unet={number_text(self.unet)}"
        return f"{scales}:lbw={listed}" if listed else scales

    def of_length(self, lengths: Sequence[int]) -> tuple[float, ...] | None:
        """Give the numbers for a base that takes so many of them, shortest first, None where these are no such."""
        if self.preset in EVERYWHERE:
            return (EVERYWHERE[self.preset],) * max(lengths)
        if self.preset:
            found = next((row for length, row in PRESETS[self.preset].items() if length in lengths), None)
            return None if found is None else tuple(float(digit) for digit in found.replace(" ", ""))
        return self.numbers if len(self.numbers) in lengths else None


def is_block_weights(text: str) -> bool:
    """Tell whether text can only be block weights: a preset, a row of numbers, or `lbw=`, `te=`, `unet=`."""
    marked = text.startswith(tuple(f"{mark}=" for mark in _MARKS))
    return text in NAMES or marked or _NUMBERS.fullmatch(text) is not None


def parse_block_weights(where: str, text: str) -> BlockWeights:
    """Read `[te=N:][unet=N:][lbw=]NUMBERS|PRESET`; `te` and `unet` multiply the weight. Raises BlockScalesError."""
    found: dict[str, str] = {}
    for item in text.split(":"):
        mark, equals, value = item.partition("=")
        mark, value = (mark.strip(), value) if equals else ("lbw", item)
        if mark not in _MARKS:
            raise BlockScalesError(f"{where}: {item[:40]!r} is not understood; there are lbw=, te= and unet=")
        if mark in found:
            raise BlockScalesError(f"{where}: {mark}= is given twice")
        found[mark] = value.strip()
    te, unet = (_number(f"{where}: {mark}=", found.get(mark, "1")) for mark in ("te", "unet"))
    if "lbw" not in found:
        return BlockWeights(te=te, unet=unet)
    listed = found["lbw"]
    if listed in NAMES:
        return BlockWeights(preset=listed, te=te, unet=unet)
    if "," not in listed:
        near = did_you_mean(listed, NAMES)
        raise BlockScalesError(f"{where}: {listed[:40]!r} is no preset of block weights{near or f'; {_EXAMPLE}'}")
    return BlockWeights(tuple(_number(where, number.strip()) for number in listed.split(",")), te=te, unet=unet)


def list_block_weights(where: str, numbers: Sequence[object]) -> BlockWeights:
    """Take the numbers from a list. Raises BlockScalesError."""
    if len(numbers) < 2:
        raise BlockScalesError(f"{where}: a list has a block weight for every block of the base")
    try:
        return BlockWeights(tuple(finite(number) for number in numbers))
    except ValueError as error:
        raise BlockScalesError(f"{where}: a block weight {error}") from error


def number_text(number: float) -> str:
    """Write a number so that it reads the same, short where it is whole."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def _number(where: str, text: str) -> float:
    if text[:1] in ("R", "U", "X"):
        raise BlockScalesError(
            f"{where}: {text[:20]!r} stands for a number that is drawn or given elsewhere; write the number itself"
        )
    try:
        # Python's numbers are more than those of people: 1_0 and digits of other scripts.
        return finite(float(text) if text.isascii() and "_" not in text else text)
    except ValueError as error:
        raise BlockScalesError(f"{where}: {text[:40]!r} is no finite number; {_EXAMPLE}") from error
