"""Index a single-file checkpoint: which parameters of which components it holds, and where they lie in it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.architecture import Name, Shape
from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.checkpoint_layout import CheckpointLayout, Section, Stranger
from lorakit_cli.core.place import Place
from lorakit_cli.core.tensor_file import TensorFile, read_header
from lorakit_cli.errors import BaseModelError

# These end names in checkpoints too, so they tell no adapter.
_COMMON_ENDINGS = frozenset({"weight", "bias", "scale"})


def read_single_file(
    path: Path,
    layouts: Sequence[CheckpointLayout],
    strangers: Sequence[Stranger],
    adapter_suffixes: Collection[str],
) -> BaseIndex:
    """Index a single-file checkpoint of one of these layouts; its autoencoder and training state are left out.

    `adapter_suffixes` are the ends of keys that adapters have. Raises BaseModelError, with what the file is where it
    is no base, or CorruptFileError.
    """
    return index_tensors(read_header(path), layouts, strangers, adapter_suffixes)


def index_tensors(
    file: TensorFile,
    layouts: Sequence[CheckpointLayout],
    strangers: Sequence[Stranger] = (),
    adapter_suffixes: Collection[str] = (),
) -> BaseIndex:
    """Index a checkpoint whose header has been read. Raises BaseModelError."""
    path = file.path
    for layout in layouts:
        prefix = _prefix(file, layout.denoiser)
        if prefix is None:
            continue
        found = [(layout.denoiser, prefix)]
        # A denoiser without prefix has the file for itself.
        if prefix:
            prefixes = ((section, _prefix(file, section)) for section in layout.others)
            found += [(section, prefix) for section, prefix in prefixes if prefix is not None]
        components = {section.component: _component(file, section, prefix, strangers) for section, prefix in found}
        shapes = {name: _shapes(component) for name, component in components.items()}
        return BaseIndex(path, layout.pipeline(shapes), components)
    raise BaseModelError(f"{path} {_what_instead(file, strangers, adapter_suffixes)}")


def _prefix(file: TensorFile, section: Section) -> str | None:
    """Give the prefix under which a file has a section, None where it has none."""
    for prefix in section.prefixes:
        if any(name.startswith(prefix) and section.mark.fullmatch(name, len(prefix)) for name in file.tensors):
            return prefix
    return None


@dataclass(frozen=True, slots=True)
class _Tensors:
    """The tensors of a section by their native names."""

    file: TensorFile
    section: Section
    whole: Mapping[str, str]

    def shape(self, native: str) -> Shape:
        """Give the shape of a tensor."""
        return self.file.tensors[self.whole[native]].shape

    def of(self, name: Name) -> dict[str, str]:
        """Find the tensors of a module: parameter -> native name."""
        found = {}
        for parameter, endings in self.section.endings.items():
            native = next((name.text + ending for ending in endings if name.text + ending in self.whole), None)
            if native is not None:
                found[parameter] = native
        return found

    def places(self, name: Name) -> Iterator[tuple[str, str, Place]]:
        """Place the parameters of the parts of a name: parameter as diffusers names it, native name, place.

        Several parts are projections of one input, and all but the last give as many rows as it has columns.
        """
        tensors = self.of(name)
        for parameter, native in tensors.items():
            transposed = native in self.section.transposed
            if len(name.parts) == 1:
                yield (
                    f"{name.parts[0]}.{parameter}",
                    native,
                    Place(self.whole[native], None, name.swapped, transposed),
                )
                continue
            shapes = self.shape(native), self.shape(tensors.get("weight", native))
            height, width = shapes[0][0] if shapes[0] else 0, shapes[1][-1] if shapes[1] else 0
            begins = [width * part for part in range(len(name.parts))]
            if begins[-1] >= height:
                raise BaseModelError(
                    f"{self.file.path}: {self.whole[native]} should hold {len(name.parts)} projections but has the "
                    f"shape {list(shapes[0])}"
                )
            for part, begin, end in zip(name.parts, begins, (*begins[1:], height), strict=True):
                yield f"{part}.{parameter}", native, Place(self.whole[native], (begin, end), name.swapped, transposed)


def _component(file: TensorFile, section: Section, prefix: str, strangers: Sequence[Stranger]) -> BaseComponent:
    """Place every parameter of a section. Raises BaseModelError where a tensor or a module is left over."""
    whole = {name[len(prefix) :]: name for name in file.tensors if name.startswith(prefix)}
    whole = {native: name for native, name in whole.items() if not section.needless.fullmatch(native)}
    tensors = _Tensors(file, section, whole)
    places: dict[str, Place] = {}
    left = dict(whole)
    modules = section.modules(whole)
    names: dict[str, str] = {}
    for name in section.native(modules):
        for part in name.parts:
            names.setdefault(part, name.text)
        for parameter, native, place in tensors.places(name):
            if parameter not in places:
                places[parameter] = place
                left.pop(native, None)
    if left:
        raise BaseModelError(f"{file.path} {_not_understood(next(iter(left.values())), section, strangers)}")
    placed = {parameter.rpartition(".")[0] for parameter in places}
    for module in modules:
        if module not in placed and not section.optional.fullmatch(module):
            raise BaseModelError(
                f"{file.path} is incomplete: its {section.component} has no {prefix}{names.get(module, module)}"
            )
    held = {name: BaseTensor(file.tensors[name], file.path) for name in whole.values()}
    component = BaseComponent(section.component, section.class_name, {}, held, places)
    config = section.config(_shapes(component))
    return BaseComponent(section.component, section.class_name, config, held, places)


def _shapes(component: BaseComponent) -> dict[str, Shape]:
    places = component.places or {}
    return {name: place.shape(component.tensors[place.tensor].info.shape) for name, place in places.items()}


def _not_understood(tensor: str, section: Section, strangers: Sequence[Stranger]) -> str:
    known = next((stranger.what for stranger in strangers if stranger.mark.search(tensor)), None)
    return known or f"holds {tensor}, which no {section.component} that lorakit knows has; is it another kind of model?"


def _what_instead(file: TensorFile, strangers: Sequence[Stranger], adapter_suffixes: Collection[str]) -> str:
    """Say what a file without a known denoiser is."""
    ends = tuple("." + suffix for suffix in adapter_suffixes if suffix not in _COMMON_ENDINGS)
    if any(name.endswith(ends) for name in file.tensors):
        return "is an adapter, not a base; give it with --lora"
    for stranger in strangers:
        if any(stranger.mark.search(name) for name in file.tensors):
            return stranger.what
    if not file.tensors:
        return "holds no tensors; is the download complete?"
    examples = ", ".join(sorted(file.tensors)[:2])
    return f"is no base lorakit knows: it has {len(file.tensors)} tensors, such as {examples}"
