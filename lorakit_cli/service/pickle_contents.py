"""Make named tensors and metadata of what a pickle holds: dicts, dicts in dicts, lists of factors, numbers, text."""

from collections.abc import Iterator

import torch

from lorakit_cli.errors import CorruptFileError, NotALoraError
from lorakit_cli.formats.pickled_list import list_keys

# What training scripts put around the state dict.
_WRAPPERS = ("state_dict", "model")
# A pickle can name one object from many places, so that a few bytes unfold without end; also a dict inside itself.
_MOST_PARTS = 400_000
_MOST_TEXT = 32_000_000
_DEEPEST = 16
# Tensors may share a storage, but the copies must stay in proportion to the file.
_MOST_COPIES = 4
_SLACK = 1 << 20

# What both torch and safetensors write; torch's newest dtypes are no adapter's.
_STORABLE = frozenset((
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64,
    torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz,
))  # fmt: skip


class Contents:
    """The tensors and the text of one unpickled object, by name.

    Dicts inside dicts are joined with dots, a wrapper like `{"state_dict": …}` is taken off, numbers become scalars
    and text becomes metadata. `size` is the file's, in bytes; `component` is what a nameless list is for.
    Raises NotALoraError for what no adapter holds, CorruptFileError for tensors that claim more than they store.
    """

    def __init__(self, value: object, *, size: int, component: str) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.metadata: dict[str, str] = {}
        self._room = _MOST_COPIES * size + _SLACK
        self._parts = 0
        self._text = 0
        if isinstance(value, list | tuple):
            parts: Iterator[tuple[str, object]] = _factors(value, component)
        elif isinstance(value, dict):
            parts = self._unwrapped(value)
        else:
            raise NotALoraError(f"holds {_kind(value)}, which is no adapter")
        for name, part in parts:
            self._put(name, part)
        if not any(tensor.dim() for tensor in self.tensors.values()):
            raise NotALoraError("holds no adapter: there are no tensors in it")

    def _unwrapped(self, value: dict[object, object]) -> Iterator[tuple[str, object]]:
        wrappers = [name for name in _WRAPPERS if isinstance(value.get(name), dict)]
        for key in value:
            part = value[key]
            if [key] == wrappers and isinstance(part, dict):
                yield from self._leaves("", part, 1)
            else:
                yield from self._leaves(self._name("", key), part, 1)

    def _leaves(self, name: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
        self._parts += 1
        if self._parts > _MOST_PARTS or depth > _DEEPEST:
            raise CorruptFileError("unfolds into more parts than an adapter has; refused")
        # Never by the methods of the object: a pickle may have set attributes on it.
        if isinstance(value, dict):
            for key in value:
                yield from self._leaves(self._name(name, key), value[key], depth + 1)
        elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            for place, part in enumerate(value):
                yield from self._leaves(self._name(name, place), part, depth + 1)
        elif value is not None:
            yield name, value

    def _name(self, name: str, key: object) -> str:
        if not isinstance(key, str | int):
            raise NotALoraError(f"has {_kind(key)} as a name, which no adapter has")
        joined = f"{name}.{key}" if name else str(key)
        self._count_text(joined)
        return joined

    def _count_text(self, text: str) -> None:
        self._text += len(text)
        if self._text > _MOST_TEXT:
            raise CorruptFileError("unfolds into more text than an adapter has; refused")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise CorruptFileError(f"has a text that is not valid Unicode: {text:.80}")

    def _put(self, name: str, value: object) -> None:
        if name in self.tensors or name in self.metadata or name == "__metadata__":
            raise CorruptFileError(f"has two parts called {name:.80}")
        if isinstance(value, torch.Tensor):
            self.tensors[name] = self._copy(name, value)
        elif isinstance(value, bool | int | float):
            self.tensors[name] = _scalar(name, value)
        elif isinstance(value, str):
            self._count_text(value)
            self.metadata[name] = value
        elif isinstance(value, torch.dtype | torch.device | torch.Size):
            self.metadata[name] = str(value)
        else:
            raise NotALoraError(f"holds {_kind(value)} called {name:.80}, which no adapter has")

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Copy a tensor that is what it says. Raises CorruptFileError where it claims more than it stores."""
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise NotALoraError(f"holds {_kind(value)} called {name:.80}, which no adapter has")
        # The function, not the method, which a Parameter's own state can hide; what it gives has no such state.
        plain = torch.Tensor.detach(value)
        if plain.device.type != "cpu" or plain.layout != torch.strided or plain.is_quantized:
            raise NotALoraError(f"has {name:.80} as a tensor that is not plain ({plain.device}, {plain.layout})")
        if plain.dtype not in _STORABLE:
            raise NotALoraError(f"has {name:.80} in {plain.dtype}, which no safetensors file holds")
        claimed = plain.numel() * plain.element_size()
        stored = plain.untyped_storage().nbytes() - plain.storage_offset() * plain.element_size()
        self._room -= claimed
        if claimed > stored or self._room < 0:
            raise CorruptFileError(
                f"has {name:.80} {list(plain.shape)!s:.80}, which unfolds into more bytes than are stored; refused"
            )
        return plain.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)


def _factors(values: list[object] | tuple[object, ...], component: str) -> Iterator[tuple[str, object]]:
    strange = next((value for value in values if not isinstance(value, torch.Tensor)), None)
    if not values or strange is not None:
        what = "an empty list" if not values else f"a list with {_kind(strange)} in it"
        raise NotALoraError(f"holds {what}, which is no adapter")
    try:
        return zip(list_keys(component, len(values)), values, strict=True)
    except ValueError as error:
        raise NotALoraError(f"holds a list, but its {error}") from error


def _scalar(name: str, value: bool | int | float) -> torch.Tensor:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise CorruptFileError(f"has a number beyond 64 bits called {name:.80}")
    dtype = torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else torch.float64
    return torch.tensor(value, dtype=dtype)


def _kind(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return ("an " if name[0] in "aeiou" else "a ") + name
