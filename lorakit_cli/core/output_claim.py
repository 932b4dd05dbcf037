"""An output that is this run's alone to write: its folders made, its lock held, the leftovers of others gone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lorakit_cli.core.leftovers import Remark, remove_old, tidy
from lorakit_cli.core.missing_parents import missing_parents
from lorakit_cli.core.output_lock import output_lock


@contextmanager
def output_claim(path: Path, *, parents: bool, remark: Remark | None) -> Iterator[None]:
    """Claim an output; `parents` makes missing folders above it, `remark` hears what was found. Raises OutputError."""
    with missing_parents(path) if parents else nullcontext(), output_lock(path):
        tidy(path, remark)
        yield
        # Not before the new one stands.
        remove_old(path, remark)
