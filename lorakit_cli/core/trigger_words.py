"""Whether a prompt has the words that an adapter listens to, and how it gets them."""

import re
from collections.abc import Sequence


def has_any(prompt: str, words: Sequence[str]) -> bool:
    """Tell whether one of these words or phrases stands in a prompt, as a whole and in any case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) for word in words)


def with_words(prompt: str, words: Sequence[str]) -> str:
    """Put words in front of a prompt, each once."""
    return ", ".join([*dict.fromkeys(words), *([prompt] if prompt else [])])
