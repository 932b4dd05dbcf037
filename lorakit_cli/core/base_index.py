"""A base pipeline as an index: component -> tensor name -> shape, dtype, file and place. Headers only."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from lorakit_cli.core.architecture import Architecture, Name
from lorakit_cli.core.record import Record
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import BaseModelError

if TYPE_CHECKING:
    from lorakit_cli.core.place import Place

# CLIP text models saved by transformers before 5 carry this prefix; the live module of 5 and later does not.
_DROPPED_PREFIX, _WITH_PREFIX = "text_model.", "CLIPText"
# Beside what has that prefix, in every version; a text encoder with a projection kept its prefix.
_PROJECTION = "text_projection"


class BaseTensor(NamedTuple):
    """One tensor of a base: what its header says, and the file that holds it.

    `file` is a Path on this machine, or a pure path `owner/repo/folder/file` on the Hub.
    """

    info: TensorInfo
    file: PurePath

    @property
    def local_file(self) -> Path:
        """The file on this machine. Raises BaseModelError where the tensor was indexed on the Hub."""
        if not isinstance(self.file, Path):
            raise BaseModelError(f"{self.file} is on the Hub and was not downloaded")
        return self.file


class BaseComponent(Record):
    """One component of a pipeline: its class, its configuration, and its tensors by their name in the file.

    `places` says for each parameter, named as diffusers names it, where it lies; None: each is the tensor of its own
    name.
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, BaseTensor]
    places: "Mapping[str, Place] | None" = None
    architecture: Architecture | None = None

    @property
    def is_clip(self) -> bool:
        """Whether this is a CLIP text encoder, whose modules go by two names."""
        return self.class_name.startswith(_WITH_PREFIX)

    def spellings(self, name: str) -> tuple[str, ...]:
        """Give every name one tensor or module goes by: the file's first, then the live module's or an older file's."""
        if not self.is_clip:
            return (name,)
        if name.startswith(_DROPPED_PREFIX):
            return (name, name.removeprefix(_DROPPED_PREFIX))
        return (name, _DROPPED_PREFIX + name)

    def short_name(self, module: str) -> str:
        """Give a module's name without the prefix that some versions of transformers have."""
        return module.removeprefix(_DROPPED_PREFIX) if self.is_clip else module

    def long_name(self, module: str) -> str:
        """Give a module's name as transformers before 5 has it, and with it most other programs."""
        prefixed = not self.is_clip or module.startswith((_DROPPED_PREFIX, _PROJECTION))
        return module if prefixed else _DROPPED_PREFIX + module

    def live_name(self, module: str) -> str:
        """Give a module's name as transformers 5 has it."""
        projected = self.find(f"{_PROJECTION}.weight") is not None
        return self.long_name(module) if projected else self.short_name(module)

    def find(self, parameter: str) -> tuple[int, ...] | None:
        """Give the shape of a parameter, None where there is none of that name."""
        if self.places is None:
            tensor = self.tensors.get(parameter)
            return tensor.info.shape if tensor else None
        place = self.places.get(parameter)
        return place.shape(self.tensors[place.tensor].info.shape) if place else None

    def place(self, parameter: str) -> "Place | None":
        """Say where a parameter lies, None where there is none of that name."""
        if self.places is not None:
            return self.places.get(parameter)
        from lorakit_cli.core.place import Place

        return Place(parameter) if parameter in self.tensors else None

    def shape(self, parameter: str) -> tuple[int, ...]:
        """Give the shape of a parameter that there is."""
        shape = self.find(parameter)
        if shape is None:
            raise KeyError(parameter)
        return shape

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The modules that have a parameter, and the parameters that stand alone."""
        parameters = self.tensors if self.places is None else self.places
        return tuple(dict.fromkeys(name.removesuffix(".weight").removesuffix(".bias") for name in parameters))

    @cached_property
    def names(self) -> tuple[Name, ...]:
        """Every name that a module goes by: diffusers' and transformers', and those of the original code."""
        if self.class_name.startswith(_WITH_PREFIX):
            own = [Name(spelling, (module,)) for module in self.modules for spelling in self.spellings(module)]
        else:
            own = [Name(module, (module,)) for module in self.modules]
        native = self.architecture.native(self.modules) if self.architecture else ()
        known = {entry.text for entry in own}
        return (*own, *(entry for entry in native if entry.text not in known))


class BaseIndex(Record):
    """A base pipeline: its folder or file, its pipeline class, and the components that hold weights.

    `remote` names the repository and commit, `owner/repo@commit`, of a base on the Hub; until its weights have been
    downloaded, `path` is the pure path `owner/repo`.
    """

    path: PurePath
    class_name: str
    components: Mapping[str, BaseComponent]
    variant: str | None = None
    remote: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the weights are on this machine."""
        return isinstance(self.path, Path)

    @property
    def repository(self) -> tuple[str, str]:
        """Name the repository and the commit of a base on the Hub."""
        name, _, commit = (self.remote or "").partition("@")
        return name, commit

    @property
    def label(self) -> str:
        """What reports call the base: what it can be asked for by, on the Hub with the commit that was read."""
        return self.remote or str(self.path)


def with_architectures(index: BaseIndex, architectures: Sequence[Architecture]) -> BaseIndex:
    """Give every component the first of the architectures that claims its class."""
    components = {
        name: component._replace(
            architecture=next((known for known in architectures if component.class_name in known.classes), None)
        )
        for name, component in index.components.items()
    }
    return index._replace(components=components)
