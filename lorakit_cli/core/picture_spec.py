"""What determines one picture of a pipeline whose weights are given."""

from dataclasses import dataclass

from lorakit_cli.core.generation import Settings


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """One picture: what to draw, from which seed, with which settings. Pictures do not depend on their neighbours.

    `literal`: the prompt goes to the text encoders as it stands; None leaves that to what is in it.
    """

    prompt: str
    negative: str | None
    seed: int
    settings: Settings
    literal: bool | None = None
