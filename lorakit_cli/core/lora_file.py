"""An adapter file as layers: which module, which algorithm, which keys, which rank and scale. Header only."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.adapter_metadata import AdapterConfig, config_beside, read_configs
from lorakit_cli.core.key_format import KeyFormat
from lorakit_cli.core.key_groups import Group, Grouping, Problem
from lorakit_cli.core.kind import ALPHA, Kind, Settings, Shape, Shapes, alpha_over_rank
from lorakit_cli.core.shown import shown
from lorakit_cli.core.tensor_file import TensorFile, read_header
from lorakit_cli.core.tensor_info import FLOATS, TensorInfo
from lorakit_cli.errors import CorruptFileError, NotALoraError


class LoraLayer(NamedTuple):
    """The change of one parameter of one module, its factors named by role.

    `delta_shape` has ANY for a size that only the base knows. `optional`: a module without that parameter is none
    the worse for it.
    """

    stem: str
    format: KeyFormat
    components: tuple[str, ...]
    kind: Kind
    keys: Mapping[str, str]
    shapes: Shapes
    rank: int
    alpha: float | None
    scale: float
    settings: Settings
    delta_shape: Shape
    optional: bool

    @property
    def component(self) -> str:
        """The component it most likely belongs to; the base decides."""
        return self.components[0]


_PLAIN, _PEFT = "lora", "peft"
_NO_CONFIG = (
    "it is in peft's layout and has no adapter_config.json beside it, which would give the alphas: every scale is "
    "taken as 1; copy that file too if there is one"
)


class LoraFile(NamedTuple):
    """An adapter file, read completely: every key is in a layer, in an embedding or in `unknown_keys`.

    `embeddings` are textual inversions that lie in the same file. `problems` says what is wrong with it; with a
    fatal one it cannot be applied. `path` is the file people know; `data` the safetensors file with its tensors,
    another one if that is a pickle.
    """

    path: Path
    data: Path
    tensors: Mapping[str, TensorInfo]
    layers: tuple[LoraLayer, ...]
    unknown_keys: tuple[str, ...]
    metadata: Mapping[str, str]
    size: int
    embeddings: Mapping[str, tuple[str, ...]]
    problems: tuple[Problem, ...]

    @property
    def formats(self) -> tuple[KeyFormat, ...]:
        """The layouts of its keys, the one of most layers first."""
        counts = Counter(layer.format.name for layer in self.layers)
        by_name = {layer.format.name: layer.format for layer in self.layers}
        return tuple(by_name[name] for name, _ in counts.most_common())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The algorithms it uses, each once."""
        return tuple(dict.fromkeys(layer.kind.name for layer in self.layers))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks it uses, ascending, each once."""
        return tuple(sorted({layer.rank for layer in self.layers if layer.rank}))

    def require_sound(self) -> None:
        """Raise CorruptFileError for the first problem that keeps it from being applied as it is meant."""
        for problem in self.problems:
            if problem.fatal:
                raise CorruptFileError(f"{self.path}: {problem.text}")


class Reading(NamedTuple):
    """What is needed to read adapter files: the layouts and algorithms, and what is known to be something else.

    `embedding_of` names the textual inversion that a key belongs to; `foreign` says what a file is that holds no
    adapter and what to do with it, given its keys; keys that end in one of `ignorable` mean nothing.
    """

    formats: Sequence[KeyFormat]
    kinds: Sequence[Kind]
    embedding_of: Callable[[str, Mapping[str, str]], str | None] = lambda key, metadata: None
    foreign: Callable[[Collection[str]], str | None] = lambda keys: None
    ignorable: tuple[str, ...] = ()


def read_lora_file(path: Path, reading: Reading, data: Path | None = None) -> LoraFile:
    """Read an adapter file's header and alphas, from `data` if given. Raises LoraFileError or OSError."""
    file = read_header(path, data)
    instead = reading.foreign(file.tensors)
    if instead:
        raise NotALoraError(f"{path} is {instead}")
    keys = [key for key in file.tensors if not key.endswith(reading.ignorable)] if reading.ignorable else file.tensors
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    for key in keys:
        name = reading.embedding_of(key, file.metadata)
        if name is None:
            rest.append(key)
        else:
            found.setdefault(name, []).append(key)
    embeddings = {name: tuple(keys) for name, keys in found.items()}
    done = Grouping(reading.formats, reading.kinds).group(rest, file.tensors)
    if not done.groups and not done.problems:
        raise NotALoraError(_no_adapter(path, file, embeddings))
    configs, beside = read_configs(file.metadata, path), config_beside(path)
    layers = tuple(_layers(file, done.groups, configs, beside, done.problems))
    guessed = layers and not configs and beside is None
    if guessed and all(layer.format.name == _PEFT and layer.alpha is None for layer in layers):
        done.problems.append(Problem(_NO_CONFIG))
    unknown = tuple(sorted(done.unknown))
    problems = tuple(done.problems)
    return LoraFile(path, file.data, file.tensors, layers, unknown, file.metadata, file.size, embeddings, problems)


class _Sizes(NamedTuple):
    """What a layer's shapes come to; layers of equal shapes, of which a model has but a few, share it."""

    shapes: Shapes
    rank: int
    delta_shape: Shape


def _layers(
    file: TensorFile,
    groups: Mapping[str, Group],
    configs: Mapping[str, AdapterConfig],
    beside: AdapterConfig | None,
    problems: list[Problem],
) -> list[LoraLayer]:
    alphas = _alphas(file, groups, problems)
    layers: list[LoraLayer] = []
    known: dict[tuple[object, ...], _Sizes] = {}
    for stem, group in groups.items():
        named = (configs[name] for name in group.components if name in configs)
        config = beside or next(named, configs.get(""))
        previous: LoraLayer | None = None
        for kind, keys in group.parts:
            sort = (id(kind), *((role, file.tensors[key].shape) for role, key in keys.items()))
            try:
                _require_values(kind, keys, file.tensors)
                if config and config.dora and kind.name == _PLAIN:
                    raise ValueError("its settings say DoRA, but the file has no magnitude for it; it is incomplete")
                sizes = known.get(sort)
                if sizes is None:
                    shapes = {role: file.tensors[key].shape for role, key in keys.items()}
                    sizes = known[sort] = _Sizes(shapes, kind.rank(shapes), kind.delta_shape(shapes))
                layer = _layer(stem, group, kind, keys, sizes, alphas.get(stem), config, previous)
            except ValueError as error:
                problems.append(Problem(f"{shown(stem)}: {error}", fatal=True))
                continue
            previous = previous or layer
            layers.append(layer)
    return layers


def _require_values(kind: Kind, keys: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse factors that are no floating numbers: quantized, they mean something only with scales of their own."""
    for role, key in keys.items():
        if role not in kind.whole_numbers and tensors[key].dtype not in FLOATS:
            raise ValueError(f"{key} is {tensors[key].dtype}, which are no values but quantized ones")


def _alphas(file: TensorFile, groups: Mapping[str, Group], problems: list[Problem]) -> dict[str, float]:
    stems = {group.alpha: stem for stem, group in groups.items() if group.alpha}
    try:
        return dict(zip(stems.values(), file.scalars(stems), strict=True))
    except CorruptFileError:
        alphas: dict[str, float] = {}
        for key, stem in stems.items():
            try:
                alphas[stem] = file.scalars([key])[0]
            except CorruptFileError as error:
                problems.append(Problem(str(error).removeprefix(f"{file.path}: "), fatal=True))
        return alphas


def _layer(
    stem: str,
    group: Group,
    kind: Kind,
    keys: Mapping[str, str],
    sizes: _Sizes,
    alpha: float | None,
    config: AdapterConfig | None,
    beside: LoraLayer | None,
) -> LoraLayer:
    shapes, rank, delta_shape = sizes
    if kind.shares_scale and beside:
        rank, alpha, scale = beside.rank, beside.alpha, beside.scale
    else:
        # Per layer, never one for the file; a missing alpha means scale 1.
        configured = None
        if alpha is None and config is not None:
            module = group.format.body(stem)
            alpha = config.alpha_of(module)
            if kind.scale is alpha_over_rank or config.always_scales:
                configured = config.scale_of(module, rank)
        scale = kind.scale(alpha, rank, shapes) if configured is None else configured
    optional = beside is not None and kind in beside.kind.beside
    settings: Settings = config.settings if config else {}
    if alpha is not None:
        settings = {**settings, ALPHA: alpha}
    return LoraLayer(
        stem, group.format, group.components, kind, keys, shapes, rank, alpha, scale, settings, delta_shape, optional
    )


def _no_adapter(path: Path, file: TensorFile, embeddings: Mapping[str, object]) -> str:
    if embeddings:
        names = ", ".join(shown(name, 80) for name in list(embeddings)[:5])
        return (
            f"{path} is a textual inversion ({names}), not a LoRA; load it with diffusers' load_textual_inversion, "
            "or put it into the embeddings folder of your program"
        )
    names = ", ".join(shown(name) for name in sorted(file.tensors)[:2])
    count = len(file.tensors)
    return f"{path} holds no adapter: it has {count} tensors" + (f", such as {names}" if names else "")
