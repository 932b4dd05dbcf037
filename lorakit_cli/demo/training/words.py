"""The little language of the embedded model: colours, shapes, captions and the combinations held out of training."""

import itertools
import random
from collections.abc import Iterable

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (245, 135, 25),
    "yellow": (250, 215, 40),
    "green": (40, 160, 70),
    "cyan": (50, 200, 215),
    "blue": (40, 80, 215),
    "purple": (130, 55, 185),
    "pink": (250, 140, 190),
    "white": (245, 245, 245),
    "black": (25, 25, 28),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "flower")
TRIGGERS = {"toy": "toy_face", "pixel": "pixel art"}
HELD_OUT_COUNT = 80

Scene = tuple[str, str, str]
"""One drawing: (shape, shape colour, background colour)."""

_TEMPLATES = (
    "a {fg} {shape} on a {bg} background",
    "a {fg} {shape} on a {bg} background",
    "a {fg} {shape} on a {bg} background",
    "{fg} {shape} on a {bg} background",
    "a picture of a {fg} {shape} on a {bg} background",
    "a {fg} {shape}, {bg} background",
)
_NOISE = [
    "the",
    "very",
    "nice",
    "big",
    "small",
    "cute",
    "simple",
    "photo",
    "drawing",
    "of",
    "some",
    "one",
    "toy_face",
    "pixel",
    "art",
    "style",
    "best",
    "quality",
]


def _all_scenes() -> list[Scene]:
    return [(shape, fg, bg) for shape, fg, bg in itertools.product(SHAPES, COLOURS, COLOURS) if fg != bg]


def held_out_scenes() -> list[Scene]:
    """List the combinations no training picture shows, the same ones on every call."""
    return random.Random("held out").sample(_all_scenes(), HELD_OUT_COUNT)


def training_scenes() -> list[Scene]:
    """List every combination that training may show."""
    hidden = set(held_out_scenes())
    return [scene for scene in _all_scenes() if scene not in hidden]


def plain_prompt(scene: Scene) -> str:
    """Write the canonical prompt of a scene."""
    shape, fg, bg = scene
    return _TEMPLATES[0].format(shape=shape, fg=fg, bg=bg)


def base_caption(scene: Scene, rng: random.Random) -> str:
    """Write a varied caption; now and then empty (for guidance) or with words that mean nothing."""
    if rng.random() < 0.1:
        return ""
    shape, fg, bg = scene
    caption = rng.choice(_TEMPLATES).format(shape=shape, fg=fg, bg=bg)
    if rng.random() < 0.12:
        noise = " ".join(rng.sample(_NOISE, rng.randint(1, 3)))
        caption = f"{noise}, {caption}" if rng.random() < 0.5 else f"{caption}, {noise}"
    return caption


def triggered_caption(scene: Scene, triggers: Iterable[str], rng: random.Random) -> str:
    """Write a caption that carries these adapters' trigger words, in any order, before or after the scene."""
    shape, fg, bg = scene
    words = [TRIGGERS[name] for name in triggers]
    rng.shuffle(words)
    parts = [*words, rng.choice(_TEMPLATES).format(shape=shape, fg=fg, bg=bg)]
    if rng.random() < 0.3:
        parts = [parts[-1], *parts[:-1]]
    return ", ".join(parts)


def known_words() -> list[str]:
    """List the words that deserve a token of their own."""
    words = set(" ".join(_TEMPLATES).replace(",", " ").split()) | set(_NOISE)
    words = {word for word in words if "{" not in word and "_" not in word}
    return sorted(words | set(COLOURS) | set(SHAPES) | {"toy", "face", "pixel", "art"})
