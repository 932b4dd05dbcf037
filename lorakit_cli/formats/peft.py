"""peft's own layout: the wrapped model's names behind `base_model.model.`; which component it was is not in the keys.

https://github.com/huggingface/peft/blob/main/src/peft/utils/save_and_load.py
"""

from collections.abc import Iterator, Sequence

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.key_format import KeyFormat, anywhere, prefixed

_PREFIX = "base_model.model."
_NAMED = prefixed(
    "peft",
    {
        f"{component}.{_PREFIX}": (component,)
        for component in ("unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2", "text_encoder_3")
    },
    flat=False,
)


def _components(stem: str) -> tuple[str, ...]:
    return anywhere(_body(stem)) if stem.startswith(_PREFIX) else _NAMED.components(stem)


def _body(stem: str) -> str:
    return stem.removeprefix(_PREFIX) if stem.startswith(_PREFIX) else _NAMED.body(stem)


def _write(component: str, names: Sequence[Name]) -> Iterator[tuple[str, Name]]:
    for entry in names:
        yield _PREFIX + entry.text, entry
    yield from _NAMED.write(component, names)


PEFT = KeyFormat("peft", _components, _write, _body)
