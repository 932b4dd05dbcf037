"""Keep the libraries' own bars, deprecations and fallback messages from the user, unless `-v` asks for them."""

import logging
import warnings


def hush(*, verbose: bool) -> None:
    """Silence diffusers, transformers, peft and huggingface_hub, or let them speak."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    if verbose:
        diffusers_logging.set_verbosity_info()
        transformers_logging.set_verbosity_info()
        return
    warnings.filterwarnings("ignore")
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    for name in ("peft", "huggingface_hub", "accelerate", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
