"""An adapter file as layers: which module, which algorithm, which keys, which rank and scale. Header only."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lorakit_cli.core.adapter_metadata import config_beside, read_configs
from lorakit_cli.core.key_format import KeyFormat
from lorakit_cli.core.key_groups import Group, Grouping, Problem
from lorakit_cli.core.kind import ALPHA, Kind, Settings, Shape, Shapes, alpha_over_rank
from lorakit_cli.core.record import Record
from lorakit_cli.core.shown import shown
from lorakit_cli.core.tensor_file import TensorFile, read_header
from lorakit_cli.core.tensor_info import FLOATS, TensorInfo
from lorakit_cli.errors import CorruptFileError, NotALoraError

if TYPE_CHECKING:
    from lorakit_cli.core.adapter_config import AdapterConfig


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


_BEHIND_KEYS = LoraLayer._fields.index("keys") + 1
_PLAIN, _PEFT = "lora", "peft"
_NO_MAGNITUDE = "its settings say DoRA, but the file has no magnitude for it; it is incomplete"
_NO_CONFIG = (
    "it is in peft's layout and has no adapter_config.json beside it, which would give the alphas: every scale is "
    "taken as 1; copy that file too if there is one"
)


class LoraFile(Record):
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
        # Several of them may go by one name, of which the last is meant.
        counts = Counter(map(attrgetter("format.name"), self.layers))
        if len(counts) == 1:
            return (self.layers[-1].format,)
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


class Reading(Record):
    """What is needed to read adapter files: the layouts and algorithms, and what is known to be something else.

    `formats` and `kinds` give the layouts and algorithms that some keys may be of. `embeddings` names for each key
    that belongs to a textual inversion which one; `foreign` says what a file is that holds no adapter and what to do
    with it, given its keys; keys that end in one of `ignorable` mean nothing.
    """

    formats: Callable[[Collection[str]], Sequence[KeyFormat]]
    kinds: Callable[[Collection[str]], Sequence[Kind]]
    embeddings: Callable[[Collection[str], Mapping[str, str]], Mapping[str, str]] = lambda keys, metadata: {}
    foreign: Callable[[Collection[str]], str | None] = lambda keys: None
    ignorable: tuple[str, ...] = ()


def read_lora_file(path: Path, reading: Reading, data: Path | None = None) -> LoraFile:
    """Read an adapter file's header and alphas, from `data` if given. Raises LoraFileError or OSError."""
    file = read_header(path, data)
    instead = reading.foreign(file.tensors)
    if instead:
        raise NotALoraError(f"{path} is {instead}")
    keys: Collection[str] = file.tensors
    if any(map(methodcaller("endswith", reading.ignorable), keys)):
        keys = [key for key in keys if not key.endswith(reading.ignorable)]
    named = reading.embeddings(keys, file.metadata)
    found: dict[str, list[str]] = {}
    for key, name in named.items():
        found.setdefault(name, []).append(key)
    embeddings = {name: tuple(keys) for name, keys in found.items()}
    rest = [key for key in keys if key not in named] if named else keys
    done = Grouping(reading.formats(rest), reading.kinds(rest)).group(rest, file.tensors)
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
    """What a layer's shapes come to."""

    shapes: Shapes
    rank: int
    delta_shape: Shape


def _layers(
    file: TensorFile,
    groups: Mapping[str, Group],
    configs: "Mapping[str, AdapterConfig]",
    beside: "AdapterConfig | None",
    problems: list[Problem],
) -> list[LoraLayer]:
    alphas = _alphas(file, groups, problems)
    layers: list[LoraLayer] = []
    sizes: dict[tuple[int, int], _Sizes] = {}
    alike: dict[tuple[int, int, float | None], LoraLayer] = {}
    new = tuple.__new__
    for stem, group in groups.items():
        config = beside or (_config_of(group, configs) if configs else None)
        alpha = alphas.get(stem)
        previous: LoraLayer | None = None
        for place, (kind, roles) in enumerate(group.parts.kinds):
            keys = {role: group.keys[role] for role in roles}
            sort = id(group.parts), place
            like = alike.get((*sort, alpha)) if config is None else None
            if like:
                # What stands behind the keys follows from shapes, alpha and settings.
                same = like[_BEHIND_KEYS:]
                layer = new(LoraLayer, (stem, group.format, group.components, kind, keys, *same))
            else:
                try:
                    _require_values(kind, keys, file.tensors)
                    if config and config.dora and kind.name == _PLAIN:
                        raise ValueError(_NO_MAGNITUDE)
                    if sort not in sizes:
                        sizes[sort] = _sizes(kind, keys, file.tensors)
                    layer = _layer(stem, group, kind, keys, sizes[sort], alpha, config, previous)
                except ValueError as error:
                    problems.append(Problem(f"{shown(stem)}: {error}", fatal=True))
                    continue
                alike[*sort, alpha] = layer
            previous = previous or layer
            layers.append(layer)
    return layers


def _config_of(group: Group, configs: "Mapping[str, AdapterConfig]") -> "AdapterConfig | None":
    named = (configs[name] for name in group.components if name in configs)
    return next(named, configs.get(""))


def _sizes(kind: Kind, keys: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> _Sizes:
    """Read the shapes of a layer. Raises ValueError."""
    shapes = {role: tensors[key].shape for role, key in keys.items()}
    return _Sizes(shapes, kind.rank(shapes), kind.delta_shape(shapes))


def _require_values(kind: Kind, keys: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse factors that are no floating numbers: quantized, they mean something only with scales of their own."""
    for role, key in keys.items():
        if role not in kind.whole_numbers and tensors[key].dtype not in FLOATS:
            raise ValueError(f"{key} is {tensors[key].dtype}, which are no values but quantized ones")


def _alphas(file: TensorFile, groups: Mapping[str, Group], problems: list[Problem]) -> dict[str, float]:
    stems = {group.keys[ALPHA]: stem for stem, group in groups.items() if ALPHA in group.keys}
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
    config: "AdapterConfig | None",
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
