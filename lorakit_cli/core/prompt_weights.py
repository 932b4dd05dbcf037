"""Weights in a prompt as the A1111 web UI knows them: (word), [word], (word:1.3), nested as wanted."""

import re
from typing import NamedTuple

from lorakit_cli.core.late import late
from lorakit_cli.errors import OptionError

_STEP = 1.1
_NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*"
# Brackets alone are in many a sentence; a number, or brackets in brackets, is meant as weight.
_MEANT = late(rf"(?<!\\)(?:\(\(|\[\[|\([^()]*:{_NUMBER}\))")
_EDITING = late(rf"(?<!\\)\[[^\[\]()]*(?:\||:{_NUMBER})[^\[\]()]*\]")
_TOKEN = late(rf"\\[()\[\]\\]|:({_NUMBER})\)|[()\[\]]|[^\\()\[\]:]+|.", re.DOTALL)
_LARGEST, _MOST_BRACKETS = 100.0, 2000


class WeightedText(NamedTuple):
    """A part of a prompt, and how much it counts."""

    text: str
    weight: float


def is_weighted(prompt: str) -> bool:
    """Tell whether a prompt has weights that are meant as such."""
    return _MEANT.search(prompt) is not None


def weighted_parts(prompt: str) -> list[WeightedText]:
    """Split a prompt into parts of one weight each; brackets that are not closed count to the end.

    Raises OptionError for what changes a prompt from step to step, which only the web UI knows, and for weights beyond
    reason.
    """
    editing = _EDITING.search(prompt)
    if editing:
        raise OptionError(
            f"the prompt changes from step to step, {editing[0][:60]}, which only the web UI does; --literal-prompt "
            "takes it as it stands"
        )
    if sum(map(prompt.count, "()[]")) > _MOST_BRACKETS:
        raise OptionError(f"the prompt has more than {_MOST_BRACKETS} brackets")
    parts: list[tuple[str, float]] = []
    # Where each open bracket began.
    round_open: list[int] = []
    square_open: list[int] = []

    def weigh(start: int, by: float) -> None:
        parts[start:] = [(text, weight * by) for text, weight in parts[start:]]

    for found in _TOKEN.finditer(prompt):
        text = found[0]
        if text == "(":
            round_open.append(len(parts))
        elif text == "[":
            square_open.append(len(parts))
        elif text == ")" and round_open:
            weigh(round_open.pop(), _STEP)
        elif found[1] is not None and round_open:
            weigh(round_open.pop(), float(found[1]))
        elif text == "]" and square_open:
            weigh(square_open.pop(), 1 / _STEP)
        else:
            parts.append((text[1:] if text[0] == "\\" and len(text) == 2 else text, 1.0))
    for start in round_open:
        weigh(start, _STEP)
    for start in square_open:
        weigh(start, 1 / _STEP)
    return _joined(parts)


def plain_text(parts: list[WeightedText]) -> str:
    """Give the prompt without its weights."""
    return "".join(part.text for part in parts)


def _joined(parts: list[tuple[str, float]]) -> list[WeightedText]:
    """Join neighbours of one weight."""
    joined: list[WeightedText] = []
    for text, weight in parts:
        if abs(weight) > _LARGEST:
            raise OptionError(f"the weight {weight:g} of {text[:40]!r} in the prompt is beyond reason")
        if joined and joined[-1].weight == weight:
            joined[-1] = WeightedText(joined[-1].text + text, weight)
        else:
            joined.append(WeightedText(text, weight))
    return joined
