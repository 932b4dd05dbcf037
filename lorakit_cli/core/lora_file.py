"""An adapter file as layers: which module, which algorithm, which keys, which rank and scale. Header only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit_cli.core.adapter_metadata import AdapterConfig, read_configs
from lorakit_cli.core.tensor_file import TensorFile, read_header
from lorakit_cli.errors import CorruptFileError, NotALoraError, UnknownFormatError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

ALPHA = "alpha"


@dataclass(frozen=True, slots=True)
class Kind:
    """One adapter algorithm.

    `suffixes` maps the end of a key to the role of its tensor; a layer is of this kind if it has every role of
    `required`. `rank` and `delta_shape` work on the shapes by role and raise ValueError where they contradict
    each other; `delta` gives the change of the base tensor at scale 1, from factors by role in fp32 or fp64.
    """

    name: str
    suffixes: Mapping[str, str]
    required: frozenset[str]
    rank: Callable[[Shapes], int]
    delta_shape: Callable[[Shapes], Shape]
    delta: Callable[[Mapping[str, "Tensor"]], "Tensor"]


@dataclass(frozen=True, slots=True)
class KeyFormat:
    """One layout of key names.

    `component_of` reads the component off a stem (a key without its suffix), None where the stem is not of this
    layout; `stems` writes the stems a module of the base could have. Names are only ever written, never taken
    apart: flattened ones cannot be split back.
    """

    name: str
    component_of: Callable[[str], str | None]
    stems: Callable[[str, str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The change of one base tensor: `scale * delta(factors)`, the factors named by role."""

    stem: str
    component: str
    kind: Kind
    keys: Mapping[str, str]
    shapes: Shapes
    rank: int
    alpha: float | None
    scale: float

    @property
    def delta_shape(self) -> Shape:
        """The shape of the change; a 1x1 convolution and a linear layer may stand for each other."""
        return self.kind.delta_shape(self.shapes)


@dataclass(frozen=True, slots=True)
class LoraFile:
    """An adapter file, read completely: every key is in a layer or in `unknown_keys`."""

    path: Path
    format: KeyFormat
    layers: tuple[LoraLayer, ...]
    unknown_keys: tuple[str, ...]
    metadata: Mapping[str, str]
    size: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """The algorithms it uses, each once."""
        return tuple(dict.fromkeys(layer.kind.name for layer in self.layers))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks it uses, ascending, each once."""
        return tuple(sorted({layer.rank for layer in self.layers}))

    @property
    def triggers(self) -> tuple[str, ...]:
        """The words its metadata says it listens to (`modelspec.trigger_phrase`)."""
        phrase = self.metadata.get("modelspec.trigger_phrase", "")
        return tuple(word.strip() for word in phrase.split(",") if word.strip())


def read_lora_file(path: Path, formats: Sequence[KeyFormat], kinds: Sequence[Kind]) -> LoraFile:
    """Read an adapter file's header and alphas. Raises LoraFileError or OSError."""
    file = read_header(path)
    groups, unknown = _group(file, kinds)
    if not groups:
        raise NotALoraError(f"{path} holds no adapter: {_examples(file)}")
    _require_whole_layers(path, groups, unknown)
    key_format = max(formats, key=lambda known: sum(known.component_of(stem) is not None for stem in groups))
    layers: list[LoraLayer] = []
    configs = read_configs(file.metadata, path)
    alphas = {stem: keys[ALPHA] for stem, keys in groups.items() if ALPHA in keys}
    alpha_values = dict(zip(alphas, file.scalars(alphas.values()), strict=True))
    for stem, keys in groups.items():
        component = key_format.component_of(stem)
        kind = next((known for known in kinds if known.required <= keys.keys()), None)
        if component is None or kind is None:
            unknown.extend(keys.values())
        else:
            config = configs.get(component)
            layers.append(_layer(file, stem, component, kind, keys, alpha_values.get(stem), config))
    if not layers:
        for stem, keys in groups.items():
            if key_format.component_of(stem):
                raise CorruptFileError(f"{path}: {stem} has {', '.join(keys.values())}, but not what belongs to it")
        raise UnknownFormatError(
            f"{path} looks like an adapter, but its keys follow no layout lorakit knows: {_examples(file)}"
        )
    return LoraFile(path, key_format, tuple(layers), tuple(sorted(unknown)), file.metadata, file.size)


def _group(file: TensorFile, kinds: Sequence[Kind]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Group keys by stem: stem -> role -> key, and the keys that end in no known suffix."""
    roles = {suffix: role for kind in kinds for suffix, role in kind.suffixes.items()} | {ALPHA: ALPHA}
    groups: dict[str, dict[str, str]] = {}
    unknown: list[str] = []
    for key in file.tensors:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            role = roles.get(".".join(parts[cut:]))
            if role:
                keys = groups.setdefault(".".join(parts[:cut]), {})
                if role in keys:
                    raise CorruptFileError(f"{file.path}: {keys[role]} and {key} are the same part of one layer")
                keys[role] = key
                break
        else:
            unknown.append(key)
    # An alpha alone is no layer, and a base checkpoint may have a tensor of that name.
    for stem in [stem for stem, keys in groups.items() if keys.keys() == {ALPHA}]:
        unknown.append(groups.pop(stem)[ALPHA])
    return groups, unknown


def _require_whole_layers(path: Path, groups: Mapping[str, object], unknown: Sequence[str]) -> None:
    """Refuse a layer with a part that is not understood: DoRA's magnitude left out is another change."""
    for key in unknown:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            stem = ".".join(parts[:cut])
            if stem in groups:
                raise UnknownFormatError(
                    f"{path}: {stem} has {'.'.join(parts[cut:])} beside its factors, an algorithm lorakit does not "
                    "know; nothing is applied by halves"
                )


def _layer(
    file: TensorFile,
    stem: str,
    component: str,
    kind: Kind,
    keys: Mapping[str, str],
    alpha: float | None,
    config: AdapterConfig | None,
) -> LoraLayer:
    shapes = {role: file.tensors[key].shape for role, key in keys.items() if role != ALPHA}
    try:
        rank = kind.rank(shapes)
        kind.delta_shape(shapes)
    except ValueError as error:
        raise CorruptFileError(f"{file.path}: {stem}: {error}") from error
    # Per layer, never one for the file; a missing alpha means scale 1.
    scale = 1.0
    if alpha is not None:
        scale = alpha / rank
    elif config is not None:
        module = stem.removeprefix(component + ".")
        alpha, configured = config.alpha_of(module), config.scale_of(module, rank)
        scale = 1.0 if configured is None else configured
    return LoraLayer(stem, component, kind, keys, shapes, rank, alpha, scale)


def _examples(file: TensorFile) -> str:
    names = sorted(file.tensors)
    return f"it has {len(names)} tensors" + (f", such as {', '.join(names[:2])}" if names else "")
