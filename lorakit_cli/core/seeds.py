"""Which seeds a request means: single ones, ranges such as `1-4`, or a random one."""

import random
import re
from collections.abc import Sequence

from lorakit_cli.errors import OptionError

LARGEST = 2**63 - 1
_MOST = 10_000
_RANGE = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?", re.ASCII)


def parse_seeds(texts: Sequence[str]) -> list[int]:
    """Read `--seed` values in order. Raises OptionError."""
    seeds: list[int] = []
    for text in texts:
        found = _RANGE.fullmatch(text)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last > LARGEST:
            raise OptionError(f"--seed {text[:40]!r} is neither a whole number from 0 nor a range such as 1-4")
        if last - first + len(seeds) >= _MOST:
            raise OptionError(f"--seed {text!r} asks for more than {_MOST} pictures")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise OptionError("--seed names a seed twice")
    return seeds


def require_not_too_many(pictures: int) -> None:
    """Raise OptionError for more pictures than anybody means."""
    if pictures > _MOST:
        raise OptionError(f"prompts and seeds come to {pictures} pictures; {_MOST} are the most")


def choose_seeds(texts: Sequence[str], count: int | None) -> list[int]:
    """Give one seed per picture: those named, or `count` in a row from the one named or a random one."""
    seeds = parse_seeds(texts)
    if count is not None and count > _MOST:
        raise OptionError(f"--count {count} asks for more than {_MOST} pictures")
    if len(seeds) > 1:
        if count is not None and count != len(seeds):
            raise OptionError(f"--count {count} and {len(seeds)} seeds contradict each other; leave --count out")
        return seeds
    # Short enough to be read out and typed again.
    first = seeds[0] if seeds else random.SystemRandom().randrange(1_000_000_000)
    return [first + k for k in range(count or 1)]
