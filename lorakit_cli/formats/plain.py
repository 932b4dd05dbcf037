"""Bare module names: peft's raw state, DiffSynth, `save_lora_adapter`, and the control adapters of FLUX.

The layout of whatever no other layout claims.
"""

from collections.abc import Iterator, Sequence

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.key_format import KeyFormat, anywhere


def _write(component: str, names: Sequence[Name]) -> Iterator[tuple[str, Name]]:
    for entry in names:
        yield entry.text, entry


PLAIN = KeyFormat("plain", anywhere, _write, lambda stem: stem)
