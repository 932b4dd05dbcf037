"""Encode a text once: what a text encoder gave is given again, as long as its weights are the same."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from lorakit_cli.core.plan import Plan

_MOST_BYTES = 1 << 29


class EncoderMemo:
    """Wraps the text encoders of a loaded pipeline; equal inputs to equal weights are answered without computing.

    Answers are the very tensors of the first time. Up to 512 MiB of them are kept, the oldest go first.
    """

    def __init__(self, pipeline: Any) -> None:
        self._answers: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._state: dict[str, Hashable] = {}
        for name, part in pipeline.components.items():
            if name.startswith("text_encoder") and isinstance(part, nn.Module):
                part.forward = self._remembering(name, part.forward)

    def expect(self, plan: Plan) -> None:
        """Say which plan the weights are those of from now on."""
        state: dict[str, list[Hashable]] = {}
        for target, terms in plan.changes():
            if target.component.startswith("text_encoder"):
                own = state.setdefault(target.component, [])
                own.append((target, tuple((term.adapter, str(term.file), term.strength) for term in terms)))
        self._state = {name: tuple(own) for name, own in state.items()}

    def _remembering(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def remembered(*args: Any, **kwargs: Any) -> Any:
            asked = _known((args, tuple(sorted(kwargs.items()))))
            if asked is None:
                return forward(*args, **kwargs)
            key = (name, self._state.get(name, ()), asked)
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key][0]
            answer = forward(*args, **kwargs)
            self._keep(key, answer)
            return answer

        return remembered

    def _keep(self, key: Hashable, answer: Any) -> None:
        size = _size(answer)
        self._answers[key] = answer, size
        self._bytes += size
        while self._bytes > _MOST_BYTES and len(self._answers) > 1:
            _, (_, freed) = self._answers.popitem(last=False)
            self._bytes -= freed


def _known(value: Any) -> Hashable | None:
    """Make a key of inputs, None where one of them is of a kind whose values cannot be told."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous()
        return "tensor", str(raw.dtype), tuple(raw.shape), raw.reshape(-1).view(torch.uint8).numpy().tobytes()
    if value is None or isinstance(value, bool | int | float | str):
        return type(value).__name__, value
    if isinstance(value, tuple):
        parts = tuple(_known(part) for part in value)
        return None if None in parts else parts
    return None


def _size(answer: Any) -> int:
    """Count the bytes of the tensors in what an encoder gave."""
    if isinstance(answer, torch.Tensor):
        return answer.nbytes
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, tuple | list) else ()
    return sum(_size(part) for part in parts)
