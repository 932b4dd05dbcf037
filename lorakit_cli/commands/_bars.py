"""Show the strengths of blocks as bars of text."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from lorakit_cli.commands._output import printable

if TYPE_CHECKING:
    from lorakit_cli.service.strength import BlockStrength

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEAST_BAR = 8
_MOST_LABEL = 32


def bars(blocks: Sequence["BlockStrength"], width: int, *, plain: bool = False) -> list[str]:
    """Draw one bar per block below the name of its component, in lines of at most `width` cells (40 at least).

    The longest stands for the largest change relative to the base, or the largest norm where no base is known; the
    numbers behind it are the norm and that ratio. `plain`: in ASCII, for a terminal without block characters.
    """
    relative = any(block.relative is not None for block in blocks)
    values = [block.relative if relative else block.norm for block in blocks]
    largest = max((value for value in values if value is not None), default=0.0)
    numbers = _columns(blocks, relative)
    left = max(width, 40) - 3 * len("  ") - max(map(len, numbers), default=0)
    most = min(_MOST_LABEL, max(width, 40) // 3, left - _LEAST_BAR)
    labels = [_shortened(printable(block.block), most, plain) for block in blocks]
    label_width = max(map(len, labels), default=0)
    room = left - label_width
    lines: list[str] = []
    rows = zip(blocks, labels, values, numbers, strict=True)
    for component, group in groupby(rows, key=lambda row: row[0].component):
        lines.append(printable(component))
        for _, label, value, number in group:
            bar = _bar(value / largest if value and largest else 0.0, room, plain)
            lines.append(f"  {label:{label_width}}  {bar:{room}}  {number}".rstrip())
    return lines


def strength_text(value: float | None) -> str:
    """Write a norm to three digits, `-` for one that is not known."""
    return "-" if value is None else f"{value:.3g}"


def relative_text(value: float | None) -> str:
    """Write a ratio as a percentage of three digits, `-` for one that is not known."""
    return "-" if value is None else f"{100 * value:.3g} %"


def _columns(blocks: Sequence["BlockStrength"], relative: bool) -> list[str]:
    """Write the numbers of each block, in columns of equal width."""
    norms = [strength_text(block.norm) for block in blocks]
    ratios = [relative_text(block.relative) if relative else "" for block in blocks]
    wide, wider = (max(map(len, column), default=0) for column in (norms, ratios))
    gap = "  " if relative else ""
    return [f"{norm:>{wide}}{gap}{ratio:>{wider}}" for norm, ratio in zip(norms, ratios, strict=True)]


def _bar(share: float, room: int, plain: bool) -> str:
    """Draw a share of the room; whatever is not zero leaves a mark."""
    if plain:
        return "#" * (max(round(share * room), 1) if share else 0)
    eighths = max(round(share * room * 8), 1) if share else 0
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _shortened(text: str, width: int, plain: bool) -> str:
    """Cut the middle out of a long name: its end tells it from its neighbours."""
    if len(text) <= width:
        return text
    mark = "~" if plain else "…"
    end = (width - 1) // 2
    return text[: width - 1 - end] + mark + text[-end:]
