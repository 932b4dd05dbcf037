"""A model as it was published: a class, and what it is configured with."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """A class of transformers (text encoders) or diffusers (all else), and what it is configured with."""

    class_name: str
    config: Mapping[str, object]


# Architecture -> size -> component -> the model, or the name of a text encoder that several share.
Sizes = Mapping[str, Mapping[str, Mapping[str, Model | str]]]
