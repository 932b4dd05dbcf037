"""Keep the libraries' own bars, deprecations and fallback messages from the user, unless `-v` asks for them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

_SPEAKERS = ("peft", "huggingface_hub", "accelerate", "torch")


@contextmanager
def hushed(*, verbose: bool = False) -> Iterator[None]:
    """Silence diffusers, transformers, peft and their companions for a while; with `verbose` let them speak up."""
    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    loggers = [logging.getLogger(name) for name in _SPEAKERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
        for library in libraries:
            library.set_verbosity(logging.INFO if verbose else logging.ERROR)
            if not verbose:
                library.disable_progress_bar()
        try:
            yield
        finally:
            for library, verbosity in zip(libraries, before, strict=True):
                library.set_verbosity(verbosity)
                library.enable_progress_bar()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
