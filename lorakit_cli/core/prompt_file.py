"""A file of prompts, one a line."""

import re
import sys

from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError

STDIN = "-"
_LARGEST = 10_000_000


def read_prompts(name: str) -> list[str]:
    """Read the prompts of a file, or of stdin for `-`; empty lines and those that begin with # are none.

    Raises OptionError.
    """
    data = _read(name)
    if len(data) > _LARGEST:
        raise OptionError(f"--prompt-file {name} is larger than {_LARGEST / 1e6:.0f} MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise OptionError(f"--prompt-file {name}: line {line} is not UTF-8 text") from error
    prompts = [line for line in map(str.strip, re.split(r"\r\n|\r|\n", text)) if line and not line.startswith("#")]
    if not prompts:
        raise OptionError(f"--prompt-file {name} has no prompt in it; write one a line")
    return prompts


def _read(name: str) -> bytes:
    try:
        if name == STDIN:
            return sys.stdin.buffer.read(_LARGEST + 1)
        with user_path(name).open("rb") as file:
            return file.read(_LARGEST + 1)
    except OSError as error:
        raise OptionError(f"--prompt-file {name} cannot be read: {error.strerror}") from error
