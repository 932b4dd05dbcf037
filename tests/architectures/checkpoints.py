"""Models of the published classes without their size, and checkpoints of them in the names under test."""

import re
from collections.abc import Iterable, Mapping

import torch
from accelerate import init_empty_weights

from lorakit_cli.core.architecture import Name

SUFFIXES = (".weight", ".bias")
# Names that files of adapters have and checkpoints have not.
ALIASES = re.compile(r"(qkv|linear1)\.\d$|linear1\.qkv$|(query|key)_norm$|\.fc0$")


def state_of(model_class, *args, **config) -> dict[str, torch.Tensor]:
    """Make up parameters with the names and the rows of a model, two columns wide: renaming sees names and rows."""
    with init_empty_weights(include_buffers=True):
        shapes = {name: value.shape for name, value in model_class(*args, **config).state_dict().items()}
    values = torch.Generator().manual_seed(0)
    narrow = {name: (shape[0], *(min(size, 2) for size in shape[1:])) for name, shape in shapes.items()}
    return {name: torch.randn(shape, generator=values) for name, shape in narrow.items()}


def modules_of(state: Iterable[str]) -> list[str]:
    """List the modules of parameters, bare parameters as they are."""
    return list(dict.fromkeys(re.sub(r"\.(weight|bias)$", "", name) for name in state))


def checkpoint(state: Mapping[str, torch.Tensor], names: Iterable[Name], prefix: str = "") -> dict[str, torch.Tensor]:
    """Write a state under its original names, each parameter once; what has no other name keeps its own."""
    left = dict(state)
    written: dict[str, torch.Tensor] = {}
    for name in names:
        if ALIASES.search(name.text):
            continue
        for suffix in ("", *SUFFIXES):
            rows = [left.pop(part + suffix) for part in name.parts if part + suffix in left]
            if rows:
                assert len(rows) == len(name.parts)
                whole = torch.cat(rows)
                halves = whole.chunk(2)
                written[parameter(name.text, suffix)] = torch.cat(halves[::-1]) if name.swapped else whole
    assert not written.keys() & left.keys()
    return {prefix + name: value for name, value in (written | left).items()}


def parameter(text: str, suffix: str) -> str:
    """Name a parameter of a module; OpenCLIP's fused attention and some norms of FLUX do it their way."""
    if text.endswith(".in_proj"):
        return text + suffix.replace(".", "_")
    if text.endswith((".scale", "positional_embedding")):
        return text
    return text + suffix


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Require the same names and the same bits."""
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
