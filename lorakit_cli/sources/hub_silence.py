"""Let the Hub's client work in silence: the user is told what matters, in lorakit's words."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hushed() -> Iterator[None]:
    """Keep the client's bars and warnings from the user; not where it was asked to be talkative."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, shown = logger.level, not are_progress_bars_disabled()
    with warnings.catch_warnings():
        if logger.getEffectiveLevel() == logging.WARNING:
            logger.setLevel(logging.ERROR)
            warnings.simplefilter("ignore")
        if shown:
            disable_progress_bars()
        try:
            yield
        finally:
            logger.setLevel(level)
            if shown:
                enable_progress_bars()
